//! Non-linearities.

use rhetor_kernels::activation::{self, Activation};

use crate::Tensor;

/// `act(x)` element by element, in place if nobody else holds `x`.
pub fn activation(x: Tensor, activation: Activation) -> Tensor {
    let mut out = x.into_unique();
    activation::apply(activation, out.unique_data());
    out
}

/// `act(gate) · up`, where each row holds gate, then up. [T, 2F] → [T, F]
#[track_caller]
pub fn gated(gate_up: &Tensor, activation: Activation) -> Tensor {
    assert_eq!(gate_up.row_len() % 2, 0, "gate and up are equally wide, but together {:?}", gate_up.shape());
    let ffn_size = gate_up.row_len() / 2;
    Tensor::build([gate_up.n_rows(), ffn_size], |out| {
        activation::gated(activation, gate_up.data(), ffn_size, out)
    })
}
