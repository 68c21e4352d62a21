//! What all decoders share: embeddings, a stack of blocks, a norm and the output layer.

use rhetor_kernels::kv::KvPages;
use rhetor_tensor::{Tensor, ops, tape};
use std::sync::Arc;

use super::{Embedded, Embedding, Keep, Linear, Norm, Pass};
use crate::head::Task;
use crate::kv_cache::KvCache;
use crate::load::{LoadError, Weights};
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
    /// Factor of the token's embedding.
    pub embedding_factor: f32,
    /// [P, D], added to the token's embedding where positions are learned.
    pub position_embd: Option<Embedding>,
    /// The blocks, first to last.
    pub blocks: Vec<Arc<dyn Block>>,
    /// Before the output layer.
    pub output_norm: Norm,
    /// [V, D]
    pub output: Linear,
}

impl Decoder {
    /// Loads what stands around the blocks by its usual names: embeddings, learned positions, the norm and the output layer.
    /// `block` loads block `i`.
    pub fn load<B: Block + 'static>(
        weights: &mut Weights,
        block: impl Fn(&mut Weights, usize) -> Result<B, LoadError>,
    ) -> Result<Box<dyn Network>, LoadError> {
        let token_embd = weights.embedding("token_embd")?;
        let has_positions = weights.has("position_embd");
        let position_embd = has_positions.then(|| weights.embedding("position_embd")).transpose()?;
        let blocks = (0..weights.config.n_layers)
            .map(|i| Ok(Arc::new(block(weights, i)?) as Arc<dyn Block>))
            .collect::<Result<_, LoadError>>()?;
        let output_norm =
            if weights.has("output_norm") { weights.norm("output_norm", 0)? } else { Norm::None };
        let mut output = weights.output(&token_embd)?;
        if weights.config.head.task == Task::Vocabulary {
            output.soft_cap = weights.config.logit_cap;
        }
        let embedding_factor = weights.config.embedding_factor;
        Ok(Box::new(Decoder { token_embd, embedding_factor, position_embd, blocks, output_norm, output }))
    }
}

impl Network for Decoder {
    fn blocks(&self, tokens: &[u32], pass: &Pass, mut cache: Option<&mut KvCache>) -> Tensor {
        let mut x = self.token_embd.forward(tokens, pass); // [T, D]
        if self.embedding_factor != 1.0 {
            x = ops::add::scale(x, self.embedding_factor);
        }
        for Embedded { first, rows } in pass.embedded.iter() {
            let pairs: Vec<(usize, usize)> = (0..rows.n_rows()).map(|i| (first + i, i)).collect();
            x = ops::rows::replace(x, 0, &pairs, rows);
        }
        if let Some(position_embd) = &self.position_embd {
            let positions: Vec<u32> = pass.of_row.iter().map(|&position| position as u32).collect();
            x = x + position_embd.forward(&positions, pass);
        }
        let probed = |depth: usize, x: Tensor| match &pass.probe {
            Some(probe) => probe.residual(depth, x),
            None => x,
        };
        x = probed(0, x);
        let forgets = pass.training.is_some_and(|training| training.keep == Keep::Blocks);
        for (i, block) in self.blocks.iter().enumerate() {
            if forgets && tape::is_recording() && cache.is_none() {
                let (block, pass) = (block.clone(), pass.to_owned());
                x = tape::checkpoint(x, move |x| block.forward(x, &pass, None));
            } else {
                x = block.forward(x, pass, cache.as_mut().map(|cache| cache.layer(i)));
            }
            x = probed(i + 1, x);
        }
        x
    }

    fn before_output(&self, x: &Tensor, _pass: &Pass) -> Tensor {
        self.output_norm.forward(x) // [N, D]
    }

    fn output(&self) -> &Linear {
        &self.output
    }

    fn embedding(&self) -> Option<&Embedding> {
        Some(&self.token_embd)
    }
}
