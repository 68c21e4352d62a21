//! The block of most decoders: a norm before each sublayer.

use rhetor_kernels::kv::KvPages;
use rhetor_tensor::Tensor;

use super::{Attention, Block, Decoder, FeedForward, GatedFeedForward, Mixture, Norm, Pass, Sublayer};
use crate::load::{LoadError, Weights};
use crate::model::Network;

/// `x + attention(norm(x))`, then the same with the feed-forward layer. Source: arXiv:2002.04745, section 2.
///
/// What a sublayer adds may be normed once more (Gemma 2, arXiv:2408.00118, section 2). Both sublayers may stand side by
/// side, `x + attention(norm(x)) + feed_forward(norm(x))`, with one norm (GPT-J; StableLM 2, arXiv:2402.17834, section 2)
/// or one each (GPT-NeoX, arXiv:2204.06745, section 2.1).
pub struct PreNormBlock {
    /// Before attention; none in EAGLE's draft head.
    pub attn_norm: Norm,
    /// The first sublayer.
    pub attn: Attention,
    /// After attention.
    pub attn_post_norm: Option<Norm>,
    /// Before the feed-forward layer; without one, that layer reads what attention reads.
    pub ffn_norm: Option<Norm>,
    /// Whether `ffn_norm` norms the input of the block, not what attention has made of it.
    pub is_parallel: bool,
    /// The second sublayer.
    pub ffn: Box<dyn Sublayer>,
    /// After the feed-forward layer.
    pub ffn_post_norm: Option<Norm>,
}

impl PreNormBlock {
    /// A decoder of such blocks, each with what the family's table has.
    pub fn decoder(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
        Decoder::load(weights, PreNormBlock::load)
    }

    /// The block of layer `i`.
    pub fn load(weights: &mut Weights, i: usize) -> Result<PreNormBlock, LoadError> {
        let qkv: &[&str] = match weights.has("blk.{i}.attn_qkv") {
            true => &["blk.{i}.attn_qkv"],
            false => &["blk.{i}.attn_q", "blk.{i}.attn_k", "blk.{i}.attn_v"],
        };
        // GGUF's name for the norm of attention where the norm of the feed-forward layer has its usual one: Falcon.
        let (attn_norm, ffn_norm) = match weights.has("blk.{i}.attn_norm_2") {
            true => ("blk.{i}.attn_norm_2", "blk.{i}.attn_norm"),
            false => ("blk.{i}.attn_norm", "blk.{i}.ffn_norm"),
        };
        Ok(PreNormBlock {
            attn_norm: optional(weights, attn_norm, i)?.unwrap_or(Norm::None),
            attn: weights.attention(qkv, "blk.{i}.attn_output", i)?,
            attn_post_norm: optional(weights, "blk.{i}.post_attention_norm", i)?,
            ffn_norm: optional(weights, ffn_norm, i)?,
            is_parallel: weights.config.own_opt("parallel") == Some(1.0),
            ffn: feed_forward(weights, i)?,
            ffn_post_norm: optional(weights, "blk.{i}.post_ffw_norm", i)?,
        })
    }
}

fn optional(weights: &mut Weights, ours: &str, i: usize) -> Result<Option<Norm>, LoadError> {
    weights.has(ours).then(|| weights.norm(ours, i)).transpose()
}

/// The feed-forward layer of layer `i`: a mixture if there is a router; gated if there is a gate, alone or above `ffn_up`.
fn feed_forward(weights: &mut Weights, i: usize) -> Result<Box<dyn Sublayer>, LoadError> {
    if weights.has("blk.{i}.ffn_gate_inp") {
        return Ok(Box::new(Mixture::load(weights, i)?));
    }
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

impl Block for PreNormBlock {
    fn forward(&self, x: Tensor, pass: &Pass, cache: Option<&mut KvPages>) -> Tensor {
        let post = |norm: &Option<Norm>, y: Tensor| match norm {
            Some(norm) => norm.forward(&y),
            None => y,
        };
        let normed = self.attn_norm.forward(&x); // [T, D]
        let early = self.ffn_norm.as_ref().filter(|_| self.is_parallel).map(|norm| norm.forward(&x));
        let x = post(&self.attn_post_norm, self.attn.forward(&normed, pass, cache)) + x;
        let normed = match &self.ffn_norm {
            Some(norm) => early.unwrap_or_else(|| norm.forward(&x)),
            None => normed,
        };
        post(&self.ffn_post_norm, self.ffn.forward(&normed, pass)) + x
    }
}
