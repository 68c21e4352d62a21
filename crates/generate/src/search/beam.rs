//! Beam search: keeps the `width` best unfinished continuations at each length.
//!
//! As Hugging Face `generate(num_beams)` with `length_penalty` 1 and `early_stopping` false: of all continuations the
//! best `width · max(2, 1 + stop tokens)` are looked at; those among the first `width` that end are finished, with the
//! sum of their log-probabilities divided by their length; the best `width` that do not end go on; the search is over
//! when `width` are finished and the best that goes on, divided by its length, is no better than the worst of them.
//! Penalties and biases are applied to the log-probabilities and not normalised again, as there; nor are they after a
//! constraint has forbidden tokens.
//!
//! Source: Sequence to Sequence Learning with Neural Networks, arXiv:1409.3215, §3.2; transformers,
//! generation/utils.py, `_beam_search`.

use crate::logprob;
use crate::rng::Rng;
use crate::sampling::{Chance, Draft, Mask, Past, Sampler, Scratch};
use crate::sequence::{Ending, Pick};
use rhetor_kernels::log_sum_exp::log_sum_exp;
use rhetor_lm::{FinishReason, Sampling};
use std::sync::Arc;

/// The state of a search.
#[derive(Debug)]
pub(crate) struct Beam {
    width: usize,
    n: usize,
    sampling: Arc<Sampling>,
    ending: Ending,
    running: Vec<Hypothesis>,
    /// Best first, at most `width`.
    finished: Vec<(f64, FinishReason, Hypothesis)>,
}

/// A continuation and the sum of its log-probabilities after penalties.
#[derive(Debug, Clone, Default)]
struct Hypothesis {
    score: f64,
    picks: Vec<Pick>,
}

/// What to do after a step.
#[derive(Debug)]
pub(crate) enum Advance {
    /// Each next running beam is `tokens[i].1` after the beam `tokens[i].0` of before.
    Continue(Vec<(usize, u32)>),
    /// The search is over: the best continuations, best first.
    Done(Vec<(FinishReason, Vec<Pick>)>),
}

/// A continuation by one token.
struct Extension {
    score: f64,
    beam: usize,
    token: u32,
}

impl Beam {
    /// A search of `width` beams for the `n` best continuations.
    pub fn new(width: usize, n: usize, sampling: Arc<Sampling>, ending: Ending) -> Beam {
        Beam { width, n, sampling, ending, running: vec![Hypothesis::default()], finished: Vec::new() }
    }

