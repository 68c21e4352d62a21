//! DoRA: the length of each row of `W + s B A` is a parameter of its own, `W' = m (W + s B A) / ‖W + s B A‖`.
//!
//! The norm is taken for a constant on the way back (§4.3 of the paper). m begins as the norms of W's rows.
//! Source: DoRA, arXiv:2402.09353, §4.1, eq. 5.

use rhetor_tensor::{Parameter, Tensor, Vector, Weight, ops};
use std::sync::{Mutex, PoisonError};

use super::lora::{LoraLinear, add_product};

/// The magnitudes of one layer.
pub(super) struct Magnitude {
    /// m: [out], in the base's order.
    pub magnitude: Parameter,
    base: Weight,
    /// The layer's own bias, which is not scaled.
    bias: Option<Vector>,
    /// The last norms, and the values of A and B that they are of.
    known: Mutex<Option<Known>>,
}

struct Known {
    a: Vec<f32>,
    b: Vec<f32>,
    inverse_norms: Vec<f32>,
}

impl Magnitude {
    pub fn new(magnitude: Parameter, base: Weight, bias: Option<Vector>) -> Magnitude {
        Magnitude { magnitude, base, bias, known: Mutex::default() }
    }

    /// `m / n · (y − bias) + bias`, where `y` holds `x Wᵀ + bias + s B A x` at `start`. y: [T, Σ out] → the same
    pub fn apply(&self, y: Tensor, start: usize, layer: &LoraLinear) -> Tensor {
        let inverse_norms = self.inverse_norms(layer);
        let by = Vector::Trained(self.magnitude.clone());
        match &self.bias {
            None => ops::columns::scale_columns(y, start, &by, Some(inverse_norms)),
            Some(bias) => {
                let y = ops::columns::add_vector(y, start, bias, -1.0);
                let y = ops::columns::scale_columns(y, start, &by, Some(inverse_norms));
                ops::columns::add_vector(y, start, bias, 1.0)
            }
        }
    }

    /// 1 / ‖W + s B A‖ of each row. [out]
    fn inverse_norms(&self, layer: &LoraLinear) -> Vec<f32> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known =
            known.as_ref().is_some_and(|known| known.a == *layer.a.read() && known.b == *layer.b.read());
        if !is_known {
            let mut inverse_norms = norms(&self.base, Some(layer));
            inverse_norms.iter_mut().for_each(|norm| *norm = norm.max(f32::MIN_POSITIVE).recip());
            *known = Some(Known { a: layer.a.read().clone(), b: layer.b.read().clone(), inverse_norms });
        }
        known.as_ref().expect("filled just now").inverse_norms.clone()
    }

    /// Gives the rows of `weight`, which already has the product, their magnitudes. weight: [out, in]
    pub fn merge(&self, weight: &mut [f32]) {
        let n_in = self.base.n_in();
        for (row, magnitude) in weight.chunks_exact_mut(n_in).zip(self.magnitude.read().iter()) {
            let factor = magnitude / norm(row).max(f32::MIN_POSITIVE);
            row.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

/// Norms of the rows of `base`, or of `base + s B A`. → [out]
pub(super) fn norms(base: &Weight, layer: Option<&LoraLinear>) -> Vec<f32> {
    let (n_out, n_in) = (base.n_out(), base.n_in());
    let mut sum = vec![0.0; n_out * n_in];
    sum.chunks_exact_mut(n_in).enumerate().for_each(|(i, row)| base.row(i, row));
    if let Some(layer) = layer {
        add_product(&layer.a, &layer.b, layer.scale, &mut sum);
    }
    sum.chunks_exact(n_in).map(norm).collect()
}

fn norm(row: &[f32]) -> f32 {
    row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() as f32
}
