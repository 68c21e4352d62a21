//! Softmax and its logarithm.

use crate::arch::math;
use crate::arch::vector::{Vector, at, per_isa, sums};
use crate::{isa, rows};

/// y = exp(x − max x) / Σ exp(x − max x), in place, for each row of `x: [T, D]`.
///
/// An element −∞ gives 0; a row of nothing but −∞ gives zeros. Panics if the length is no multiple of `row_len`.
#[track_caller]
pub fn softmax(x: &mut [f32], row_len: usize) {
    assert!(row_len > 0 && x.len().is_multiple_of(row_len), "x {}, row_len {row_len}", x.len());
    let isa = isa::active();
    rows::for_each_block(x, row_len, |_, x| softmax_rows(isa, x, row_len));
}

/// y = x − max x − ln Σ exp(x − max x), in place, for each row of `x: [T, D]`.
///
/// Panics if the length is no multiple of `row_len`.
#[track_caller]
pub fn log_softmax(x: &mut [f32], row_len: usize) {
    assert!(row_len > 0 && x.len().is_multiple_of(row_len), "x {}, row_len {row_len}", x.len());
    let isa = isa::active();
    rows::for_each_block(x, row_len, |_, x| log_softmax_rows(isa, x, row_len));
}

/// The gradient of [`softmax`] from its result `y`: `d` is dy on entry and dx = y (dy − Σ y dy) on return.
///
/// `y`, `d`: `[T, D]`. Panics if the lengths do not fit.
#[track_caller]
pub fn backward(y: &[f32], d: &mut [f32], row_len: usize) {
    assert!(
        y.len() == d.len() && row_len > 0 && d.len().is_multiple_of(row_len),
        "y {}, d {}",
        y.len(),
        d.len()
    );
    let isa = isa::active();
    rows::for_each_block(d, row_len, |first, d| {
        backward_rows(isa, &y[first * row_len..][..d.len()], d, row_len)
    });
}

/// The gradient of [`log_softmax`] from its result `y`: `d` is dy on entry and dx = dy − exp(y) Σ dy on
/// return.
///
/// `y`, `d`: `[T, D]`. Panics if the lengths do not fit.
#[track_caller]
pub fn log_backward(y: &[f32], d: &mut [f32], row_len: usize) {
    assert!(
        y.len() == d.len() && row_len > 0 && d.len().is_multiple_of(row_len),
        "y {}, d {}",
        y.len(),
        d.len()
    );
    let isa = isa::active();
    rows::for_each_block(d, row_len, |first, d| {
        log_backward_rows(isa, &y[first * row_len..][..d.len()], d, row_len)
    });
}

per_isa! { fn backward_rows(y: &[f32], d: &mut [f32], row_len: usize) = backward_body }
per_isa! { fn log_backward_rows(y: &[f32], d: &mut [f32], row_len: usize) = log_backward_body }

#[inline(always)]
fn backward_body<V: Vector>(y: &[f32], d: &mut [f32], row_len: usize) {
    for (y, d) in y.chunks_exact(row_len).zip(d.chunks_exact_mut(row_len)) {
        let [sum] = sums!(V, 1, row_len, |i| [at::<V>(y, i).mul(at(d, i))]);
        for (y, d) in y.chunks(V::LANES).zip(d.chunks_mut(V::LANES)) {
            V::load_slice(d, 0.0).sub(V::splat(sum)).mul(V::load_slice(y, 0.0)).store_slice(d);
        }
    }
}

#[inline(always)]
fn log_backward_body<V: Vector>(y: &[f32], d: &mut [f32], row_len: usize) {
    for (y, d) in y.chunks_exact(row_len).zip(d.chunks_exact_mut(row_len)) {
        let [sum] = sums!(V, 1, row_len, |i| [at::<V>(d, i)]);
        for (y, d) in y.chunks(V::LANES).zip(d.chunks_mut(V::LANES)) {
            let p = math::exp(V::load_slice(y, 0.0));
            p.mul_add(V::splat(-sum), V::load_slice(d, 0.0)).store_slice(d);
        }
    }
}

per_isa! { fn softmax_rows(x: &mut [f32], row_len: usize) = softmax_body }
per_isa! { fn log_softmax_rows(x: &mut [f32], row_len: usize) = log_softmax_body }

