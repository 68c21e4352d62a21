//! Adapters: what moves in fine-tuning, and how it meets the frozen model.
//!
//! A method says which tensors of the base train ([`Adapter::trains`]), and what it adds to linear layers, embeddings,
//! sublayers, keys and values, and inputs; everything defaults to nothing, so that a method's file shows
//! how it differs from the others. Quantized weights with LoRA are QLoRA: no file of its own.

use rhetor_tensor::{Parameter, Tensor, Weight};

use crate::config::ModelConfig;
use crate::layers::Pass;

/// One adapter on its way into a model. What it hands out shares its parameters.
pub trait Adapter: Send {
    /// Whether this tensor of the base trains too.
    fn trains(&self, _site: &Site) -> bool {
        false
    }

    /// What takes the place of this tensor of the base, in the base's order.
    fn replaces(&mut self, _site: &Site) -> Option<Vec<f32>> {
        None
    }

    /// What it does to a linear layer. Layers that share their input are asked one by one.
    fn linear(&mut self, _site: &Site, _base: &Weight) -> Option<Box<dyn LinearHook>> {
        None
    }

    /// What it does to the table of embeddings.
    fn embedding(&mut self, _site: &Site, _base: &Weight) -> Option<Box<dyn EmbeddingHook>> {
        None
    }

    /// The parameters that it made, by the names under which they are saved.
    fn parameters(&self) -> Vec<Parameter>;
}

/// A tensor of the base model, as an adapter meets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Site<'a> {
    /// Our name with `{i}`, without a suffix: `blk.{i}.attn_q`.
    pub ours: &'static str,
    /// Hugging Face's name without a suffix: `model.layers.3.self_attn.q_proj`.
    pub name: &'a str,
    /// `.weight` or `.bias`.
    pub suffix: &'static str,
    /// The layer, from 0.
    pub layer: usize,
    /// Shape: `[out, in]` of a matrix, `[n]` of a vector.
    pub shape: &'a [usize],
    /// Whether Hugging Face stores the matrix as `[in, out]`.
    pub is_transposed: bool,
    /// The width of a head, if the rows stand in GGUF's order (rotary pairs are neighbours) and Hugging Face's is
    /// another (pairs are halves).
    pub interleaved: Option<usize>,
    /// The sizes of the model.
    pub config: &'a ModelConfig,
}

/// What an adapter does to a linear layer.
pub trait LinearHook: Send + Sync {
    /// Changes the input. x: [T, in] → [T, in]
    fn input(&self, x: Tensor) -> Tensor {
        x
    }

    /// Changes the outputs, which begin at column `start` of `y`. x: [T, in], y: [T, Σ out] → [T, Σ out]
    fn output(&self, _x: &Tensor, y: Tensor, _start: usize, _pass: &Pass) -> Tensor {
        y
    }

    /// Does to the weight what the hook does to its layer, so that the hook is needed no more. weight: [out, in]
    fn merge(&self, weight: &mut [f32]);
}

/// What an adapter does to an embedding.
pub trait EmbeddingHook: Send + Sync {
    /// Changes the rows. ids: [T], y: [T, D] → [T, D]
    fn output(&self, ids: &[u32], y: Tensor, pass: &Pass) -> Tensor;

    /// Does the same to the table. weight: [V, D]
    fn merge(&self, weight: &mut [f32]);
}
