//! Activation functions, alone and as the gate of a feed-forward layer.

use crate::arch::math;
use crate::arch::vector::{Vector, at, per_isa};
use crate::{isa, rows};

/// A function applied to each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// max(0, x).
    Relu,
    /// x · ½(1 + erf(x / √2)). Source: arXiv:1606.08415, section 2.
    Gelu,
    /// ½x(1 + tanh(√(2/π)(x + 0.044715x³))): `gelu_new`, `gelu_fast`, `gelu_pytorch_tanh`. Source: as `Gelu`.
    GeluTanh,
    /// x · σ(1.702x). Source: as `Gelu`.
    QuickGelu,
    /// x · σ(x), also called swish. Source: arXiv:1702.03118.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
}

/// Applies `activation` to every element of `x`.
pub fn apply(activation: Activation, x: &mut [f32]) {
    let isa = isa::active();
    rows::for_each_block(x, 1, |_, x| apply_block(isa, activation, x));
}

/// out = activation(gate) · up: the inner part of SwiGLU and GeGLU (arXiv:2002.05202, section 2).
///
/// `gate_up: [T, 2F]` holds gate and up side by side, `out: [T, F]`. Panics if the lengths do not fit.
#[track_caller]
pub fn gated(activation: Activation, gate_up: &[f32], ffn_size: usize, out: &mut [f32]) {
    assert_eq!(gate_up.len(), 2 * out.len(), "gate_up is [T, 2F], out [T, F]");
    assert!(ffn_size > 0 && out.len().is_multiple_of(ffn_size), "out {}, ffn_size {ffn_size}", out.len());
    let isa = isa::active();
    rows::for_each_block(out, ffn_size, |first, out| {
        let gate_up = &gate_up[2 * first * ffn_size..][..2 * out.len()];
        gated_rows(isa, activation, gate_up, ffn_size, out)
    });
}

/// The gradient of [`apply`]: `d` is dy on entry and dy · activation'(x) on return.
///
/// `x` is what the function was applied to. Relu has the slope 0 at 0. Panics if the lengths differ.
#[track_caller]
pub fn backward(activation: Activation, x: &[f32], d: &mut [f32]) {
    assert_eq!(x.len(), d.len(), "x and d");
    let isa = isa::active();
    rows::for_each_block(d, 1, |first, d| backward_block(isa, activation, &x[first..first + d.len()], d));
}

/// The gradient of [`gated`]: d_gate = d_out · up · activation'(gate), d_up = d_out · activation(gate).
///
/// `gate_up`, `d_gate_up`: `[T, 2F]`, `d_out: [T, F]`. Panics if the lengths do not fit.
#[track_caller]
pub fn gated_backward(
    activation: Activation,
    gate_up: &[f32],
    ffn_size: usize,
    d_out: &[f32],
    d_gate_up: &mut [f32],
) {
    assert_eq!(gate_up.len(), 2 * d_out.len(), "gate_up is [T, 2F], d_out [T, F]");
    assert_eq!(gate_up.len(), d_gate_up.len(), "gate_up and its gradient");
    assert!(ffn_size > 0 && d_out.len().is_multiple_of(ffn_size), "d_out {}, F {ffn_size}", d_out.len());
    let isa = isa::active();
    rows::for_each_block(d_gate_up, 2 * ffn_size, |first, d_gate_up| {
        let gate_up = &gate_up[2 * first * ffn_size..][..d_gate_up.len()];
        let d_out = &d_out[first * ffn_size..][..d_gate_up.len() / 2];
        gated_backward_rows(isa, activation, gate_up, ffn_size, d_out, d_gate_up)
    });
}

per_isa! { fn backward_block(activation: Activation, x: &[f32], d: &mut [f32]) = backward_body }
per_isa! {
    fn gated_backward_rows(
        activation: Activation, gate_up: &[f32], ffn_size: usize, d_out: &[f32], d_gate_up: &mut [f32]
    ) = gated_backward_body
}
per_isa! { fn apply_block(activation: Activation, x: &mut [f32]) = apply_body }
per_isa! { fn gated_rows(activation: Activation, gate_up: &[f32], ffn_size: usize, out: &mut [f32]) = gated_body }

