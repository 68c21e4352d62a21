//! Non-linearities.

use rhetor_kernels::activation::{self, Activation};
use std::sync::Arc;

use crate::{Tensor, tape};

/// `act(x)` element by element, in place if nobody else holds `x`.
pub fn activation(x: Tensor, activation: Activation) -> Tensor {
    let forward = move |x: Tensor| {
        let mut out = x.into_unique();
        activation::apply(activation, out.unique_data());
        out
    };
    if !x.is_tracked() {
        return forward(x);
    }
    let (to, x) = (x.tracked(), x.detached());
    let out = forward(x.clone());
    let input = x.clone();
    tape::push(out, move |dy, gradients| {
        let mut dx = dy.into_unique();
        activation::backward(activation, x.data(), dx.unique_data());
        gradients.add(&to, dx);
    })
    .with_recipe(Arc::new(move || forward(input.clone())))
}

/// `act(gate) · up`, where each row holds gate, then up. [T, 2F] → [T, F]
#[track_caller]
pub fn gated(gate_up: &Tensor, activation: Activation) -> Tensor {
    assert_eq!(gate_up.row_len() % 2, 0, "gate and up are equally wide, but together {:?}", gate_up.shape());
    let ffn_size = gate_up.row_len() / 2;
    let forward = move |gate_up: &Tensor| {
        Tensor::build([gate_up.n_rows(), ffn_size], |out| {
            activation::gated(activation, gate_up.data(), ffn_size, out)
        })
    };
    let out = forward(gate_up);
    if !gate_up.is_tracked() {
        return out;
    }
    let (to, gate_up) = (gate_up.tracked(), gate_up.detached());
    let input = gate_up.clone();
    tape::push(out, move |dy, gradients| {
        let dx = Tensor::build([gate_up.n_rows(), 2 * ffn_size], |dx| {
            activation::gated_backward(activation, gate_up.data(), ffn_size, dy.data(), dx)
        });
        gradients.add(&to, dx);
    })
    .with_recipe(Arc::new(move || forward(&input)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise};

    #[test]
    fn gradients_equal_central_differences() {
        use Activation::{Gelu, GeluTanh, QuickGelu, Silu, Tanh};
        for act in [Gelu, GeluTanh, QuickGelu, Silu, Tanh] {
            check(&[noise(&[3, 10], 1)], &[], |x| activation(x[0].clone(), act));
            check(&[noise(&[3, 10], 2)], &[], |x| gated(&x[0], act));
        }
    }
}
