//! Span corruption: runs of tokens are taken out, each leaves a sentinel, and the model writes what is
//! missing.
//!
//! Source: T5, arXiv:1910.10683, §3.1.4 and text-to-text-transfer-transformer, data/preprocessors.py
//! (random_spans_noise_mask, noise_span_to_unique_sentinel, random_spans_helper).

use crate::random::shuffle;
use crate::{Error, Example, Sequence};
use rhetor_generate::Rng;
use rhetor_tokenizer::Tokenizer;

/// How much is taken out, and in what runs.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanCorruption {
    /// The share of the tokens taken out; T5's 0.15.
    pub density: f64,
    /// The mean length of a run in tokens; T5's 3.
    pub span_mean: f64,
    /// The tokens that stand for runs, in the order of their use. More runs than sentinels are not made.
    pub sentinels: Vec<u32>,
    /// What ends the input and the output.
    pub eos: u32,
}

/// A text with runs taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrupted {
    /// The text, a sentinel for each run, and EOS.
    pub inputs: Vec<u32>,
    /// For each stretch that is still in the text a sentinel, the runs between them, and EOS.
    pub targets: Vec<u32>,
}

/// Who sees what in a single sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Every row sees those before it.
    Causal,
    /// The rows of the input see each other in both directions.
    Prefix,
}

impl SpanCorruption {
    /// T5's own settings for its vocabulary: `<extra_id_0>` and on are the sentinels.
    pub fn t5(tokenizer: &Tokenizer) -> Result<SpanCorruption, Error> {
        let missing =
            |token: &str| Error::MissingToken { objective: "span corruption", token: token.to_string() };
        let sentinels: Vec<u32> = (0..).map_while(|i| tokenizer.id(&format!("<extra_id_{i}>"))).collect();
        if sentinels.is_empty() {
            return Err(missing("<extra_id_0>"));
        }
        let eos = tokenizer.eos().ok_or_else(|| missing("</s>"))?;
        Ok(SpanCorruption { density: 0.15, span_mean: 3.0, sentinels, eos })
    }

    /// How many tokens of `length` are taken out, in how many runs.
    fn noise(&self, length: usize) -> (usize, usize) {
        // numpy and Python round halves to even numbers.
        let n_noise = ((length as f64 * self.density).round_ties_even() as usize).clamp(1, length - 1);
        let n_spans = ((n_noise as f64 / self.span_mean).round_ties_even() as usize).max(1);
        (n_noise, n_spans.min(n_noise).min(length - n_noise).min(self.sentinels.len().max(1)))
    }

    /// The tokens of inputs and targets, EOS included, that `length` raw tokens become.
    pub fn lengths(&self, length: usize) -> (usize, usize) {
        let (n_noise, n_spans) = self.noise(length);
        (length - n_noise + n_spans + 1, n_noise + n_spans + 1)
    }

    /// The most raw tokens whose inputs fit into `inputs_len`, and the length of their targets: 512 → (568,
    /// 114).
    pub fn raw_len(&self, inputs_len: usize) -> (usize, usize) {
        let mut length = inputs_len.max(2);
        while self.lengths(length + 1).0 <= inputs_len {
            length += 1;
        }
        let (_, mut targets_len) = self.lengths(length);
        // At a density of one half, T5 makes both of one length.
        if self.density == 0.5 && targets_len > inputs_len {
            length -= 1;
            targets_len -= 1;
        }
        (length, targets_len)
    }

    /// Takes runs out of `tokens`. Panics if there are fewer than two.
    #[track_caller]
    pub fn corrupt(&self, tokens: &[u32], rng: &mut Rng) -> Corrupted {
        assert!(tokens.len() >= 2, "span corruption of {} tokens", tokens.len());
        let (n_noise, n_spans) = self.noise(tokens.len());
        let noise = partition(n_noise, n_spans, rng);
        let kept = partition(tokens.len() - n_noise, n_spans, rng);
        let (mut inputs, mut targets, mut at) = (Vec::new(), Vec::new(), 0);
        for ((kept, noise), &sentinel) in kept.into_iter().zip(noise).zip(&self.sentinels) {
            inputs.extend_from_slice(&tokens[at..at + kept]);
            inputs.push(sentinel);
            targets.push(sentinel);
            targets.extend_from_slice(&tokens[at + kept..at + kept + noise]);
            at += kept + noise;
        }
        inputs.push(self.eos);
        targets.push(self.eos);
        Corrupted { inputs, targets }
    }

    /// For an encoder-decoder whose decoder begins with `start`: it reads the inputs and writes the targets.
    pub fn encoder_decoder(&self, corrupted: Corrupted, start: u32) -> Example {
        Example::of(Sequence::written(corrupted.inputs, start, corrupted.targets))
    }

    /// For a decoder alone: inputs and targets in one sequence, of which the targets are predicted.
    pub fn single(&self, corrupted: Corrupted, attention: Attention) -> Example {
        let n_inputs = corrupted.inputs.len();
        let mut sequence = Sequence::completion(&[corrupted.inputs, corrupted.targets].concat(), n_inputs);
        if attention == Attention::Prefix {
            sequence.prefix_len = n_inputs;
        }
        Example::of(sequence)
    }
}

