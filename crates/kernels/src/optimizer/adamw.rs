//! Adam with decoupled weight decay, and with it Adam and BERT's Adam.

use crate::arch::vector::{Vector, at, per_isa};
use crate::{isa, rows};

/// What all parameters share at a step of AdamW.
///
/// The decay is decoupled (arXiv:1711.05101, algorithm 2) unless `l2` is given, which makes it Adam
/// (arXiv:1412.6980, algorithm 1). Without `bias_correction` it is BERT's Adam: m / (√v + eps), then the
/// decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// η.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the corrected second moment.
    pub eps: f64,
    /// λ: values are multiplied by 1 − ηλ.
    pub weight_decay: f64,
    /// Times the values, added to the gradient.
    pub l2: f64,
    /// Whether moments are divided by 1 − βᵗ.
    pub bias_correction: bool,
    /// t: 1 at the first step.
    pub step: u64,
    /// Multiplies each gradient.
    pub gradient_factor: f32,
}

impl Default for AdamW {
    /// The first step with the defaults of PyTorch.
    fn default() -> AdamW {
        AdamW {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            l2: 0.0,
            bias_correction: true,
            step: 1,
            gradient_factor: 1.0,
        }
    }
}

impl AdamW {
    /// θ ← θ(1 − ηλ); m ← β₁m + (1 − β₁)g; v ← β₂v + (1 − β₂)g²; θ ← θ − η / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ)
    /// + eps).
    ///
    /// The order of PyTorch. `values`, `gradients` and the moments `m` and `v`, zeros before the first step,
    /// have the same length, else it panics.
    #[track_caller]
    pub fn update(&self, values: &mut [f32], gradients: &[f32], m: &mut [f32], v: &mut [f32]) {
        let n = values.len();
        assert!(gradients.len() == n && m.len() == n && v.len() == n, "moments and gradients of {n} values");
        let (isa, factors) = (isa::active(), self.factors());
        rows::for_each_block_of(n, 1, [values, m, v], |range, [values, m, v]| {
            update_block(isa, values, &gradients[range], m, v, factors)
        });
    }

    pub(super) fn factors(&self) -> Factors {
        let correction =
            |beta: f64| if self.bias_correction { 1.0 - beta.powf(self.step as f64) } else { 1.0 };
        Factors {
            gradient: self.gradient_factor,
            l2: self.l2 as f32,
            keep: (1.0 - self.learning_rate * self.weight_decay) as f32,
            gain1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            gain2: (1.0 - self.beta2) as f32,
            root: (1.0 / correction(self.beta2).sqrt()) as f32,
            eps: self.eps as f32,
            step: (-self.learning_rate / correction(self.beta1)) as f32,
        }
    }
}

/// The numbers that a step multiplies and adds, rounded to f32.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    gradient: f32,
    l2: f32,
    keep: f32,
    gain1: f32,
    beta2: f32,
    gain2: f32,
    root: f32,
    eps: f32,
    step: f32,
}

impl Factors {
    /// A vector of values after the step, and its moments.
    #[inline(always)]
    pub(super) fn step<V: Vector>(&self, value: V, gradient: V, m: V, v: V) -> [V; 3] {
        let g = value.mul_add(V::splat(self.l2), gradient.mul(V::splat(self.gradient)));
        let m = g.sub(m).mul_add(V::splat(self.gain1), m);
        let v = g.mul(V::splat(self.gain2)).mul_add(g, v.mul(V::splat(self.beta2)));
        let scale = v.sqrt().mul_add(V::splat(self.root), V::splat(self.eps));
        let value = m.div(scale).mul_add(V::splat(self.step), value.mul(V::splat(self.keep)));
        [value, m, v]
    }
}

per_isa! {
    fn update_block(
        values: &mut [f32], gradients: &[f32], m: &mut [f32], v: &mut [f32], factors: Factors
    ) = update_body
}