#[inline(always)]
fn apply_body<V: Vector>(activation: Activation, x: &mut [f32]) {
    for x in x.chunks_mut(V::LANES) {
        activate(activation, V::load_slice(x, 0.0)).store_slice(x);
    }
}

#[inline(always)]
fn gated_body<V: Vector>(activation: Activation, gate_up: &[f32], ffn_size: usize, out: &mut [f32]) {
    for (gate_up, out) in gate_up.chunks_exact(2 * ffn_size).zip(out.chunks_exact_mut(ffn_size)) {
        let (gate, up) = gate_up.split_at(ffn_size);
        for ((gate, up), out) in gate.chunks(V::LANES).zip(up.chunks(V::LANES)).zip(out.chunks_mut(V::LANES))
        {
            activate(activation, V::load_slice(gate, 0.0)).mul(V::load_slice(up, 0.0)).store_slice(out);
        }
    }
}

#[inline(always)]
fn backward_body<V: Vector>(activation: Activation, x: &[f32], d: &mut [f32]) {
    for (x, d) in x.chunks(V::LANES).zip(d.chunks_mut(V::LANES)) {
        let (_, slope) = value_and_slope(activation, V::load_slice(x, 0.0));
        slope.mul(V::load_slice(d, 0.0)).store_slice(d);
    }
}

#[inline(always)]
fn gated_backward_body<V: Vector>(
    activation: Activation,
    gate_up: &[f32],
    ffn_size: usize,
    d_out: &[f32],
    d_gate_up: &mut [f32],
) {
    let rows = gate_up.chunks_exact(2 * ffn_size).zip(d_out.chunks_exact(ffn_size));
    for ((gate_up, d_out), d_gate_up) in rows.zip(d_gate_up.chunks_exact_mut(2 * ffn_size)) {
        let ((gate, up), (d_gate, d_up)) = (gate_up.split_at(ffn_size), d_gate_up.split_at_mut(ffn_size));
        for i in (0..ffn_size).step_by(V::LANES) {
            let (value, slope) = value_and_slope::<V>(activation, at(gate, i));
            let d: V = at(d_out, i);
            slope.mul(at(up, i)).mul(d).store_slice(&mut d_gate[i..]);
            value.mul(d).store_slice(&mut d_up[i..]);
        }
    }
}

/// The function and its derivative.
#[inline(always)]
fn value_and_slope<V: Vector>(activation: Activation, x: V) -> (V, V) {
    let (zero, half, one) = (V::splat(0.0), V::splat(0.5), V::splat(1.0));
    match activation {
        Activation::Relu => (zero.max(x), zero.select_less(x, one, zero)),
        Activation::Gelu => {
            let share = half.mul(one.add(math::erf(x.mul(V::splat(std::f32::consts::FRAC_1_SQRT_2)))));
            let density = math::exp(x.mul(x).mul(V::splat(-0.5))).mul(V::splat(0.398_942_3));
            // Beyond 20 the density is 0, but no product with an infinite x may say so.
            (x.mul(share), clamp(x, 20.0).mul_add(density, share))
        }
        Activation::GeluTanh => {
            let near = clamp(x, 12.0);
            let square = near.mul(near);
            let u = square.mul_add(V::splat(0.044_715), one).mul(near).mul(V::splat(1.595_769));
            let du = square.mul_add(V::splat(0.134_145), one).mul(V::splat(1.595_769));
            let share = math::sigmoid(u);
            (x.mul(share), near.mul(du).mul(share).mul_add(one.sub(share), share))
        }
        Activation::QuickGelu => {
            let u = clamp(x.mul(V::splat(1.702)), 87.0);
            let share = math::sigmoid(u);
            (x.mul(share), u.mul(share).mul_add(one.sub(share), share))
        }
        Activation::Silu => {
            let share = math::sigmoid(x);
            (x.mul(share), clamp(x, 87.0).mul(share).mul_add(one.sub(share), share))
        }
        Activation::Tanh => {
            let y = math::tanh(x);
            (y, one.sub(y.mul(y)))
        }
    }
}

