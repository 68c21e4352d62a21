//! DoRA: the length of each row of `W + s B A` is a parameter of its own, `W' = m (W + s B A) / ‖W + s B A‖`.
//!
//! The norm is taken for a constant on the way back (§4.3 of the paper). m begins as the norms of W's rows.
//! Source: DoRA, arXiv:2402.09353, §4.1, eq. 5.

use rhetor_tensor::{Parameter, Tensor, Vector, Weight, ops};
use std::sync::{Mutex, PoisonError};

use super::lora_linear::{LoraLinear, add_product};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Active, Pass};
    use rhetor_tensor::gradient_check::{check, noise, parameter};
    use rhetor_tensor::tape;
    use std::borrow::Cow;
    use std::sync::Arc;

    /// The gradients of A and B, the norm taken for a constant: those of the formula written out with constant norms, which
    /// are compared with central differences.
    #[test]
    fn gradients_are_those_of_the_formula_with_constant_norms() {
        let base = Weight::Trained(parameter("base", &[4, 5], noise(&[4, 5], 1).data().to_vec()));
        let bias = Vector::Fixed(noise(&[4], 2));
        let a = parameter("a", &[2, 5], noise(&[2, 5], 3).data().to_vec());
        let b = parameter("b", &[4, 2], noise(&[4, 2], 4).data().to_vec());
        let m = parameter("m", &[4], vec![0.5, 1.0, 1.5, 2.0]);
        let magnitude = Magnitude::new(m.clone(), base.clone(), Some(bias.clone()));
        let layer = Arc::new(LoraLinear::test(a.clone(), b.clone(), 0.5, magnitude));
        let inverse: Vec<f32> = norms(&base, Some(&layer)).iter().map(|norm| norm.recip()).collect();
        let Weight::Trained(w) = &base else { unreachable!() };
        w.set_frozen(true);
        let plain =
            |x: &Tensor| ops::linear::linear(x, std::slice::from_ref(&base), std::slice::from_ref(&bias));
        let written_out = |x: &Tensor| {
            let inner = ops::linear::linear(x, &[Weight::Trained(a.clone())], &[]);
            let product = ops::linear::linear(&inner, &[Weight::Trained(b.clone())], &[]);
            let y = ops::columns::add_columns(
                ops::linear::linear(x, std::slice::from_ref(&base), &[]),
                0,
                &product,
                0.5,
            );
            let y = ops::columns::scale_columns(y, 0, &Vector::Trained(m.clone()), Some(inverse.clone()));
            ops::columns::add_vector(y, 0, &bias, 1.0)
        };
        let x = noise(&[1, 5], 6);
        let trained = [a.clone(), b.clone(), m.clone()];
        check(&[noise(&[3, 5], 8)], &trained, |x| written_out(&x[0]));
        let pass = Pass {
            prefix_lens: std::borrow::Cow::Borrowed(&[]),
            segments: std::borrow::Cow::Borrowed(&[]),
            of_row: Cow::Owned(vec![0]),
            spans: Cow::Owned(Vec::new()),
            embedded: Cow::Borrowed(&[]),
            source: crate::layers::Source::None,
            adapters: Active::All,
            training: None,
            probe: None,
            balance: None,
        };
        let gradients = |f: &dyn Fn() -> Tensor| {
            trained.iter().for_each(|parameter| parameter.clear_gradient());
            let factors = Weight::Trained(parameter("factors", &[1, 4], noise(&[4], 7).data().to_vec()));
            let ((y, loss), tape) = tape::record(|| {
                let y = f();
                (y.clone(), ops::linear::linear(&y, &[factors], &[]))
            });
            tape.backward(&loss);
            (y.data().to_vec(), trained.iter().map(|p| p.gradient().clone()).collect::<Vec<_>>())
        };
        use crate::adapters::LinearHook;
        let (expected, expected_gradients) = gradients(&|| written_out(&x));
        let (got, got_gradients) = gradients(&|| layer.output(&x, plain(&x), 0, &pass));
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-5, "{got} {expected}");
        }
        for (got, expected) in got_gradients.iter().flatten().zip(expected_gradients.iter().flatten()) {
            assert!((got - expected).abs() < 1e-4, "{got} {expected}");
        }
    }
}