    /// Takes the logits of every running beam, `rows: [beams][V]`, what came before each of them and which tokens may
    /// follow it; ids from `n_tokens` on are padding.
    pub fn advance(
        &mut self,
        rows: &[&[f32]],
        pasts: &[Past<'_>],
        masks: &[Option<Arc<Mask>>],
        (n_tokens, n_top): (usize, usize),
        scratch: &mut Scratch,
    ) -> Advance {
        assert_eq!(rows.len(), self.running.len(), "one row of logits for each beam");
        let length = self.running[0].picks.len() + 1;
        let n_kept = self.width * (1 + self.ending.stops.len()).max(2);
        let mut extensions = Vec::new();
        for (beam, (row, past)) in rows.iter().zip(pasts).enumerate() {
            let mask = masks[beam].as_deref();
            self.extend(beam, row, past, mask, (n_tokens, n_kept), scratch, &mut extensions);
        }
        extensions.sort_by(|a: &Extension, b| b.score.total_cmp(&a.score));
        extensions.truncate(n_kept);

        let mut next = Vec::new();
        let mut parents = Vec::new();
        for (rank, extension) in extensions.iter().enumerate() {
            let ends = self.ending.reached(extension.token, length);
            if ends.is_some() && rank >= self.width || ends.is_none() && next.len() == self.width {
                continue;
            }
            let mut hypothesis = self.running[extension.beam].clone();
            hypothesis.score = extension.score;
            let mut pick = logprob::pick(rows[extension.beam], extension.token, n_tokens, n_top);
            pick.is_constrained = masks[extension.beam].as_ref().is_some_and(|mask| !mask.allows_all());
            hypothesis.picks.push(pick);
            match ends {
                Some(reason) => self.finished.push((extension.score / length as f64, reason, hypothesis)),
                None => {
                    parents.push((extension.beam, extension.token));
                    next.push(hypothesis);
                }
            }
        }
        self.finished.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.finished.truncate(self.width);
        self.running = next;

        let can_improve = self.running.first().is_some_and(|best| {
            self.finished.len() < self.width || best.score / length as f64 > self.finished[self.width - 1].0
        });
        if can_improve {
            return Advance::Continue(parents);
        }
        let best = std::mem::take(&mut self.finished).into_iter().take(self.n);
        Advance::Done(best.map(|(_, reason, hypothesis)| (reason, hypothesis.picks)).collect())
    }

    /// Adds the best continuations of one beam to `extensions`, best first.
    fn extend(
        &self,
        beam: usize,
        row: &[f32],
        past: &Past<'_>,
        mask: Option<&Mask>,
        (n_tokens, n_kept): (usize, usize),
        scratch: &mut Scratch,
        extensions: &mut Vec<Extension>,
    ) {
        let normaliser = log_sum_exp(row);
        let logprobs: Vec<f32> = row[..n_tokens].iter().map(|logit| logit - normaliser).collect();
        let mut draft = Draft::new(&logprobs, scratch);
        if let Some(mask) = mask {
            draft.forbid_all_but(mask);
        }
        let mut chance = Chance { rng: Rng::new(0, 0), mirostat_mu: 0.0 };
        Sampler::edit(&self.sampling, &mut draft, past, &mut chance);
        for (token, logprob) in logprob::top(draft.logits(), n_kept) {
            if logprob > f32::NEG_INFINITY {
                let score = self.running[beam].score + f64::from(logprob);
                extensions.push(Extension { score, beam, token });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a model given as a function from the generated tokens to probabilities; token 0 ends.
    fn search(
        width: usize,
        max_tokens: usize,
        model: &dyn Fn(&[u32]) -> Vec<f32>,
    ) -> Vec<(Vec<u32>, f64, FinishReason)> {
        let ending = Ending { stops: Arc::from([0]), max_tokens };
        let mut beam = Beam::new(width, width, Arc::new(Sampling::default()), ending);
        let mut texts: Vec<Vec<u32>> = vec![Vec::new()];
        let mut scratch = Scratch::default();
        loop {
            let rows: Vec<Vec<f32>> =
                texts.iter().map(|t| model(t).iter().map(|p| p.ln()).collect()).collect();
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let pasts: Vec<Past<'_>> =
                texts.iter().map(|tokens| Past { tokens, n_prompt: 0, breakers: &[] }).collect();
            match beam.advance(&rows, &pasts, &vec![None; rows.len()], (rows[0].len(), 0), &mut scratch) {
                Advance::Continue(next) => {
                    texts = next.iter().map(|&(beam, token)| [&texts[beam][..], &[token]].concat()).collect();
                }
                Advance::Done(best) => {
                    let sum = |picks: &[Pick]| picks.iter().map(|pick| f64::from(pick.logprob)).sum::<f64>();
                    return best
                        .into_iter()
                        .map(|(reason, picks)| (picks.iter().map(|p| p.id).collect(), sum(&picks), reason))
                        .collect();
                }
            }
        }
    }

    /// A model whose probabilities look random but are a function of the text.
    fn hashed(text: &[u32]) -> Vec<f32> {
        let seed =
            text.iter().fold(17u32, |h, t| h.wrapping_mul(31).wrapping_add(t + 1).wrapping_mul(0x9E37_79B1));
        let weights: Vec<f32> = (0..4u32)
            .map(|i| 1.0 + (seed.rotate_left(i * 7).wrapping_mul(0x85EB_CA6B) >> 24) as f32)
            .collect();
        let sum: f32 = weights.iter().sum();
        weights.iter().map(|w| w / sum).collect()
    }

    #[test]
    fn two_beams_find_what_greedy_choice_misses() {
        // Greedy: 1 (0.6), then at best 0.34. Beam: 2 (0.4), then the end with 0.9.
        let model = |text: &[u32]| match text {
            [] => vec![0.001, 0.599, 0.4],
            [2] => vec![0.9, 0.05, 0.05],
            _ => vec![0.34, 0.33, 0.33],
        };
        let best = search(2, 2, &model);
        assert_eq!(best[0].0, [2, 0]);
        assert_eq!(best[0].2, FinishReason::Stop);
        assert!((best[0].1 - (0.4f64 * 0.9).ln()).abs() < 1e-5);
    }

    #[test]
    fn one_beam_is_greedy_choice() {
        let mut text = Vec::new();
        loop {
            let p = hashed(&text);
            let best = (0..4).max_by(|&a, &b| p[a].total_cmp(&p[b]).then(b.cmp(&a))).unwrap() as u32;
            text.push(best);
            if best == 0 || text.len() == 6 {
                break;
            }
        }
        // One beam goes on after the greedy end while it can improve on it; the continuation it followed is greedy.
        let found = &search(1, 6, &hashed)[0].0;
        assert!(text.starts_with(&found[..found.len() - 1]), "{found:?} {text:?}");
    }

    #[test]
    fn beams_as_wide_as_the_tree_find_the_best_of_all_continuations() {
        // All texts of up to 4 tokens over 4 symbols, token 0 ending them, by brute force.
        let mut all = Vec::new();
        let mut open: Vec<(Vec<u32>, f64)> = vec![(Vec::new(), 0.0)];
        for length in 1..=4 {
            let mut next = Vec::new();
            for (text, score) in &open {
                for (token, p) in hashed(text).iter().enumerate() {
                    let longer = [&text[..], &[token as u32]].concat();
                    let score = score + f64::from(p.ln());
                    if token == 0 || length == 4 {
                        all.push((score / f64::from(length), longer));
                    } else {
                        next.push((longer, score));
                    }
                }
            }
            open = next;
        }
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let found = search(200, 4, &hashed);
        assert_eq!(found[0].0, all[0].1);
        assert_eq!(found[1].0, all[1].1);
        assert_eq!(found[5].0, all[5].1);
    }

    #[test]
    fn the_length_limit_finishes_all_beams() {
        let never_ends = |_: &[u32]| vec![0.0, 0.5, 0.3, 0.2];
        let found = search(2, 3, &never_ends);
        assert_eq!(found.len(), 2);
        assert_eq!((&found[0].0[..], found[0].2), (&[1, 1, 1][..], FinishReason::Length));
    }
}