/// `n` as a sum of `parts` numbers from 1, each such sum as likely as any other.
fn partition(n: usize, parts: usize, rng: &mut Rng) -> Vec<usize> {
    let mut ends: Vec<bool> = (1..n).map(|i| i < parts).collect();
    shuffle(&mut ends, rng);
    let mut lengths = vec![1];
    for is_end in ends {
        match is_end {
            true => lengths.push(1),
            false => *lengths.last_mut().expect("it begins with one part") += 1,
        }
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{byte_level, characters};
    use super::*;
    use crate::IGNORE;
    use crate::random::keyed;
    use std::collections::BTreeMap;

    fn t5() -> SpanCorruption {
        let sentinels = (0..100).map(|i| 32_099 - i).collect();
        SpanCorruption { density: 0.15, span_mean: 3.0, sentinels, eos: 1 }
    }

    /// The text that inputs and targets tell together.
    fn restored(spans: &SpanCorruption, corrupted: &Corrupted) -> Vec<u32> {
        let is_sentinel = |id: &u32| spans.sentinels.contains(id);
        let mut runs: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut last = None;
        for id in &corrupted.targets[..corrupted.targets.len() - 1] {
            match is_sentinel(id) {
                true => assert!(runs.insert(*id, Vec::new()).is_none() && last.replace(*id) != Some(*id)),
                false => runs.get_mut(&last.unwrap()).unwrap().push(*id),
            }
        }
        let inputs = corrupted.inputs[..corrupted.inputs.len() - 1].iter();
        inputs.flat_map(|id| if is_sentinel(id) { runs[id].clone() } else { vec![*id] }).collect()
    }

    #[test]
    fn lengths_are_those_of_t5() {
        assert_eq!(t5().raw_len(512), (568, 114));
        assert_eq!(t5().lengths(568), (512, 114));
        let tokens: Vec<u32> = (100..668).collect();
        let corrupted = t5().corrupt(&tokens, &mut keyed(0, 0, 0));
        assert_eq!((corrupted.inputs.len(), corrupted.targets.len()), (512, 114));
    }

    #[test]
    fn inputs_and_targets_together_are_the_text() {
        let spans = t5();
        for length in [2, 3, 7, 20, 100, 568] {
            let tokens: Vec<u32> = (100..100 + length).collect();
            for item in 0..20 {
                let corrupted = spans.corrupt(&tokens, &mut keyed(1, 0, item));
                assert_eq!(restored(&spans, &corrupted), tokens);
                assert_eq!(
                    (corrupted.inputs[0], corrupted.targets[0]),
                    (100, 32_099),
                    "the text begins unharmed"
                );
                let lengths = (corrupted.inputs.len(), corrupted.targets.len());
                assert_eq!(lengths, spans.lengths(length as usize));
            }
        }
    }

    #[test]
    fn every_sum_is_as_likely_as_any_other() {
        let mut counts: BTreeMap<Vec<usize>, u32> = BTreeMap::new();
        for item in 0..6000 {
            *counts.entry(partition(5, 3, &mut keyed(0, 0, item))).or_default() += 1;
        }
        assert_eq!(counts.len(), 6, "{counts:?}");
        assert!(counts.values().all(|&n| (880..1120).contains(&n)), "{counts:?}");
        assert!(counts.keys().all(|lengths| lengths.iter().sum::<usize>() == 5 && !lengths.contains(&0)));
    }

    #[test]
    fn no_more_runs_are_made_than_there_are_sentinels() {
        let spans = SpanCorruption { sentinels: vec![9, 8], ..t5() };
        let tokens: Vec<u32> = (100..400).collect();
        let corrupted = spans.corrupt(&tokens, &mut keyed(0, 0, 0));
        assert_eq!(restored(&spans, &corrupted), tokens);
    }

    #[test]
    fn an_example_has_a_source_or_is_one_sequence() {
        let spans = t5();
        let corrupted = Corrupted { inputs: vec![5, 32_099, 1], targets: vec![32_099, 6, 1] };
        let written = spans.encoder_decoder(corrupted.clone(), 0).sequences.remove(0);
        assert_eq!((written.source, written.tokens), (vec![5, 32_099, 1], vec![0, 32_099, 6]));
        assert_eq!(written.targets, [32_099, 6, 1]);
        let single = spans.single(corrupted, Attention::Prefix).sequences.remove(0);
        assert_eq!(single.tokens, [5, 32_099, 1, 32_099, 6]);
        assert_eq!(single.targets, [IGNORE, IGNORE, 32_099, 6, 1]);
        assert_eq!(single.prefix_len, 3);
    }

    #[test]
    fn sentinels_are_found_in_the_vocabulary_or_missed_by_name() {
        let tokenizer = characters();
        let spans = SpanCorruption::t5(&tokenizer).unwrap();
        assert_eq!((spans.sentinels.len(), spans.eos), (100, tokenizer.eos().unwrap()));
        let missing = SpanCorruption::t5(&byte_level()).unwrap_err().to_string();
        assert_eq!(missing, "span corruption needs the token <extra_id_0>, and the vocabulary has none");
    }
}
