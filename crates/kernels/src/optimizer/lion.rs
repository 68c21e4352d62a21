//! Lion: the sign of an interpolated momentum.

use crate::arch::vector::{Vector, at, per_isa};
use crate::{isa, rows};

/// What all parameters share at a step of Lion. Source: arXiv:2302.06675, algorithm 2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lion {
    /// η; a third to a tenth of AdamW's.
    pub learning_rate: f64,
    /// Share of the momentum in the direction.
    pub beta1: f64,
    /// Decay of the momentum.
    pub beta2: f64,
    /// λ: values are multiplied by 1 − ηλ.
    pub weight_decay: f64,
    /// Multiplies each gradient.
    pub gradient_factor: f32,
}

impl Default for Lion {
    fn default() -> Lion {
        Lion { learning_rate: 1e-4, beta1: 0.9, beta2: 0.99, weight_decay: 0.0, gradient_factor: 1.0 }
    }
}

impl Lion {
    /// θ ← θ(1 − ηλ) − η sign(β₁m + (1 − β₁)g); m ← β₂m + (1 − β₂)g. The sign of 0 is 0.
    ///
    /// `values`, `gradients` and the momentum `m`, zeros before the first step, have the same length, else it
    /// panics.
    #[track_caller]
    pub fn update(&self, values: &mut [f32], gradients: &[f32], m: &mut [f32]) {
        let n = values.len();
        assert!(gradients.len() == n && m.len() == n, "momentum and gradients of {n} values");
        let (isa, options) = (isa::active(), *self);
        rows::for_each_block_of(n, 1, [values, m], |range, [values, m]| {
            update_block(isa, values, &gradients[range], m, options)
        });
    }
}

per_isa! { fn update_block(values: &mut [f32], gradients: &[f32], m: &mut [f32], options: Lion) = update_body }

#[inline(always)]
fn update_body<V: Vector>(values: &mut [f32], gradients: &[f32], m: &mut [f32], options: Lion) {
    let factor = V::splat(options.gradient_factor);
    let (gain1, gain2) = (V::splat((1.0 - options.beta1) as f32), V::splat((1.0 - options.beta2) as f32));
    let keep = V::splat((1.0 - options.learning_rate * options.weight_decay) as f32);
    let (zero, rate) = (V::splat(0.0), V::splat(options.learning_rate as f32));
    for i in (0..values.len()).step_by(V::LANES) {
        let (g, momentum) = (at::<V>(gradients, i).mul(factor), at::<V>(m, i));
        let direction = g.sub(momentum).mul_add(gain1, momentum);
        // 0 and NaN step by themselves: a NaN must show.
        let step = zero.select_less(direction.abs(), rate.copy_sign(direction), direction);
        at::<V>(values, i).mul(keep).sub(step).store_slice(&mut values[i..]);
        g.sub(momentum).mul_add(gain2, momentum).store_slice(&mut m[i..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{assert_close, noise};

    #[test]
    fn every_instruction_set_agrees_with_the_formula_to_a_millionth() {
        let options =
            Lion { learning_rate: 0.01, weight_decay: 0.1, gradient_factor: 0.5, ..Lion::default() };
        for n in [0, 1, 7, 16, 17, 100] {
            let (values, mut gradients, mut m) = (noise(n, 1), noise(n, 2), noise(n, 3));
            if n > 20 {
                (gradients[20], m[20]) = (0.0, 0.0);
            }
            let sign = |x: f64| if x == 0.0 { 0.0 } else { x.signum() };
            let expected = |i: usize| {
                let (g, m) = (f64::from(gradients[i]) * 0.5, f64::from(m[i]));
                (f64::from(values[i]) * (1.0 - 0.001) - 0.01 * sign(0.9 * m + 0.1 * g), 0.99 * m + 0.01 * g)
            };
            let expected: (Vec<f32>, Vec<f32>) =
                (0..n).map(expected).map(|(value, m)| (value as f32, m as f32)).unzip();
            for isa in Isa::available() {
                let (mut got, mut momentum) = (values.clone(), m.clone());
                update_block(isa, &mut got, &gradients, &mut momentum, options);
                assert_close(&got, &expected.0, 1e-6);
                assert_close(&momentum, &expected.1, 1e-6);
            }
        }
    }

    #[test]
    fn a_gradient_that_is_no_number_shows_and_great_parameters_have_no_seam() {
        let n = 50_001;
        let (values, mut gradients) = (noise(n, 1), noise(n, 2));
        gradients[40_000] = f32::NAN;
        let (mut got, mut m) = (values.clone(), vec![0.0; n]);
        Lion::default().update(&mut got, &gradients, &mut m);
        for i in 0..n {
            let expected = match gradients[i] {
                0.0 => values[i],
                g => values[i] - 1e-4f32.copysign(g),
            };
            assert!(if i == 40_000 { got[i].is_nan() } else { got[i] == expected }, "{i}");
        }
    }
}
