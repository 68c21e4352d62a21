//! Stochastic gradient descent, with momentum as PyTorch has it.

use crate::arch::vector::{Vector, at, per_isa};
use crate::{isa, rows};

/// What all parameters share at a step of gradient descent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// η.
    pub learning_rate: f64,
    /// μ; 0 needs no state.
    pub momentum: f64,
    /// Whether the step looks ahead along the momentum. Source: Sutskever et al., ICML 2013, section 2.
    pub nesterov: bool,
    /// Times the values, added to the gradient.
    pub l2: f64,
    /// Multiplies each gradient.
    pub gradient_factor: f32,
}

impl Default for Sgd {
    fn default() -> Sgd {
        Sgd { learning_rate: 1e-3, momentum: 0.0, nesterov: false, l2: 0.0, gradient_factor: 1.0 }
    }
}

impl Sgd {
    /// g ← g + l2 θ; b ← μb + g; θ ← θ − ηb, or with Nesterov θ − η(g + μb).
    ///
    /// `values`, `gradients` and the momentum `b`, zeros before the first step, have the same length; `b` may
    /// be empty where μ is 0. Panics otherwise.
    #[track_caller]
    pub fn update(&self, values: &mut [f32], gradients: &[f32], b: &mut [f32]) {
        let n = values.len();
        let plain = self.momentum == 0.0;
        assert!(gradients.len() == n && (b.len() == n || plain && b.is_empty()), "momentum of {n} values");
        let (isa, options) = (isa::active(), *self);
        if plain {
            return rows::for_each_block_of(n, 1, [values], |range, [values]| {
                plain_block(isa, values, &gradients[range], options)
            });
        }
        rows::for_each_block_of(n, 1, [values, b], |range, [values, b]| {
            momentum_block(isa, values, &gradients[range], b, options)
        });
    }
}

per_isa! { fn plain_block(values: &mut [f32], gradients: &[f32], options: Sgd) = plain_body }
per_isa! { fn momentum_block(values: &mut [f32], gradients: &[f32], b: &mut [f32], options: Sgd) = momentum_body }

#[inline(always)]
fn plain_body<V: Vector>(values: &mut [f32], gradients: &[f32], options: Sgd) {
    let (factor, l2) = (V::splat(options.gradient_factor), V::splat(options.l2 as f32));
    let rate = V::splat(-options.learning_rate as f32);
    for i in (0..values.len()).step_by(V::LANES) {
        let value: V = at(values, i);
        let g = value.mul_add(l2, at::<V>(gradients, i).mul(factor));
        g.mul_add(rate, value).store_slice(&mut values[i..]);
    }
}

#[inline(always)]
fn momentum_body<V: Vector>(values: &mut [f32], gradients: &[f32], b: &mut [f32], options: Sgd) {
    let (factor, l2) = (V::splat(options.gradient_factor), V::splat(options.l2 as f32));
    let (rate, momentum) = (V::splat(-options.learning_rate as f32), V::splat(options.momentum as f32));
    for i in (0..values.len()).step_by(V::LANES) {
        let value: V = at(values, i);
        let g = value.mul_add(l2, at::<V>(gradients, i).mul(factor));
        let velocity = at::<V>(b, i).mul_add(momentum, g);
        let direction = if options.nesterov { velocity.mul_add(momentum, g) } else { velocity };
        direction.mul_add(rate, value).store_slice(&mut values[i..]);
        velocity.store_slice(&mut b[i..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, noise};

    #[test]
    fn two_steps_are_those_of_the_formula() {
        for n in [0, 1, 7, 16, 17, 100, 40_000] {
            let (values, gradients) = (noise(n, 1), noise(n, 2));
            for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
                let options = Sgd { learning_rate: 0.1, momentum, nesterov, l2: 0.01, gradient_factor: 0.5 };
                let expected = |i: usize| {
                    let (mut value, mut b) = (f64::from(values[i]), 0.0);
                    for _ in 0..2 {
                        let g = f64::from(gradients[i]) * 0.5 + 0.01 * value;
                        b = momentum * b + g;
                        value -= 0.1 * if nesterov { g + momentum * b } else { b };
                    }
                    value as f32
                };
                let expected: Vec<f32> = (0..n).map(expected).collect();
                let (mut got, mut b) = (values.clone(), vec![0.0; if momentum == 0.0 { 0 } else { n }]);
                options.update(&mut got, &gradients, &mut b);
                options.update(&mut got, &gradients, &mut b);
                assert_close(&got, &expected, 1e-6);
            }
        }
    }

    #[test]
    #[should_panic(expected = "momentum of 2 values")]
    fn momentum_without_a_state_panics() {
        Sgd { momentum: 0.9, ..Sgd::default() }.update(&mut [0.0; 2], &[0.0; 2], &mut []);
    }
}
