//! Rows of a table by token id.

use rhetor_tensor::{Tensor, Weight, ops};

/// A table `[V, D]` of any stored type; the output layer may share it.
pub struct Embedding {
    /// `[V, D]`
    pub weight: Weight,
}

impl Embedding {
    /// ids: [T] → [T, D]
    pub fn forward(&self, ids: &[u32]) -> Tensor {
        ops::embedding::embedding(&self.weight, ids)
    }
}
