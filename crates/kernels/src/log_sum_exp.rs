//! What turns logits into log-probabilities.

use crate::arch::vector::{Vector, per_isa};
use crate::isa;

/// ln Σ exp(x) over `x: [V]`, NaN left out; −∞ if nothing is left.
///
/// The order of the sums is fixed, so the result is the same to the bit on every instruction set. Runs on the caller's
/// thread: rows are shared out by those who have many.
pub fn log_sum_exp(x: &[f32]) -> f32 {
    let isa = isa::active();
    let max = greatest(isa, x);
    if !max.is_finite() {
        return max;
    }
    (f64::from(max) + sum_of_exp(isa, x, max).ln()) as f32
}

per_isa! { fn greatest(x: &[f32]) -> f32 = greatest_body }
per_isa! { fn sum_of_exp(x: &[f32], max: f32) -> f64 = sum_of_exp_body }

/// Running values, so that plain Rust becomes the instruction set's vectors without changing a result.
const LANES: usize = 32;

#[inline(always)]
fn greatest_body<V: Vector>(x: &[f32]) -> f32 {
    let mut greatest = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    let take = |greatest: &mut [f32; LANES], x: &[f32]| {
        for (greatest, &x) in greatest.iter_mut().zip(x) {
            // False for NaN.
            *greatest = if x > *greatest { x } else { *greatest };
        }
    };
    blocks.iter().for_each(|block| take(&mut greatest, block));
    take(&mut greatest, rest);
    greatest.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

#[inline(always)]
fn sum_of_exp_body<V: Vector>(x: &[f32], max: f32) -> f64 {
    let mut sums = [0f32; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += exp(x - max);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += exp(x - max);
    }
    sums.iter().map(|&sum| f64::from(sum)).sum()
}

/// exp(x) for x ≤ 0 to 2 units in the last place, in operations that the compiler vectorises; 0 below −87 and for NaN.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, so that x − n ln 2 is exact enough.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let is_zero = x < -87.0 || x.is_nan();
    let x = if x > -87.0 { x } else { -87.0 };
    // Adding 1.5 · 2^23 rounds to the nearest integer and leaves it in the low bits.
    let shifted = x * LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    // Cephes' polynomial for exp on [−ln 2 / 2, ln 2 / 2].
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    let value = p * r * r + r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if is_zero { 0.0 } else { value * power }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::noise;

    #[test]
    fn exp_is_within_three_parts_in_ten_million() {
        for i in 0..87_000 {
            let x = -(i as f32) / 1000.0;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 3e-7, "exp({x}) = {found}, expected {expected}");
        }
        assert_eq!((exp(0.0), exp(-1000.0), exp(f32::NEG_INFINITY), exp(f32::NAN)), (1.0, 0.0, 0.0, 0.0));
    }

    #[test]
    fn every_instruction_set_finds_the_formula_and_all_the_same_bits() {
        for n in [1, 31, 32, 33, 1000, 49_152] {
            let x: Vec<f32> = noise(n, 3).iter().map(|x| 20.0 * x).collect();
            let expected = x.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            assert!((f64::from(log_sum_exp(&x)) - expected).abs() < 2e-6 * expected.abs().max(1.0));
            let found = |isa| (greatest(isa, &x), sum_of_exp(isa, &x, greatest(isa, &x)));
            assert!(Isa::available().all(|isa| found(isa) == found(Isa::Scalar)));
        }
    }

    #[test]
    fn logits_that_are_no_numbers_are_left_out() {
        let found = log_sum_exp(&[f32::NAN, 0.0, f32::NEG_INFINITY, 0.0]);
        assert!((found - 2f32.ln()).abs() < 1e-6);
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY]), f32::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[]), f32::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[f32::INFINITY, 0.0]), f32::INFINITY);
    }
}
