//! Log-probabilities of the model's own distribution.

use crate::sequence::Pick;
use std::cmp::Ordering;

/// ln Σ exp(logits) over `logits: [V]`, NaN left out; −∞ if nothing is left.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !max.is_finite() {
        return max;
    }
    // Eight running sums, so that the loop is vectorised; their order is fixed.
    let mut sums = [0.0f32; 8];
    let (chunks, rest) = logits.as_chunks::<8>();
    for chunk in chunks {
        for (sum, logit) in sums.iter_mut().zip(chunk) {
            *sum += exp(logit - max);
        }
    }
    for (sum, logit) in sums.iter_mut().zip(rest) {
        *sum += exp(logit - max);
    }
    let total: f64 = sums.iter().map(|&sum| f64::from(sum)).sum();
    (f64::from(max) + total.ln()) as f32
}

/// The token `id` with its log-probability and `n_top` alternatives; `logits: [V]` with the model's padded rows, of
/// which alternatives are taken from the first `n_tokens`.
pub(crate) fn pick(logits: &[f32], id: u32, n_tokens: usize, n_top: usize) -> Pick {
    let normaliser = log_sum_exp(logits);
    let own = logits[id as usize];
    let vocabulary = &logits[..n_tokens];
    Pick {
        id,
        logprob: own - normaliser,
        is_greedy: vocabulary.iter().all(|&other| other <= own || other.is_nan()),
        is_constrained: false,
        top: top(vocabulary, n_top).into_iter().map(|(id, logit)| (id, logit - normaliser)).collect(),
    }
}

/// The `n` greatest of `values: [V]` with their positions, greatest first, of equals the lower position; NaN left out.
pub(crate) fn top(values: &[f32], n: usize) -> Vec<(u32, f32)> {
    if n == 0 {
        return Vec::new();
    }
    let order = |a: &(u32, f32), b: &(u32, f32)| -> Ordering { b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)) };
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(n.min(values.len()) * 2);
    let mut least = f32::NEG_INFINITY;
    for (id, &value) in values.iter().enumerate() {
        if value > least || (best.len() < n && !value.is_nan()) {
            best.push((id as u32, value));
            if best.len() >= (2 * n).max(64) {
                best.select_nth_unstable_by(n - 1, order);
                best.truncate(n);
                least = best[n - 1].1;
            }
        }
    }
    best.sort_unstable_by(order);
    best.truncate(n);
    best
}

/// exp(x) for x ≤ 0 to 2 units in the last place, in operations that the compiler vectorises; 0 below −87 and for NaN.
fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, so that x − n ln 2 is exact enough.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let is_zero = x < -87.0 || x.is_nan();
    let x = x.max(-87.0);
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
    fn log_probabilities_sum_to_one_and_alternatives_come_in_order() {
        let logits = [1.0, 3.0, 2.0, 3.0, 0.0, -50.0, 0.5, 0.25, 0.125, 9.0];
        let picks: Vec<Pick> = (0..10).map(|id| pick(&logits, id, 9, 3)).collect();
        let sum: f64 = picks.iter().map(|pick| f64::from(pick.logprob).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        let ids: Vec<u32> = picks[0].top.iter().map(|top| top.0).collect();
        assert_eq!(ids, [1, 3, 2], "token 9 is a padded row");
        assert!(picks[1].is_greedy && picks[3].is_greedy && !picks[2].is_greedy);
        assert_eq!(picks[0].top[0].1, picks[1].logprob);
    }

    #[test]
    fn logits_that_are_no_numbers_do_not_spread() {
        let lse = log_sum_exp(&[f32::NAN, 0.0, f32::NEG_INFINITY, 0.0]);
        assert!((lse - 2f32.ln()).abs() < 1e-6);
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY]), f32::NEG_INFINITY);
        assert_eq!(top(&[f32::NAN, 1.0, f32::NEG_INFINITY], 5), [(1, 1.0), (2, f32::NEG_INFINITY)]);
    }
}