/// x within ±limit; NaN stays.
#[inline(always)]
fn clamp<V: Vector>(x: V, limit: f32) -> V {
    V::splat(limit).min(V::splat(-limit).max(x))
}

#[inline(always)]
fn activate<V: Vector>(activation: Activation, x: V) -> V {
    match activation {
        Activation::Relu => V::splat(0.0).max(x),
        Activation::Gelu => {
            let erf = math::erf(x.mul(V::splat(std::f32::consts::FRAC_1_SQRT_2)));
            x.mul(V::splat(0.5)).mul(V::splat(1.0).add(erf))
        }
        // ½(1 + tanh u) = σ(2u).
        Activation::GeluTanh => {
            let cubic = x.mul(x).mul_add(V::splat(0.044_715), V::splat(1.0)).mul(x);
            x.mul(math::sigmoid(cubic.mul(V::splat(1.595_769))))
        }
        Activation::QuickGelu => x.mul(math::sigmoid(x.mul(V::splat(1.702)))),
        Activation::Silu => x.mul(math::sigmoid(x)),
        Activation::Tanh => math::tanh(x),
    }
}

/// The formulas, literally, in f64.
#[cfg(test)]
fn reference(activation: Activation, x: f32) -> f32 {
    wide_reference(activation, f64::from(x)) as f32
}

#[cfg(test)]
fn wide_reference(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Gelu => x * 0.5 * (1.0 + reference_erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => x.tanh(),
    }
}

