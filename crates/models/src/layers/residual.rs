//! The block of most decoders: attention and a feed-forward layer, each added to the residual stream.

use rhetor_kernels::kv::KvPages;
use rhetor_tensor::Tensor;
use std::sync::Arc;

use super::{Attention, Block, FeedForward, Norm, Pass};
use crate::load::{LoadError, Weights};

/// Attention and a feed-forward layer around a residual stream.
pub struct ResidualBlock {
    /// The norm of attention.
    pub attn_norm: Norm,
    /// Attention.
    pub attn: Attention,
    /// The feed-forward layer.
    pub ffn: FeedForward,
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
    /// norm(x + attn x), and then the same with the feed-forward layer: arXiv:1706.03762, section 3.1.
    Post(Norm),
}

impl ResidualBlock {
    /// Loads block `i` by the usual names: attention from the tensors `qkv`, its norm `attn_norm` (or `attn_output_norm`
    /// after it), and a feed-forward layer of two matrices.
    pub fn load(
        weights: &mut Weights,
        qkv: &[&str],
        attn_norm: &str,
        residual: Residual,
        i: usize,
    ) -> Result<Arc<dyn Block>, LoadError> {
        let block = ResidualBlock {
            attn_norm: Norm::Layer(weights.layer_norm(attn_norm, i)?),
            attn: weights.attention(qkv, "blk.{i}.attn_output", i)?,
            ffn: FeedForward {
                up: weights.linear(&["blk.{i}.ffn_up"], i)?,
                down: weights.linear(&["blk.{i}.ffn_down"], i)?,
                activation: weights.config.activation,
            },
            residual,
        };
        Ok(Arc::new(block))
    }
}

impl Block for ResidualBlock {
    fn forward(&self, x: Tensor, pass: &Pass, cache: Option<&mut KvPages>) -> Tensor {
        match &self.residual {
            Residual::Sequential(ffn_norm) => {
                let x = self.attn.forward(&self.attn_norm.forward(&x), pass, cache) + x;
                self.ffn.forward(&ffn_norm.forward(&x), pass) + x
            }
            Residual::Parallel(ffn_norm) => {
                let normed = self.attn_norm.forward(&x);
                let attended = self.attn.forward(&normed, pass, cache);
                let normed = ffn_norm.as_ref().map_or(normed, |norm| norm.forward(&x));
                self.ffn.forward(&normed, pass) + attended + x
            }
            Residual::Post(ffn_norm) => {
                let x = self.attn_norm.forward(&(self.attn.forward(&x, pass, cache) + x));
                ffn_norm.forward(&(self.ffn.forward(&x, pass) + x))
            }
        }
    }
}
