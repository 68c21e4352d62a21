//! Looking into a forward pass from outside, and reaching into it.

use rhetor_tensor::Tensor;
use rhetor_tensor::ops::attention::Heads;
use rhetor_tensor::ops::scored_attention::Scores;

use super::{Attention, Pass};

/// What is called at the places of a forward pass that [`Pass::probe`] names; by itself it changes nothing.
///
/// Not for passes that a tape records: what a probe puts in place has no gradient.
pub trait Probe: Send + Sync {
    /// After the heads of a layer have mixed their values and before the output projection. mixed: [T, H·d] → [T, H·d]
    fn attention(&self, _seen: &Attended, mixed: Tensor) -> Tensor {
        mixed
    }

    /// The residual stream: at depth 0 the embeddings, at depth i + 1 what block i leaves. x: [T, D] → [T, D]
    fn residual(&self, _depth: usize, x: Tensor) -> Tensor {
        x
    }
}

/// What the attention of one layer sees in one pass.
pub struct Attended<'a, 'p> {
    /// The layer, whose number and weights it has.
    pub attention: &'a Attention,
    /// Queries, keys and values after the rotation, as adapters leave them: [T, (H + 2K)·d]
    pub qkv: &'a Tensor,
    /// How a row is divided, the scale and the window.
    pub heads: Heads,
    /// What happens to the scores before softmax.
    pub scores: &'a Scores,
    /// The pass.
    pub pass: &'a Pass<'p>,
}
