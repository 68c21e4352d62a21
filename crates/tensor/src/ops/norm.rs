//! Normalisation of rows.

use rhetor_kernels::{layer_norm, rms_norm};

use crate::Tensor;

/// `x / sqrt(mean(x²) + eps) · weight` for each row. x: [T, D], weight: [D] → [T, D]
#[track_caller]
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Tensor {
    assert_eq!(weight.shape(), [x.row_len()], "weight of a norm over {:?}", x.shape());
    let shape = [x.n_rows(), x.row_len()];
    Tensor::build(shape, |out| rms_norm::rms_norm(x.data(), weight.data(), eps, out))
}

/// `(x − mean) / sqrt(variance + eps) · weight + bias` for each row. x: [T, D], weight, bias: [D] → [T, D]
#[track_caller]
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Tensor {
    assert_eq!(weight.shape(), [x.row_len()], "weight of a norm over {:?}", x.shape());
    assert_eq!(bias.shape(), weight.shape(), "bias of a norm over {:?}", x.shape());
    let shape = [x.n_rows(), x.row_len()];
    Tensor::build(shape, |out| layer_norm::layer_norm(x.data(), weight.data(), Some(bias.data()), eps, out))
}
