//! The element-wise parts of Muon: momentum before, and the step after, the orthogonalisation of a matrix.
//!
//! The Newton-Schulz iteration between the two is products of matrices and not here.
//! Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; arXiv:2502.16982,
//! section 2.

use crate::arch::vector::{Vector, at, per_isa};
use crate::{isa, rows};

/// What all matrices share at a step of Muon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Muon {
    /// η, times what the shape of the matrix asks for.
    pub learning_rate: f64,
    /// μ.
    pub momentum: f64,
    /// Whether the direction looks ahead along the momentum.
    pub nesterov: bool,
    /// λ: values are multiplied by 1 − ηλ.
    pub weight_decay: f64,
    /// Multiplies each gradient.
    pub gradient_factor: f32,
}

impl Default for Muon {
    fn default() -> Muon {
        let (learning_rate, momentum) = (0.02, 0.95);
        Muon { learning_rate, momentum, nesterov: true, weight_decay: 0.0, gradient_factor: 1.0 }
    }
}

impl Muon {
    /// m ← μm + (1 − μ)g; writes m, or with Nesterov (1 − μ)g + μm, to `out`: what is to be orthogonalised.
    ///
    /// `gradients`, the momentum `m`, zeros before the first step, and `out` have the same length, else it
    /// panics.
    #[track_caller]
    pub fn direction(&self, gradients: &[f32], m: &mut [f32], out: &mut [f32]) {
        let n = gradients.len();
        assert!(m.len() == n && out.len() == n, "momentum and direction of {n} values");
        let (isa, options) = (isa::active(), *self);
        rows::for_each_block_of(n, 1, [m, out], |range, [m, out]| {
            direction_block(isa, &gradients[range], m, out, options)
        });
    }

    /// θ ← θ(1 − ηλ) − η · `factor` · direction. Panics if the lengths differ.
    ///
    /// `factor` depends on the shape `[N, K]`: √max(1, N / K) in the original, 0.2 √max(N, K) to match
    /// AdamW's steps.
    #[track_caller]
    pub fn update(&self, values: &mut [f32], direction: &[f32], factor: f64) {
        let n = values.len();
        assert_eq!(direction.len(), n, "direction of {n} values");
        let (isa, rate) = (isa::active(), -self.learning_rate * factor);
        let keep = (1.0 - self.learning_rate * self.weight_decay) as f32;
        rows::for_each_block_of(n, 1, [values], |range, [values]| {
            update_block(isa, values, &direction[range], keep, rate as f32)
        });
    }
}

per_isa! { fn direction_block(gradients: &[f32], m: &mut [f32], out: &mut [f32], options: Muon) = direction_body }
per_isa! { fn update_block(values: &mut [f32], direction: &[f32], keep: f32, rate: f32) = update_body }

#[inline(always)]
fn direction_body<V: Vector>(gradients: &[f32], m: &mut [f32], out: &mut [f32], options: Muon) {
    let (factor, gain) = (V::splat(options.gradient_factor), V::splat((1.0 - options.momentum) as f32));
    for i in (0..m.len()).step_by(V::LANES) {
        let (g, momentum) = (at::<V>(gradients, i).mul(factor), at::<V>(m, i));
        let momentum = g.sub(momentum).mul_add(gain, momentum);
        momentum.store_slice(&mut m[i..]);
        let ahead = g.sub(momentum).mul_add(gain, momentum);
        if options.nesterov { ahead } else { momentum }.store_slice(&mut out[i..]);
    }
}

#[inline(always)]
fn update_body<V: Vector>(values: &mut [f32], direction: &[f32], keep: f32, rate: f32) {
    let (keep, rate) = (V::splat(keep), V::splat(rate));
    for i in (0..values.len()).step_by(V::LANES) {
        at::<V>(direction, i).mul_add(rate, at::<V>(values, i).mul(keep)).store_slice(&mut values[i..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, noise};

    #[test]
    fn direction_and_step_are_those_of_the_formula() {
        for n in [0, 1, 7, 16, 17, 100, 40_000] {
            let (values, gradients, m) = (noise(n, 1), noise(n, 2), noise(n, 3));
            for nesterov in [false, true] {
                let options = Muon { nesterov, weight_decay: 0.1, gradient_factor: 0.5, ..Muon::default() };
                let expected = |i: usize| {
                    let g = f64::from(gradients[i]) * 0.5;
                    let m = 0.95 * f64::from(m[i]) + 0.05 * g;
                    let out = if nesterov { 0.05 * g + 0.95 * m } else { m };
                    (m as f32, (out as f32, (f64::from(values[i]) * 0.998 - 0.04 * out) as f32))
                };
                let (expected_m, (expected_out, expected_values)): (Vec<_>, (Vec<_>, Vec<_>)) =
                    (0..n).map(expected).unzip();
                let (mut momentum, mut out, mut got) = (m.clone(), vec![9.0; n], values.clone());
                options.direction(&gradients, &mut momentum, &mut out);
                options.update(&mut got, &out, 2.0);
                assert_close(&momentum, &expected_m, 1e-6);
                assert_close(&out, &expected_out, 1e-6);
                assert_close(&got, &expected_values, 1e-6);
            }
        }
    }
}
