//! Softmax and its logarithm.

use crate::arch::math;
use crate::arch::vector::{Vector, per_isa};
use crate::{isa, rows};

/// y = exp(x − max x) / Σ exp(x − max x), in place, for each row of `x: [T, D]`.
///
/// An element −∞ gives 0; a row of nothing but −∞ gives zeros. Panics if the length is no multiple of `row_len`.
#[track_caller]
pub fn softmax(x: &mut [f32], row_len: usize) {
    assert!(row_len > 0 && x.len() % row_len == 0, "x {}, row_len {row_len}", x.len());
    let isa = isa::active();
    rows::for_each_block(x, row_len, |_, x| softmax_rows(isa, x, row_len));
}

/// y = x − max x − ln Σ exp(x − max x), in place, for each row of `x: [T, D]`.
///
/// Panics if the length is no multiple of `row_len`.
#[track_caller]
pub fn log_softmax(x: &mut [f32], row_len: usize) {
    assert!(row_len > 0 && x.len() % row_len == 0, "x {}, row_len {row_len}", x.len());
    let isa = isa::active();
    rows::for_each_block(x, row_len, |_, x| log_softmax_rows(isa, x, row_len));
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
fn max<V: Vector>(x: &[f32]) -> f32 {
    let mut max = V::splat(f32::MIN);
    for x in x.chunks(V::LANES) {
        max = V::load_slice(x, f32::NEG_INFINITY).max(max);
    }
    max.reduce_max()
}