#[inline(always)]
fn softmax_body<V: Vector>(x: &mut [f32], row_len: usize) {
    for x in x.chunks_exact_mut(row_len) {
        let max = V::splat(max::<V>(x));
        let mut sum = V::splat(0.0);
        for x in x.chunks_mut(V::LANES) {
            let y = math::exp(V::load_slice(x, f32::NEG_INFINITY).sub(max));
            sum = sum.add(y);
            y.store_slice(x);
        }
        let sum = sum.reduce_add();
        let scale = V::splat(if sum == 0.0 { 0.0 } else { 1.0 / sum });
        for x in x.chunks_mut(V::LANES) {
            V::load_slice(x, 0.0).mul(scale).store_slice(x);
        }
    }
}

#[inline(always)]
fn log_softmax_body<V: Vector>(x: &mut [f32], row_len: usize) {
    for x in x.chunks_exact_mut(row_len) {
        let max = V::splat(max::<V>(x));
        let mut sum = V::splat(0.0);
        for x in x.chunks(V::LANES) {
            sum = sum.add(math::exp(V::load_slice(x, f32::NEG_INFINITY).sub(max)));
        }
        let log_sum = V::splat(sum.reduce_add().ln());
        for x in x.chunks_mut(V::LANES) {
            V::load_slice(x, 0.0).sub(max).sub(log_sum).store_slice(x);
        }
    }
}

/// The greatest element, and no less than the least finite number, so that −∞ less it is −∞ and not NaN.
#[inline(always)]
pub(crate) fn max<V: Vector>(x: &[f32]) -> f32 {
    let mut max = V::splat(f32::MIN);
    for x in x.chunks(V::LANES) {
        max = V::load_slice(x, f32::NEG_INFINITY).max(max);
    }
    max.reduce_max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{assert_close, dot, gradient, noise, wide};

    /// The formulas, literally, in f64: softmax and its logarithm.
    fn reference(x: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let max = x.iter().copied().fold(f32::MIN, f32::max);
        let e: Vec<f64> = x.iter().map(|&x| (f64::from(x) - f64::from(max)).exp()).collect();
        let sum: f64 = e.iter().sum();
        let log = |&x: &f32| (f64::from(x) - f64::from(max) - sum.ln()) as f32;
        (e.iter().map(|e| (e / sum) as f32).collect(), x.iter().map(log).collect())
    }

    #[test]
    fn every_instruction_set_agrees_with_the_formula_to_a_millionth() {
        for d in [1, 2, 7, 8, 15, 16, 17, 1000, 49152] {
            let mut x: Vec<f32> = noise(2 * d + 1, d as u64).iter().map(|x| 10.0 * x).collect();
            if d > 8 {
                x[5] = f32::NEG_INFINITY;
            }
            let x = &x[1..];
            for isa in Isa::available() {
                let (mut plain, mut log) = (x.to_vec(), x.to_vec());
                softmax_rows(isa, &mut plain, d);
                log_softmax_rows(isa, &mut log, d);
                for i in 0..2 {
                    let (expected, expected_log) = reference(&x[i * d..][..d]);
                    assert_close(&plain[i * d..][..d], &expected, 1e-6);
                    assert_close(&log[i * d..][..d], &expected_log, 1e-6);
                }
            }
        }
    }

    #[test]
    fn hidden_rows_give_zeros_and_great_numbers_do_not_overflow() {
        let mut x = [f32::NEG_INFINITY; 5];
        softmax(&mut x, 5);
        assert_eq!(x, [0.0; 5]);
        let mut x = [3e38, 3e38, -3e38];
        softmax(&mut x, 3);
        assert_eq!(x, [0.5, 0.5, 0.0]);
        let mut x = [f32::NAN, 1.0];
        softmax(&mut x, 2);
        assert!(x.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn gradients_are_the_central_differences() {
        for d in [1, 2, 7, 8, 15, 16, 17, 100] {
            let (x, dy) = (noise(d, 7), noise(d, 8));
            let wide_dy = wide(&dy);
            let normalised = |x: &[f64]| {
                let sum: f64 = x.iter().map(|x| x.exp()).sum();
                x.iter().map(|x| x.exp() / sum).collect::<Vec<f64>>()
            };
            let expected = gradient(&x, |x| dot(&normalised(x), &wide_dy));
            let expected_log =
                gradient(&x, |x| dot(&normalised(x).iter().map(|p| p.ln()).collect::<Vec<_>>(), &wide_dy));
            let (mut y, mut log_y) = (x.clone(), x.clone());
            softmax(&mut y, d);
            log_softmax(&mut log_y, d);
            for isa in Isa::available() {
                let (mut got, mut got_log) = (dy.clone(), dy.clone());
                backward_rows(isa, &y, &mut got, d);
                log_backward_rows(isa, &log_y, &mut got_log, d);
                assert_close(&got, &expected, 1e-6);
                assert_close(&got_log, &expected_log, 5e-6);
            }
        }
    }
}
