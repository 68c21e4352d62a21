//! Walks the table for one token.

use super::draft::weight;
use super::{Draft, Mask, SAMPLING, Scratch, Stage};
use crate::rng::Rng;
use rhetor_lm::{Error, Sampling};
use std::sync::Arc;

/// What came before the token to be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Past<'a> {
    /// Prompt and generated tokens.
    pub tokens: &'a [u32],
    /// How many of them are the prompt.
    pub n_prompt: usize,
    /// By token id: whether the token ends the repeats that DRY looks for. Empty = none does.
    pub breakers: &'a [bool],
}

impl<'a> Past<'a> {
    /// The generated tokens.
    pub fn generated(&self) -> &'a [u32] {
        &self.tokens[self.n_prompt..]
    }

    /// The last `n` tokens, prompt included; 0 = all.
    pub fn last(&self, n: usize) -> &'a [u32] {
        match n {
            0 => self.tokens,
            n => &self.tokens[self.tokens.len().saturating_sub(n)..],
        }
    }
}

/// What changes from token to token besides the text: the random stream and what Mirostat has learnt.
#[derive(Debug, Clone)]
pub struct Chance {
    /// Random numbers.
    pub rng: Rng,
    /// Mirostat's bound on the surprise of a candidate, in bits.
    pub mirostat_mu: f64,
}

/// Refuses options that are out of range, contradict each other or name tokens beyond the `n_tokens` of the vocabulary.
pub fn validate(sampling: &Sampling, n_tokens: usize) -> Result<(), Error> {
    for step in SAMPLING {
        step.check(sampling, n_tokens)?;
    }
    if sampling.temperature == 0.0 {
        // Truncating steps always keep the most likely token, so greedy choice honours them; these two may not.
        let left_out = [
            ("xtc-probability", f64::from(sampling.xtc_probability)),
            ("mirostat-tau", f64::from(sampling.mirostat_tau)),
        ];
        for (option, value) in left_out {
            if value != 0.0 {
                let reason =
                    format!("{value} needs a temperature above 0, which is greedy and draws nothing");
                return Err(Error::InvalidOption { option, reason });
            }
        }
    }
    Ok(())
}

/// Chooses the tokens of one completion.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Arc<Sampling>,
    pub(super) chance: Chance,
}

impl Sampler {
    /// A sampler for completion `index` of a request with `seed`; `sampling` has passed [`validate`].
    pub fn new(sampling: Arc<Sampling>, seed: u64, index: usize) -> Sampler {
        let mirostat_mu = 2.0 * f64::from(sampling.mirostat_tau);
        Sampler { sampling, chance: Chance { rng: Rng::new(seed, index), mirostat_mu } }
    }

    /// Applies the editing steps alone: what beam search wants.
    pub(crate) fn edit(sampling: &Sampling, draft: &mut Draft<'_>, past: &Past<'_>, chance: &mut Chance) {
        for step in SAMPLING.iter().filter(|step| step.stage() == Stage::Edit && step.is_on(sampling)) {
            step.apply(draft, sampling, past, chance);
        }
    }

    /// Chooses the next token from `logits: [V]`; `None` if no candidate has a finite logit.
    pub fn next(&mut self, logits: &[f32], past: &Past<'_>, scratch: &mut Scratch) -> Option<u32> {
        self.next_of(logits, None, past, scratch)
    }

    /// Chooses the next token among those that `mask` allows, as if the model gave all others no probability.
    pub fn next_of(
        &mut self,
        logits: &[f32],
        mask: Option<&Mask>,
        past: &Past<'_>,
        scratch: &mut Scratch,
    ) -> Option<u32> {
        let Sampler { sampling, chance } = self;
        let mut draft = Draft::new(logits, scratch);
        if let Some(mask) = mask {
            draft.forbid_all_but(mask);
        }
        Sampler::edit(sampling, &mut draft, past, chance);
        if sampling.temperature == 0.0 {
            return draft.best();
        }
        for step in SAMPLING.iter().filter(|step| step.stage() == Stage::Shape && step.is_on(sampling)) {
            step.apply(&mut draft, sampling, past, chance);
        }
        let (id, probability) = draw(&mut draft, &mut chance.rng)?;
        for step in SAMPLING.iter().filter(|step| step.is_on(sampling)) {
            step.observe(probability, sampling, chance);
        }
        Some(id)
    }
}

