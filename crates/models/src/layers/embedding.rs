//! Rows of a table by token id.

use rhetor_tensor::{Tensor, Weight, ops};

use super::Pass;
use crate::adapters::EmbeddingHook;

/// A table `[V, D]` of any stored type; the output layer may share it.
pub struct Embedding {
    /// `[V, D]`
    pub weight: Weight,
    /// What adapters do here, each with its number.
    pub hooks: Vec<(usize, Box<dyn EmbeddingHook>)>,
}

impl Embedding {
    /// ids: [T] → [T, D]
    pub fn forward(&self, ids: &[u32], pass: &Pass) -> Tensor {
        let y = ops::embedding::embedding(&self.weight, ids);
        let hooks = self.hooks.iter().filter(|(adapter, _)| pass.adapters.has(*adapter));
        hooks.fold(y, |y, (_, hook)| hook.output(ids, y, pass))
    }
}
