//! The block of most decoders: attention and a feed-forward layer, each added to the residual stream.

use rhetor_kernels::kv::KvPages;
use rhetor_tensor::Tensor;

use super::{Attention, Block, Decoder, FeedForward, GatedFeedForward, Norm, Pass, Sublayer};
use crate::load::{LoadError, Weights};
use crate::model::Network;

/// Attention and a feed-forward layer around a residual stream.
pub struct ResidualBlock {
    /// The norm of attention.
    pub attn_norm: Norm,
    /// Attention.
    pub attn: Attention,
    /// Of what attention adds, where that is normed once more: Gemma 2, arXiv:2408.00118, section 2.
    pub attn_post_norm: Option<Norm>,
    /// The feed-forward layer.
    pub ffn: Box<dyn Sublayer>,
    /// Of what the feed-forward layer adds.
    pub ffn_post_norm: Option<Norm>,
    /// What follows what.
    pub residual: Residual,
}

/// How the two layers of a block follow each other; each variant holds the norm of the feed-forward layer.
pub enum Residual {
    /// x + attn(norm x), and then the same with the feed-forward layer: GPT-2.
    Sequential(Norm),
    /// x + attn(norm x) + ffn(norm x), with a norm of its own or with that of attention: GPT-NeoX, arXiv:2204.06745,
    /// section 2.1; GPT-J.
    Parallel(Option<Norm>),
}

impl ResidualBlock {
    /// A decoder of such blocks: each has what the family's table has, norms before its layers, and one norm for both
    /// where there is no other. The family's own switch `parallel` puts layers with a norm each side by side.
    pub fn decoder(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
        Decoder::load(weights, |weights, i| {
            let qkv: &[&str] = match weights.has("blk.{i}.attn_qkv") {
                true => &["blk.{i}.attn_qkv"],
                false => &["blk.{i}.attn_q", "blk.{i}.attn_k", "blk.{i}.attn_v"],
            };
            // Falcon has GGUF's second name for the norm of attention where the first is that of the other layer.
            let (attn_norm, ffn_norm) = match weights.has("blk.{i}.attn_norm_2") {
                true => ("blk.{i}.attn_norm_2", "blk.{i}.attn_norm"),
                false => ("blk.{i}.attn_norm", "blk.{i}.ffn_norm"),
            };
            let is_parallel = weights.config.own_opt("parallel") == Some(1.0);
            let mut optional = |ours| weights.has(ours).then(|| weights.norm(ours, i)).transpose();
            let (attn_post_norm, ffn_post_norm) =
                (optional("blk.{i}.post_attention_norm")?, optional("blk.{i}.post_ffw_norm")?);
            let residual = match optional(ffn_norm)? {
                Some(norm) if !is_parallel => Residual::Sequential(norm),
                norm => Residual::Parallel(norm),
            };
            Ok(ResidualBlock {
                attn_norm: weights.norm(attn_norm, i)?,
                attn: weights.attention(qkv, "blk.{i}.attn_output", i)?,
                attn_post_norm,
                ffn: feed_forward(weights, i)?,
                ffn_post_norm,
                residual,
            })
        })
    }

    /// What attention adds to the residual stream.
    fn attend(&self, x: &Tensor, pass: &Pass, cache: Option<&mut KvPages>) -> Tensor {
        let y = self.attn.forward(x, pass, cache);
        match &self.attn_post_norm {
            Some(norm) => norm.forward(&y),
            None => y,
        }
    }

    /// What the feed-forward layer adds.
    fn feed(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let y = self.ffn.forward(x, pass);
        match &self.ffn_post_norm {
            Some(norm) => norm.forward(&y),
            None => y,
        }
    }
}

/// The feed-forward layer of layer `i`: gated if there is a gate beside `ffn_up` or above it, in one matrix.
fn feed_forward(weights: &mut Weights, i: usize) -> Result<Box<dyn Sublayer>, LoadError> {
    let up = "blk.{i}.ffn_up";
    let is_fused = weights.extents(up, i)[0] == 2 * weights.config.ffn_size;
    let ups: &[&str] = if weights.has("blk.{i}.ffn_gate") { &["blk.{i}.ffn_gate", up] } else { &[up] };
    let (is_gated, activation) = (ups.len() > 1 || is_fused, weights.config.activation);
    let (up, down) = (weights.linear(ups, i)?, weights.linear(&["blk.{i}.ffn_down"], i)?);
    Ok(match is_gated {
        true => Box::new(GatedFeedForward { gate_up: up, down, activation }),
        false => Box::new(FeedForward { up, down, activation }),
    })
}

impl Block for ResidualBlock {
    fn forward(&self, x: Tensor, pass: &Pass, cache: Option<&mut KvPages>) -> Tensor {
        match &self.residual {
            Residual::Sequential(ffn_norm) => {
                let x = self.attend(&self.attn_norm.forward(&x), pass, cache) + x;
                self.feed(&ffn_norm.forward(&x), pass) + x
            }
            Residual::Parallel(ffn_norm) => {
                let normed = self.attn_norm.forward(&x);
                let attended = self.attend(&normed, pass, cache);
                let normed = ffn_norm.as_ref().map_or(normed, |norm| norm.forward(&x));
                self.feed(&normed, pass) + attended + x
            }
        }
    }
}
