//! Normalisation of each row.

use rhetor_tensor::ops::head_norm::{self, HeadColumns, NormKind};
use rhetor_tensor::{Tensor, Vector, ops};

/// Root-mean-square norm, arXiv:1910.07467, eq. 4.
pub struct RmsNorm {
    /// `[D]`
    pub weight: Vector,
    /// Added to the mean square.
    pub eps: f32,
}

impl RmsNorm {
    /// x: [T, D] → [T, D]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        ops::norm::rms_norm(x, &self.weight, self.eps)
    }
}

/// Layer norm with weight and bias, arXiv:1607.06450, eq. 4.
pub struct LayerNorm {
    /// `[D]`
    pub weight: Vector,
    /// `[D]`
    pub bias: Vector,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// x: [T, D] → [T, D]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        ops::norm::layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// Either norm, where a brick takes both.
pub enum Norm {
    /// Root mean square.
    Rms(RmsNorm),
    /// Mean and variance.
    Layer(LayerNorm),
    /// Nothing is normed.
    None,
}

impl Norm {
    /// x: [T, D] → [T, D]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Norm::Rms(norm) => norm.forward(x),
            Norm::Layer(norm) => norm.forward(x),
            Norm::None => x.clone(),
        }
    }
}

/// A norm of each head of queries or keys by itself. Source: arXiv:2302.05442, section 2.
pub struct HeadNorm {
    /// What is done.
    pub kind: NormKind,
    /// `[d]`, or `[heads · d]` where each head has its own.
    pub weight: Vector,
    /// Added to the mean square or the variance.
    pub eps: f32,
}

impl HeadNorm {
    /// x: [T, C], of which `heads` are normed → [T, C]
    pub fn forward(&self, x: Tensor, heads: HeadColumns) -> Tensor {
        head_norm::head_norm(x, heads, self.kind, &self.weight, self.eps)
    }
}
