//! Log-probabilities of the model's own distribution.

use crate::sequence::Pick;
use rhetor_kernels::log_sum_exp::log_sum_exp;
use std::cmp::Ordering;

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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(top(&[f32::NAN, 1.0, f32::NEG_INFINITY], 5), [(1, 1.0), (2, f32::NEG_INFINITY)]);
    }
}