/// Draws one candidate by its weight; returns it and its probability among the candidates.
fn draw(draft: &mut Draft<'_>, rng: &mut Rng) -> Option<(u32, f64)> {
    let (max, sum) = draft.partition();
    // One number per token, drawn even when a single candidate is left: the stream does not depend on the model.
    let mut rest = rng.uniform() * sum;
    let candidates = draft.candidates();
    for candidate in candidates.iter() {
        let weight = weight(candidate.logit, max);
        rest -= weight;
        if rest < 0.0 {
            return Some((candidate.id, weight / sum));
        }
    }
    // Rounding may leave a crumb beyond the last candidate; infinite logits leave no sum at all.
    let last = candidates.iter().rev().find(|c| weight(c.logit, max) > 0.0)?;
    Some((last.id, weight(last.logit, max) / sum))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Logits of a distribution: token `i` has probability `probabilities[i]`.
    pub(in crate::sampling) fn logits(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    /// The candidates left after all shaping steps, sorted by id.
    pub(in crate::sampling) fn survivors(sampling: &Sampling, probabilities: &[f32]) -> Vec<u32> {
        validate(sampling, probabilities.len()).unwrap();
        let (logits, mut scratch) = (logits(probabilities), Scratch::default());
        let mut draft = Draft::new(&logits, &mut scratch);
        let past = Past { tokens: &[], n_prompt: 0, breakers: &[] };
        let mut chance = Sampler::new(Arc::new(sampling.clone()), 0, 0).chance;
        for step in SAMPLING.iter().filter(|step| step.stage() == Stage::Shape && step.is_on(sampling)) {
            step.apply(&mut draft, sampling, &past, &mut chance);
        }
        let mut ids: Vec<u32> = draft.candidates().iter().map(|c| c.id).collect();
        ids.sort_unstable();
        ids
    }

    /// The logits after all editing steps.
    pub(in crate::sampling) fn edited(sampling: &Sampling, raw: &[f32], past: &Past<'_>) -> Vec<f32> {
        validate(sampling, raw.len()).unwrap();
        let mut scratch = Scratch::default();
        let mut draft = Draft::new(raw, &mut scratch);
        let mut chance = Sampler::new(Arc::new(sampling.clone()), 0, 0).chance;
        Sampler::edit(sampling, &mut draft, past, &mut chance);
        draft.logits().to_vec()
    }

    fn frequencies(sampling: Sampling, probabilities: &[f32], n: usize) -> Vec<f64> {
        let (logits, mut scratch) = (logits(probabilities), Scratch::default());
        let mut sampler = Sampler::new(Arc::new(sampling), 42, 0);
        let past = Past { tokens: &[], n_prompt: 0, breakers: &[] };
        let mut counts = vec![0.0; probabilities.len()];
        for _ in 0..n {
            counts[sampler.next(&logits, &past, &mut scratch).unwrap() as usize] += 1.0 / n as f64;
        }
        counts
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            // Six standard deviations of 20,000 draws at p = 1/2.
            assert!((f - e).abs() < 0.0213, "token {i}: drawn {f}, expected {e}");
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let p = [0.5, 0.3, 0.15, 0.05];
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        assert_close(&frequencies(sampling, &p, 20_000), &[0.5, 0.3, 0.15, 0.05]);
    }

    #[test]
    fn temperature_one_half_squares_the_probabilities() {
        let p = [0.5f32, 0.3, 0.15, 0.05];
        let sampling = Sampling { temperature: 0.5, ..Sampling::default() };
        let sum: f64 = p.iter().map(|p| f64::from(p * p)).sum();
        let expected: Vec<f64> = p.iter().map(|p| f64::from(p * p) / sum).collect();
        assert_close(&frequencies(sampling, &p, 20_000), &expected);
    }

    #[test]
    fn top_p_draws_only_from_the_nucleus_and_in_its_proportions() {
        let p = [0.05, 0.5, 0.15, 0.3];
        let sampling = Sampling { temperature: 1.0, top_p: 0.75, ..Sampling::default() };
        assert_close(&frequencies(sampling, &p, 20_000), &[0.0, 0.625, 0.0, 0.375]);
    }

    #[test]
    fn a_bias_of_minus_infinity_forbids_a_token_and_forbidding_all_leaves_none() {
        let sampling = Sampling { logit_bias: vec![(0, f32::NEG_INFINITY)], ..Sampling::default() };
        let past = Past { tokens: &[], n_prompt: 0, breakers: &[] };
        let mut scratch = Scratch::default();
        let mut sampler = Sampler::new(Arc::new(sampling.clone()), 0, 0);
        assert_eq!(sampler.next(&[9.0, 1.0], &past, &mut scratch), Some(1));
        assert_eq!(sampler.next(&[9.0], &past, &mut scratch), None);
        let drawing = Sampling { temperature: 1.0, ..sampling };
        let mut sampler = Sampler::new(Arc::new(drawing), 0, 0);
        assert_eq!(sampler.next(&[9.0, 1.0], &past, &mut scratch), Some(1));
        assert_eq!(sampler.next(&[9.0], &past, &mut scratch), None);
    }

    #[test]
    fn every_value_outside_its_range_is_refused_by_name() {
        let refused = |sampling: Sampling| match validate(&sampling, 10) {
            Err(Error::InvalidOption { option, reason }) => (option, reason),
            other => panic!("{sampling:?} gives {other:?}"),
        };
        let s = || Sampling { temperature: 1.0, ..Sampling::default() };
        let cases = [
            ("temperature", Sampling { temperature: -0.1, ..s() }),
            ("temperature", Sampling { temperature: f32::NAN, ..s() }),
            ("top-p", Sampling { top_p: 1.5, ..s() }),
            ("min-p", Sampling { min_p: -1.0, ..s() }),
            ("typical-p", Sampling { typical_p: 2.0, ..s() }),
            ("repetition-penalty", Sampling { repetition_penalty: 0.0, ..s() }),
            ("frequency-penalty", Sampling { frequency_penalty: 3.0, ..s() }),
            ("presence-penalty", Sampling { presence_penalty: -3.0, ..s() }),
            ("dry-multiplier", Sampling { dry_multiplier: -1.0, ..s() }),
            ("dry-base", Sampling { dry_base: 0.5, ..s() }),
            ("dry-allowed-length", Sampling { dry_allowed_length: 0, ..s() }),
            ("xtc-probability", Sampling { xtc_probability: 1.1, ..s() }),
            ("xtc-threshold", Sampling { xtc_threshold: 0.6, ..s() }),
            ("mirostat-tau", Sampling { mirostat_tau: -1.0, ..s() }),
            ("mirostat-eta", Sampling { mirostat_eta: 2.0, ..s() }),
            ("logit-bias", Sampling { logit_bias: vec![(10, 1.0)], ..s() }),
            ("logit-bias", Sampling { logit_bias: vec![(1, f32::INFINITY)], ..s() }),
            ("xtc-probability", Sampling { temperature: 0.0, xtc_probability: 0.5, ..s() }),
            ("mirostat-tau", Sampling { temperature: 0.0, mirostat_tau: 5.0, ..s() }),
        ];
        for (option, sampling) in cases {
            assert_eq!(refused(sampling).0, option);
        }
        assert!(refused(Sampling { top_p: 1.5, ..s() }).1.contains("1.5 is outside 0 to 1"));
    }

    #[test]
    fn every_step_is_named_once_has_a_source_and_neutral_defaults() {
        let mut names: Vec<&str> = SAMPLING.iter().map(|step| step.about().name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SAMPLING.len());
        for step in SAMPLING {
            let about = step.about();
            assert!(!step.is_on(&Sampling::default()), "{}", about.name);
            let values = step.values(&Sampling::default());
            assert_eq!(values.len(), about.options.len(), "{}", about.name);
            for (option, value) in about.options.iter().zip(values) {
                assert!((option.default - value).abs() < 1e-6, "{}", option.name);
                assert!(option.check(value).is_ok());
            }
        }
    }
}
