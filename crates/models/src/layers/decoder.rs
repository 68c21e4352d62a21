//! What all decoders share: embeddings, a stack of blocks, a norm and the output layer.

use rhetor_kernels::kv::KvPages;
use rhetor_tensor::Tensor;

use super::{Embedding, Linear, Norm, Positions};
use crate::kv_cache::KvCache;
use crate::model::Network;

/// One block of a decoder: what distinguishes a family.
pub trait Block: Send + Sync {
    /// x: [T, D] → [T, D]; keys and values go to the block's own pages of the cache.
    fn forward(&self, x: Tensor, at: &Positions, cache: Option<&mut KvPages>) -> Tensor;
}

/// A stack of blocks between embeddings and the output layer.
pub struct Decoder {
    /// [V, D]
    pub token_embd: Embedding,
    /// [P, D], added to the token's embedding where positions are learned.
    pub position_embd: Option<Embedding>,
    /// The blocks, first to last.
    pub blocks: Vec<Box<dyn Block>>,
    /// Before the output layer.
    pub output_norm: Norm,
    /// [V, D]
    pub output: Linear,
}

impl Network for Decoder {
    fn blocks(&self, tokens: &[u32], at: &Positions, mut cache: Option<&mut KvCache>) -> Tensor {
        let mut x = self.token_embd.forward(tokens); // [T, D]
        if let Some(position_embd) = &self.position_embd {
            let positions: Vec<u32> = at.of_row.iter().map(|&position| position as u32).collect();
            x = x + position_embd.forward(&positions);
        }
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, at, cache.as_mut().map(|cache| cache.layer(i)));
        }
        x
    }

    fn head(&self, x: &Tensor) -> Tensor {
        self.output.forward(&self.output_norm.forward(x)) // [N, D] → [N, V]
    }
}
