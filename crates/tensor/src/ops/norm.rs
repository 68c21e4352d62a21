//! Normalisation of rows.

use rhetor_kernels::{layer_norm, rms_norm};
use std::sync::Arc;

use crate::tape::{self, Recipe};
use crate::{Tensor, Vector};

/// `x / sqrt(mean(x²) + eps) · weight` for each row. x: [T, D], weight: [D] → [T, D]
#[track_caller]
pub fn rms_norm(x: &Tensor, weight: &Vector, eps: f32) -> Tensor {
    assert_eq!([weight.len()], [x.row_len()], "weight of a norm over {:?}", x.shape());
    let forward = move |x: &Tensor, weight: &Vector| {
        Tensor::build([x.n_rows(), x.row_len()], |out| {
            weight.with(|weight| rms_norm::rms_norm(x.data(), weight, eps, out))
        })
    };
    let out = forward(x, weight);
    if !(x.is_tracked() || weight.is_wanted()) {
        return out;
    }
    let (to, x, weight) = (x.tracked(), x.detached(), weight.clone());
    let recipe: Recipe = {
        let (x, weight) = (x.clone(), weight.clone());
        Arc::new(move || forward(&x, &weight))
    };
    tape::push(out, move |dy, gradients| {
        let dx = Tensor::build([x.n_rows(), x.row_len()], |dx| {
            with_gradients([weight.trained(), None], |[d_weight, _]| {
                weight.with(|w| rms_norm::backward(x.data(), w, eps, dy.data(), dx, d_weight))
            });
        });
        gradients.add(&to, dx);
    })
    .with_recipe(recipe)
}

/// `(x − mean) / sqrt(variance + eps) · weight + bias` for each row. x: [T, D], weight, bias: [D] → [T, D]
#[track_caller]
pub fn layer_norm(x: &Tensor, weight: &Vector, bias: &Vector, eps: f32) -> Tensor {
    assert_eq!([weight.len()], [x.row_len()], "weight of a norm over {:?}", x.shape());
    assert_eq!(bias.len(), weight.len(), "bias of a norm over {:?}", x.shape());
    let forward = move |x: &Tensor, weight: &Vector, bias: &Vector| {
        Tensor::build([x.n_rows(), x.row_len()], |out| {
            weight.with(|w| bias.with(|b| layer_norm::layer_norm(x.data(), w, Some(b), eps, out)))
        })
    };
    let out = forward(x, weight, bias);
    if !(x.is_tracked() || weight.is_wanted() || bias.is_wanted()) {
        return out;
    }
    let (to, x, weight, bias) = (x.tracked(), x.detached(), weight.clone(), bias.clone());
    let recipe: Recipe = {
        let (x, weight, bias) = (x.clone(), weight.clone(), bias.clone());
        Arc::new(move || forward(&x, &weight, &bias))
    };
    tape::push(out, move |dy, gradients| {
        let dx = Tensor::build([x.n_rows(), x.row_len()], |dx| {
            with_gradients([weight.trained(), bias.trained()], |[d_weight, d_bias]| {
                weight.with(|w| layer_norm::backward(x.data(), w, eps, dy.data(), dx, d_weight, d_bias))
            });
        });
        gradients.add(&to, dx);
    })
    .with_recipe(recipe)
}

/// Calls `f` with the gradients of the parameters that want one.
fn with_gradients([first, second]: [Option<&crate::Parameter>; 2], f: impl FnOnce([Option<&mut [f32]>; 2])) {
    match (first, second) {
        (Some(first), Some(second)) => {
            first.add_gradient(|a| second.add_gradient(|b| f([Some(a), Some(b)])));
        }
        (Some(first), None) => first.add_gradient(|a| f([Some(a), None])),
        (None, Some(second)) => second.add_gradient(|b| f([None, Some(b)])),
        (None, None) => f([None, None]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise, parameter};

    #[test]
    fn gradients_equal_central_differences() {
        let x = noise(&[3, 7], 1);
        let weight = parameter("weight", &[7], noise(&[7], 2).data().to_vec());
        let bias = parameter("bias", &[7], noise(&[7], 3).data().to_vec());
        let (w, b) = (Vector::Trained(weight.clone()), Vector::Trained(bias.clone()));
        check(std::slice::from_ref(&x), std::slice::from_ref(&weight), |x| rms_norm(&x[0], &w, 1e-5));
        check(std::slice::from_ref(&x), &[weight, bias.clone()], |x| layer_norm(&x[0], &w, &b, 1e-5));
        let fixed = Vector::from(noise(&[7], 2));
        check(std::slice::from_ref(&x), &[bias], |x| layer_norm(&x[0], &fixed, &b, 1e-5));
        check(&[x], &[], |x| rms_norm(&x[0], &fixed, 1e-5));
    }
}
