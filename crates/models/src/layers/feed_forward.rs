//! The feed-forward layer, plain and gated.

use rhetor_kernels::activation::Activation;
use rhetor_tensor::{Tensor, ops};

use super::{Linear, Pass};

/// What a block has beside attention: a feed-forward layer of some kind.
pub trait Sublayer: Send + Sync {
    /// x: [T, D] → [T, D]
    fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor;
}

/// `down(act(up x))`, arXiv:1706.03762, eq. 2 with any non-linearity.
pub struct FeedForward {
    /// [F, D]
    pub up: Linear,
    /// [D, F]
    pub down: Linear,
    /// The non-linearity.
    pub activation: Activation,
}

impl FeedForward {
    /// x: [T, D] → [T, D]
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let hidden = self.up.forward(x, pass); // [T, F]
        self.down.forward(&ops::activation::activation(hidden, self.activation), pass)
    }
}

/// `down(act(gate x) · up x)`: SwiGLU and its kin, arXiv:2002.05202, eq. 6.
pub struct GatedFeedForward {
    /// Gate and up side by side: [2F, D]
    pub gate_up: Linear,
    /// [D, F]
    pub down: Linear,
    /// The non-linearity of the gate.
    pub activation: Activation,
}

impl GatedFeedForward {
    /// x: [T, D] → [T, D]
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let gate_up = self.gate_up.forward(x, pass); // [T, 2F]
        self.down.forward(&ops::activation::gated(&gate_up, self.activation), pass)
    }
}

impl Sublayer for FeedForward {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        FeedForward::forward(self, x, pass)
    }
}

impl Sublayer for GatedFeedForward {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        GatedFeedForward::forward(self, x, pass)
    }
}
