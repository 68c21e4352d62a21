//! DRY ("don't repeat yourself"): makes the token that would continue a repeated sequence less likely.

use super::{Chance, Draft, Past, Stage, Step};
use rhetor_catalog::{About, Opt, Source};
use rhetor_lm::Sampling;
use std::collections::BTreeMap;

/// The step `dry`.
#[derive(Debug)]
pub struct Dry;

/// Longer repeats are penalised like one of this length.
const REPEAT_MAX: usize = 50;

const ABOUT: About = About {
    name: "dry",
    summary: "Penalises the token that would prolong a repeat, growing exponentially with its length; line breaks, \
              colons, quotes and asterisks end a repeat",
    source: Source::Project("text-generation-webui, pull request 5677; llama.cpp, common/sampling"),
    options: &[
        Opt { name: "dry-multiplier", summary: "strength; 0 = off", default: 0.0, range: (0.0, 100.0) },
        Opt {
            name: "dry-base",
            summary: "growth with each token of the repeat",
            default: 1.75,
            range: (1.0, 8.0),
        },
        Opt {
            name: "dry-allowed-length",
            summary: "repeats shorter than this many tokens are free",
            default: 2.0,
            range: (1.0, REPEAT_MAX as f64),
        },
    ],
};

impl Step for Dry {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn stage(&self) -> Stage {
        Stage::Edit
    }

    fn values(&self, sampling: &Sampling) -> Vec<f64> {
        vec![
            f64::from(sampling.dry_multiplier),
            f64::from(sampling.dry_base),
            sampling.dry_allowed_length as f64,
        ]
    }

    fn is_on(&self, sampling: &Sampling) -> bool {
        sampling.dry_multiplier != 0.0
    }

    fn apply(&self, draft: &mut Draft<'_>, sampling: &Sampling, past: &Past<'_>, _chance: &mut Chance) {
        let repeats = repeats(past);
        let logits = draft.edit();
        for (token, length) in repeats {
            if length < sampling.dry_allowed_length {
                continue;
            }
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            let exponent = (length - sampling.dry_allowed_length) as i32;
            let penalty = f64::from(sampling.dry_multiplier) * f64::from(sampling.dry_base).powi(exponent);
            *logit = (f64::from(*logit) - penalty).max(f64::from(f32::MIN)) as f32;
        }
    }
}

/// For each token that once followed the text's last tokens: how many last tokens stood before it, at most
/// [`REPEAT_MAX`].
fn repeats(past: &Past<'_>) -> BTreeMap<u32, usize> {
    let tokens = past.tokens;
    let breaks = |token: u32| past.breakers.get(token as usize).copied().unwrap_or(false);
    let mut longest = BTreeMap::new();
    let Some((&last, before)) = tokens.split_last() else { return longest };
    if breaks(last) {
        return longest;
    }
    for (i, _) in before.iter().enumerate().filter(|(_, token)| **token == last) {
        let next = tokens[i + 1];
        if breaks(next) {
            continue;
        }
        let length = (0..=i.min(REPEAT_MAX - 1))
            .take_while(|back| {
                tokens[i - back] == tokens[tokens.len() - 1 - back] && !breaks(tokens[i - back])
            })
            .count();
        let entry = longest.entry(next).or_insert(0);
        *entry = length.max(*entry);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::super::sampler::tests::edited;
    use super::*;

    #[test]
    fn the_token_that_would_prolong_a_repeat_is_penalised_by_its_length() {
        let sampling = Sampling { dry_multiplier: 1.0, dry_base: 2.0, ..Sampling::default() };
        // 1 2 3 4 … 1 2 3: token 4 would make a repeat of three tokens go on: 1 · 2^(3 − 2).
        let tokens = [1, 2, 3, 4, 0, 1, 2, 3];
        let past = Past { tokens: &tokens, n_prompt: 0, breakers: &[] };
        assert_eq!(edited(&sampling, &[0.0; 6], &past), [0.0, 0.0, 0.0, 0.0, -2.0, 0.0]);
        // A repeat of one token is shorter than the allowed length of two.
        let past = Past { tokens: &[3, 4, 0, 3], n_prompt: 0, breakers: &[] };
        assert_eq!(edited(&sampling, &[0.0; 6], &past), [0.0; 6]);
    }

    #[test]
    fn a_breaker_ends_a_repeat() {
        let sampling = Sampling { dry_multiplier: 1.0, dry_base: 2.0, ..Sampling::default() };
        let tokens = [1, 2, 3, 4, 0, 1, 2, 3];
        let breaking = |token: usize| (0..6).map(|id| id == token).collect::<Vec<bool>>();
        for (breaker, penalty) in [(1, -1.0), (2, 0.0), (3, 0.0), (4, 0.0), (5, -2.0)] {
            let past = Past { tokens: &tokens, n_prompt: 0, breakers: &breaking(breaker) };
            assert_eq!(edited(&sampling, &[0.0; 6], &past)[4], penalty, "breaker {breaker}");
        }
    }

    #[test]
    fn a_very_long_repeat_stays_finite() {
        let sampling = Sampling { dry_multiplier: 100.0, dry_base: 8.0, ..Sampling::default() };
        let tokens = vec![1; 200];
        let past = Past { tokens: &tokens, n_prompt: 0, breakers: &[] };
        assert!(edited(&sampling, &[0.0; 6], &past)[1].is_finite());
    }
}