#[inline(always)]
fn update_body<V: Vector>(
    values: &mut [f32],
    gradients: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    factors: Factors,
) {
    for i in (0..values.len()).step_by(V::LANES) {
        let stepped = factors.step::<V>(at(values, i), at(gradients, i), at(m, i), at(v, i));
        stepped[0].store_slice(&mut values[i..]);
        stepped[1].store_slice(&mut m[i..]);
        stepped[2].store_slice(&mut v[i..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{assert_close, noise, wide};

    /// The formula, literally, in f64, for some steps with the same gradients.
    fn reference(options: AdamW, values: &[f32], gradients: &[f32], n_steps: u64) -> Vec<f32> {
        let (mut values, gradients) = (wide(values), wide(gradients));
        let (mut m, mut v) = (vec![0f64; values.len()], vec![0f64; values.len()]);
        for t in 1..=n_steps {
            for i in 0..values.len() {
                let g = gradients[i] * f64::from(options.gradient_factor) + options.l2 * values[i];
                values[i] *= 1.0 - options.learning_rate * options.weight_decay;
                m[i] = options.beta1 * m[i] + (1.0 - options.beta1) * g;
                v[i] = options.beta2 * v[i] + (1.0 - options.beta2) * g * g;
                let correction =
                    |beta: f64| if options.bias_correction { 1.0 - beta.powi(t as i32) } else { 1.0 };
                let root = v[i].sqrt() / correction(options.beta2).sqrt() + options.eps;
                values[i] -= options.learning_rate / correction(options.beta1) * m[i] / root;
            }
        }
        values.iter().map(|&x| x as f32).collect()
    }

    #[test]
    fn every_instruction_set_agrees_with_the_formula_to_a_millionth() {
        let usual =
            AdamW { learning_rate: 0.01, weight_decay: 0.1, gradient_factor: 0.3, ..AdamW::default() };
        let adam = AdamW { weight_decay: 0.0, l2: 0.1, beta2: 0.95, ..usual };
        let bert = AdamW { bias_correction: false, eps: 1e-6, ..usual };
        for options in [usual, adam, bert] {
            for n in [0, 1, 7, 16, 17, 100] {
                let (values, gradients) = (noise(n + 1, 1), noise(n + 1, 2));
                let expected = reference(options, &values[1..], &gradients[1..], 20);
                for isa in Isa::available() {
                    let mut got = values.clone();
                    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
                    for step in 1..=20 {
                        let factors = AdamW { step, ..options }.factors();
                        update_block(isa, &mut got[1..], &gradients[1..], &mut m, &mut v, factors);
                    }
                    assert_close(&got[1..], &expected, 2e-6);
                }
            }
        }
    }

    #[test]
    fn the_first_step_moves_by_the_learning_rate_whatever_the_gradient() {
        for gradient in [1e-3f32, 5.0, -3.0] {
            let (mut values, mut m, mut v) = ([2.0], [0.0], [0.0]);
            let options = AdamW { learning_rate: 0.1, weight_decay: 0.1, ..AdamW::default() };
            options.update(&mut values, &[gradient], &mut m, &mut v);
            let expected = 2.0 * 0.99 - 0.1 * gradient.signum();
            assert!((values[0] - expected).abs() < 2e-6, "{} {expected}", values[0]);
            assert!((m[0] - 0.1 * gradient).abs() < 1e-6 && (v[0] - 1e-3 * gradient * gradient).abs() < 1e-7);
        }
    }

    #[test]
    fn great_parameters_come_out_alike_on_any_number_of_threads() {
        let n = 100_003;
        let gradients = noise(n, 2);
        let run = |n_threads| {
            crate::threads::set_threads(n_threads);
            let (mut values, mut m, mut v) = (noise(n, 1), noise(n, 3), vec![0.5; n]);
            AdamW { step: 7, ..AdamW::default() }.update(&mut values, &gradients, &mut m, &mut v);
            (values, m, v)
        };
        assert!(run(1) == run(2));
    }
}
