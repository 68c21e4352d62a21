//! Whole tensors to one number: the sum of squares, and where a value is no number.

use crate::arch::vector::{Vector, per_isa};
use crate::rows::Start;
use crate::{isa, threads};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Elements of one part: the partition, and so the order of the sums, depends on nothing else.
const PART_LEN: usize = 64 * 1024;

/// Σ x², the square of the L2 norm.
///
/// Squares of f32 are exact in f64, in which they are summed; the order of the sums is fixed, so the result
/// is the same to the bit on every instruction set and any number of threads.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    let isa = isa::active();
    let mut sums = vec![0f64; x.len().div_ceil(PART_LEN)];
    let start = Start(sums.as_mut_ptr());
    threads::run(sums.len(), |part| {
        let sum = squares_block(isa, &x[part * PART_LEN..x.len().min((part + 1) * PART_LEN)]);
        // SAFETY: each part writes its own sum, and `sums` outlives the call.
        unsafe { *start.at(part) = sum };
    });
    sums.iter().sum()
}

/// The index of the first element that is NaN or infinite.
pub fn first_not_finite(x: &[f32]) -> Option<usize> {
    let isa = isa::active();
    let first = AtomicUsize::new(usize::MAX);
    threads::run(x.len().div_ceil(PART_LEN), |part| {
        let begin = part * PART_LEN;
        if begin > first.load(Ordering::Relaxed) {
            return;
        }
        for (i, block) in x[begin..x.len().min(begin + PART_LEN)].chunks(BLOCK).enumerate() {
            if holds_not_finite(isa, block)
                && let Some(at) = block.iter().position(|x| !x.is_finite())
            {
                first.fetch_min(begin + i * BLOCK + at, Ordering::Relaxed);
                return;
            }
        }
    });
    Some(first.into_inner()).filter(|&i| i != usize::MAX)
}

/// Elements that are looked at together before the first of them is searched.
const BLOCK: usize = 4096;

per_isa! { fn squares_block(x: &[f32]) -> f64 = squares_body }
per_isa! { fn holds_not_finite(x: &[f32]) -> bool = holds_not_finite_body }

/// Plain Rust on 32 lanes, which the compiler turns into the instruction set's vectors without changing a
/// sum.
#[inline(always)]
fn squares_body<V: Vector>(x: &[f32]) -> f64 {
    let mut sums = [0f64; 32];
    let (blocks, rest) = x.as_chunks::<32>();
    for block in blocks {
        for (sum, &x) in sums.iter_mut().zip(block) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum += f64::from(x) * f64::from(x);
    }
    sums.iter().sum()
}

#[inline(always)]
fn holds_not_finite_body<V: Vector>(x: &[f32]) -> bool {
    // A magnitude of infinity or above is the exponent of nothing finite.
    x.iter().fold(0, |found, x| found | u32::from(x.to_bits() & 0x7fff_ffff >= 0x7f80_0000)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::noise;

    #[test]
    fn squares_are_summed_in_f64_alike_everywhere() {
        for n in [0, 1, 31, 32, 33, 1000, 200_001] {
            let x: Vec<f32> = noise(n, 1).iter().map(|x| x * 1e25).collect();
            let expected: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            let got = sum_of_squares(&x);
            assert!((got - expected).abs() <= 1e-13 * expected, "{got} {expected}");
            for n_threads in [1, 2, 3] {
                threads::set_threads(n_threads);
                assert_eq!(sum_of_squares(&x), got);
            }
            let block = &x[..n.min(PART_LEN)];
            for isa in Isa::available() {
                assert_eq!(squares_block(isa, block), squares_block(Isa::Scalar, block));
            }
        }
    }

    #[test]
    fn the_first_of_several_that_are_no_numbers_is_found() {
        let n = 300_001;
        let mut x = vec![f32::MAX; n];
        assert_eq!(first_not_finite(&x), None);
        assert_eq!(first_not_finite(&[]), None);
        for (i, value) in
            [(n - 1, f32::NAN), (150_000, f32::NEG_INFINITY), (70_001, -f32::NAN), (0, f32::INFINITY)]
        {
            x[i] = value;
            assert_eq!(first_not_finite(&x), Some(i));
            for isa in Isa::available() {
                assert!(holds_not_finite(isa, &x[i..=i]) && !holds_not_finite(isa, &[f32::MAX, -0.0, 1e-45]));
            }
        }
    }
}
