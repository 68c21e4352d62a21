//! What all decoders share: embeddings, a stack of blocks, a norm and the output layer.

use rhetor_kernels::kv::KvPages;
use rhetor_tensor::{Tensor, ops, tape};
use std::sync::Arc;

use super::{Embedded, Embedding, Keep, Linear, Norm, Pass};
use crate::kv_cache::KvCache;
use crate::model::Network;

/// One block of a decoder: what distinguishes a family.
pub trait Block: Send + Sync {
    /// x: [T, D] → [T, D]; keys and values go to the block's own pages of the cache.
    fn forward(&self, x: Tensor, pass: &Pass, cache: Option<&mut KvPages>) -> Tensor;
}

/// A stack of blocks between embeddings and the output layer.
pub struct Decoder {
    /// [V, D]
    pub token_embd: Embedding,
    /// [P, D], added to the token's embedding where positions are learned.
    pub position_embd: Option<Embedding>,
    /// The blocks, first to last.
    pub blocks: Vec<Arc<dyn Block>>,
    /// Before the output layer.
    pub output_norm: Norm,
    /// [V, D]
    pub output: Linear,
}

impl Network for Decoder {
    fn blocks(&self, tokens: &[u32], pass: &Pass, mut cache: Option<&mut KvCache>) -> Tensor {
        let mut x = self.token_embd.forward(tokens, pass); // [T, D]
        for Embedded { first, rows } in pass.embedded.iter() {
            let pairs: Vec<(usize, usize)> = (0..rows.n_rows()).map(|i| (first + i, i)).collect();
            x = ops::rows::replace(x, 0, &pairs, rows);
        }
        if let Some(position_embd) = &self.position_embd {
            let positions: Vec<u32> = pass.of_row.iter().map(|&position| position as u32).collect();
            x = x + position_embd.forward(&positions, pass);
        }
        let forgets = pass.training.is_some_and(|training| training.keep == Keep::Blocks);
        for (i, block) in self.blocks.iter().enumerate() {
            if forgets && tape::is_recording() && cache.is_none() {
                let (block, pass) = (block.clone(), pass.to_owned());
                x = tape::checkpoint(x, move |x| block.forward(x, &pass, None));
            } else {
                x = block.forward(x, pass, cache.as_mut().map(|cache| cache.layer(i)));
            }
        }
        x
    }

    fn before_output(&self, x: &Tensor, _pass: &Pass) -> Tensor {
        self.output_norm.forward(x) // [N, D]
    }

    fn output(&self) -> &Linear {
        &self.output
    }
}
