//! A linear layer, or several that share their input.

use rhetor_tensor::{Tensor, Weight, ops};

/// `y = x Wᵀ + b`; several weights that share `x` put their outputs side by side.
pub struct Linear {
    /// Each `[out, in]`, of any stored type.
    pub weights: Vec<Weight>,
    /// `[Σ out]`.
    pub bias: Option<Tensor>,
}

impl Linear {
    /// x: [T, in] → [T, Σ out]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        ops::linear::linear(x, &self.weights, self.bias.as_ref())
    }
}