/// erf(x) = 2/√π Σ (−1)^n x^(2n+1) / (n! (2n+1)), enough for |x| <= 4, beyond which it is ±1 to 2e-8.
#[cfg(test)]
fn reference_erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..150 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{assert_close, noise};

    const ALL: [Activation; 6] = [
        Activation::Relu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Silu,
        Activation::Tanh,
    ];

    #[test]
    fn every_instruction_set_agrees_with_the_formulas_to_a_millionth() {
        let x: Vec<f32> = (-40_000..40_001).map(|i| i as f32 * 3e-4).chain([1e-20, -1e-20, 80.0]).collect();
        for activation in ALL {
            let expected: Vec<f32> = x.iter().map(|&x| reference(activation, x)).collect();
            for isa in Isa::available() {
                let mut got = x.clone();
                apply_block(isa, activation, &mut got);
                assert_close(&got, &expected, 1e-6);
            }
        }
    }

    #[test]
    fn the_values_of_the_papers_come_out() {
        let at = |activation, x: f32| {
            let mut x = [x];
            apply(activation, &mut x);
            x[0]
        };
        assert!((at(Activation::Gelu, 1.0) - 0.8413447).abs() < 1e-6);
        assert!((at(Activation::GeluTanh, -2.0) + 0.0454023).abs() < 1e-6);
        assert!((at(Activation::QuickGelu, 1.0) - 0.8457958).abs() < 1e-6);
        assert!((at(Activation::Silu, 1.0) - 0.7310586).abs() < 1e-6);
        assert_eq!(at(Activation::Relu, -1.0), 0.0);
        assert_eq!(at(Activation::Tanh, -30.0), -1.0);
    }

    #[test]
    fn great_numbers_stay_finite_and_nan_stays_nan() {
        for isa in Isa::available() {
            for activation in ALL {
                let mut x = [1e30, -1e30, f32::NAN, 0.0];
                apply_block(isa, activation, &mut x);
                assert!(
                    x[0] >= 1.0 && x[1].abs() <= 1.0 && x[2].is_nan() && x[3] == 0.0,
                    "{activation:?} {x:?}"
                );
            }
        }
    }

    #[test]
    fn an_element_does_not_depend_on_its_place() {
        let x = noise(1001, 4);
        for isa in Isa::available() {
            for activation in ALL {
                let mut all = x.clone();
                apply_block(isa, activation, &mut all);
                for i in [0, 7, 15, 16, 999, 1000] {
                    let mut one = [x[i]];
                    apply_block(isa, activation, &mut one);
                    assert_eq!(one[0].to_bits(), all[i].to_bits());
                }
            }
        }
    }

    #[test]
    fn the_gate_multiplies_what_is_beside_it() {
        for (n_rows, ffn_size) in [(3, 5), (40, 1536), (1, 17)] {
            let gate_up = noise(n_rows * 2 * ffn_size, 6);
            let mut out = vec![0.0; n_rows * ffn_size];
            gated(Activation::Silu, &gate_up, ffn_size, &mut out);
            for (row, out) in gate_up.chunks(2 * ffn_size).zip(out.chunks(ffn_size)) {
                let expected: Vec<f32> =
                    (0..ffn_size).map(|i| reference(Activation::Silu, row[i]) * row[ffn_size + i]).collect();
                assert_close(out, &expected, 1e-6);
            }
        }
    }

    #[test]
    fn slopes_are_central_differences_and_values_those_of_apply() {
        // None of them at 0, where Relu has no slope.
        let x: Vec<f32> = (-4000..4000).map(|i| (i as f32 + 0.5) * 3e-3).chain([80.0, -80.0]).collect();
        for activation in ALL {
            let slope = |&x: &f32| {
                let f = |x: f64| wide_reference(activation, x);
                // The series of erf ends at 4 with a step of 2e-8, which no difference may straddle.
                ((f(f64::from(x) + 1e-4) - f(f64::from(x) - 1e-4)) / 2e-4) as f32
            };
            let x: Vec<f32> =
                x.iter().copied().filter(|x| (x.abs() - 4.0 * 2f32.sqrt()).abs() > 1e-3).collect();
            let expected: Vec<f32> = x.iter().map(slope).collect();
            for isa in Isa::available() {
                let mut got = vec![1.0; x.len()];
                backward_block(isa, activation, &x, &mut got);
                assert_close(&got, &expected, 3e-6);
            }
        }
    }

    #[test]
    fn slopes_of_great_numbers_are_finite_and_that_of_nan_is_no_number() {
        for isa in Isa::available() {
            for activation in ALL {
                let mut d = [1.0; 4];
                backward_block(isa, activation, &[1e30, -1e30, f32::MAX, f32::NAN], &mut d);
                assert!(
                    d[1].abs() < 1e-30 && d[0] == d[2] && (d[0] == 0.0 || d[0] == 1.0),
                    "{activation:?} {d:?}"
                );
                assert!(activation == Activation::Relu || d[3].is_nan());
            }
        }
    }

    #[test]
    fn the_gate_and_what_it_multiplies_share_the_gradient() {
        for (n_rows, ffn_size) in [(3, 5), (40, 1536), (1, 17)] {
            let (gate_up, d_out) = (noise(n_rows * 2 * ffn_size, 6), noise(n_rows * ffn_size, 7));
            let mut d_gate_up = vec![9.0; gate_up.len()];
            gated_backward(Activation::Silu, &gate_up, ffn_size, &d_out, &mut d_gate_up);
            for t in 0..n_rows {
                let (row, d_row) = (&gate_up[t * 2 * ffn_size..], &d_gate_up[t * 2 * ffn_size..]);
                let d_out = &d_out[t * ffn_size..][..ffn_size];
                let (mut d_gate, mut value) = (d_out.to_vec(), row[..ffn_size].to_vec());
                backward(Activation::Silu, &row[..ffn_size], &mut d_gate);
                apply(Activation::Silu, &mut value);
                let d_gate: Vec<f32> = (0..ffn_size).map(|i| d_gate[i] * row[ffn_size + i]).collect();
                let d_up: Vec<f32> = (0..ffn_size).map(|i| d_out[i] * value[i]).collect();
                assert_close(&d_row[..ffn_size], &d_gate, 1e-6);
                assert_close(&d_row[ffn_size..2 * ffn_size], &d_up, 1e-6);
            }
        }
    }
}
