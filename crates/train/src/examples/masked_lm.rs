//! Masked language modelling: some tokens are hidden, and the model says what they were.
//!
//! Source: BERT, arXiv:1810.04805, §3.1 and its create_pretraining_data.py (80 % mask, 10 % random, 10 %
//! kept; whole words); RoBERTa, arXiv:1907.11692, §4.1 (masks drawn anew each epoch, as here); ALBERT,
//! arXiv:1909.11942, eq. 1 (runs of n words, n drawn with probability proportional to 1/n). Row t predicts
//! token t: targets are not shifted.

use super::sentence_pairs::Pair;
use crate::random::{below, shuffle};
use crate::{Error, Example, IGNORE, Label, Sequence};
use rhetor_generate::Rng;
use rhetor_tokenizer::Tokenizer;
use std::ops::Range;

/// What is hidden together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskUnit {
    /// Each token for itself.
    Token,
    /// All tokens of a word.
    WholeWord,
    /// Runs of one to so many words.
    NGram(usize),
}

/// How much is hidden, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaskingOptions {
    /// The share of the tokens that is predicted.
    pub share: f64,
    /// The most tokens of a sequence that are predicted; BERT's 20 for 128 tokens.
    pub n_max: Option<usize>,
    /// Of those, the share that becomes `[MASK]`.
    pub masked: f64,
    /// The share that becomes a random token; the rest stays.
    pub random: f64,
    /// What is hidden together.
    pub unit: MaskUnit,
}

impl Default for MaskingOptions {
    fn default() -> MaskingOptions {
        MaskingOptions { share: 0.15, n_max: None, masked: 0.8, random: 0.1, unit: MaskUnit::Token }
    }
}

/// Masking for one vocabulary.
#[derive(Debug, Clone)]
pub struct Masking {
    options: MaskingOptions,
    mask: u32,
    n_tokens: u32,
    /// Tokens that are never hidden.
    is_special: Vec<bool>,
    /// Tokens that go on with a word.
    continues: Vec<bool>,
}

impl Masking {
    /// Fails if the vocabulary has no mask token, or an option is out of its range.
    pub fn new(tokenizer: &Tokenizer, options: MaskingOptions) -> Result<Masking, Error> {
        let refused = |option: &'static str, reason: String| Err(Error::InvalidOption { option, reason });
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        if !is_share(options.share) || options.share == 0.0 {
            return refused("share", format!("expected a number above 0 up to 1, got {}", options.share));
        }
        if ![options.masked, options.random, options.masked + options.random].into_iter().all(is_share) {
            let got = format!("{} and {}", options.masked, options.random);
            return refused("masked", format!("masked and random are shares of a whole, got {got}"));
        }
        if matches!(options.unit, MaskUnit::NGram(0)) || options.n_max == Some(0) {
            return refused("unit", "runs and predictions of none at all".to_string());
        }
        let mask = tokenizer.mask().ok_or(Error::MissingToken {
            objective: "masked language modelling",
            token: "[MASK]".to_string(),
        })?;
        let all = 0..tokenizer.n_tokens() as u32;
        let pieces = || all.clone().map(|id| tokenizer.piece(id).unwrap_or_default());
        let is_word_piece = pieces().any(|piece| piece.starts_with("##"));
        let continues = |id: u32| match is_word_piece {
            true => tokenizer.piece(id).is_some_and(|piece| piece.starts_with("##")),
            false => !tokenizer.token_bytes(id).first().is_none_or(|byte| byte.is_ascii_whitespace()),
        };
        Ok(Masking {
            options,
            mask,
            n_tokens: all.end,
            is_special: all.clone().map(|id| tokenizer.is_special(id)).collect(),
            continues: all.clone().map(continues).collect(),
        })
    }

    /// Hides tokens of a sequence. Of T tokens, max(1, round(T · share)) are predicted, fewer if whole words
    /// do not fit.
    ///
    /// Control tokens are never hidden. `segments` are passed on.
    pub fn corrupt(&self, tokens: &[u32], segments: Option<Vec<u8>>, rng: &mut Rng) -> Example {
        let n_wanted = ((tokens.len() as f64 * self.options.share).round() as usize).max(1);
        let n_wanted = n_wanted.min(self.options.n_max.unwrap_or(usize::MAX));
        let mut hidden = vec![false; tokens.len()];
        let mut n_hidden = 0;
        for run in self.runs(tokens, rng) {
            if n_hidden >= n_wanted {
                break;
            }
            // A run that would be too much, or meets another, is passed over for the next.
            if n_hidden + run.len() <= n_wanted && !hidden[run.clone()].contains(&true) {
                n_hidden += run.len();
                hidden[run].fill(true);
            }
        }
        let (mut corrupted, mut targets) = (tokens.to_vec(), vec![IGNORE; tokens.len()]);
        for i in (0..tokens.len()).filter(|&i| hidden[i]) {
            targets[i] = tokens[i];
            let draw = rng.uniform();
            if draw < self.options.masked {
                corrupted[i] = self.mask;
            } else if draw < self.options.masked + self.options.random {
                corrupted[i] = below(rng, self.n_tokens as usize) as u32;
            }
        }
        let prefix_len = tokens.len();
        Example {
            sequences: vec![Sequence {
                tokens: corrupted,
                targets,
                segments,
                prefix_len,
                source: Vec::new(),
                pictures: Vec::new(),
            }],
            label: Label::None,
        }
    }

    /// Hides tokens of a pair of segments; the label is the pair's.
    pub fn corrupt_pair(&self, pair: &Pair, rng: &mut Rng) -> Example {
        let masked = self.corrupt(&pair.tokens, Some(pair.segments.clone()), rng);
        Example { label: pair.label.clone(), ..masked }
    }

    /// What may be hidden together, in random order.
    fn runs(&self, tokens: &[u32], rng: &mut Rng) -> Vec<Range<usize>> {
        let is_text = |i: usize| !self.is_special.get(tokens[i] as usize).copied().unwrap_or(false);
        let mut words: Vec<Range<usize>> = Vec::new();
        for i in (0..tokens.len()).filter(|&i| is_text(i)) {
            let continues = self.continues.get(tokens[i] as usize).copied().unwrap_or(false);
            match words.last_mut() {
                Some(word) if continues && word.end == i && self.options.unit != MaskUnit::Token => {
                    word.end += 1
                }
                _ => words.push(i..i + 1),
            }
        }
        let mut order: Vec<usize> = (0..words.len()).collect();
        shuffle(&mut order, rng);
        let n_max = match self.options.unit {
            MaskUnit::NGram(n) => n,
            _ => 1,
        };
        let run = |first: usize| {
            let n = if n_max == 1 { 1 } else { ngram(n_max, rng) };
            // Words follow each other unless a control token stands between them.
            let mut range = words[first].clone();
            for next in words[first + 1..].iter().take(n - 1) {
                if next.start == range.end {
                    range.end = next.end;
                }
            }
            range
        };
        order.into_iter().map(run).collect()
    }
}

/// A number from 1 to `n_max`, n with probability (1/n) / (1 + 1/2 + ... + 1/n_max).
fn ngram(n_max: usize, rng: &mut Rng) -> usize {
    let total: f64 = (1..=n_max).map(|n| 1.0 / n as f64).sum();
    let mut draw = rng.uniform() * total;
    for n in 1..n_max {
        draw -= 1.0 / n as f64;
        if draw < 0.0 {
            return n;
        }
    }
    n_max
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{characters, word_pieces};
    use super::*;
    use crate::random::keyed;
    use rhetor_tokenizer::Special;

    fn masking(options: MaskingOptions) -> Masking {
        Masking::new(&word_pieces(), options).unwrap()
    }

    /// 500 tokens of text between [CLS] and [SEP].
    fn tokens() -> Vec<u32> {
        let tokenizer = word_pieces();
        let text = "the quick brown fox jumps over the lazy dog, and tokenization happens. ".repeat(60);
        let mut ids = vec![tokenizer.class().unwrap()];
        ids.extend(tokenizer.encode(&text, Special::Literal).into_iter().take(498));
        ids.push(tokenizer.separator().unwrap());
        assert_eq!(ids.len(), 500);
        ids
    }

    #[test]
    fn fifteen_of_a_hundred_tokens_are_predicted_and_of_those_eight_in_ten_masked() {
        let (tokenizer, tokens) = (word_pieces(), tokens());
        let (mask, n_tokens) = (tokenizer.mask().unwrap(), tokenizer.n_tokens() as f64);
        for unit in [MaskUnit::Token, MaskUnit::WholeWord, MaskUnit::NGram(3)] {
            let masking = masking(MaskingOptions { unit, ..Default::default() });
            let (mut n_predicted, mut n_masked, mut n_kept, n_sequences) = (0.0, 0.0, 0.0, 400);
            for item in 0..n_sequences {
                let example = masking.corrupt(&tokens, None, &mut keyed(1, 0, item));
                let sequence = &example.sequences[0];
                assert_eq!(sequence.prefix_len, 500);
                for (i, &target) in sequence.targets.iter().enumerate() {
                    if target == IGNORE {
                        assert_eq!(sequence.tokens[i], tokens[i]);
                        continue;
                    }
                    assert!(target == tokens[i] && i != 0 && i != 499, "control tokens are never hidden");
                    n_predicted += 1.0;
                    n_masked += f64::from(u8::from(sequence.tokens[i] == mask));
                    n_kept += f64::from(u8::from(sequence.tokens[i] == target));
                }
            }
            let share = n_predicted / (500 * n_sequences) as f64;
            assert!((share - 0.15).abs() < 0.003, "{unit:?}: {share}");
            // One random token in n_tokens is the mask, and one is the token itself.
            let chance = 0.1 / n_tokens;
            assert!((n_masked / n_predicted - 0.8 - chance).abs() < 0.01, "{unit:?}");
            assert!((n_kept / n_predicted - 0.1 - chance).abs() < 0.01, "{unit:?}");
        }
    }

    #[test]
    fn whole_words_are_hidden_whole() {
        let (tokenizer, tokens) = (word_pieces(), tokens());
        let masking = masking(MaskingOptions {
            unit: MaskUnit::WholeWord,
            masked: 1.0,
            random: 0.0,
            ..Default::default()
        });
        let continues = |id: u32| tokenizer.piece(id).unwrap().starts_with("##");
        assert!(tokens.iter().any(|&id| continues(id)), "the text has words of several pieces");
        for item in 0..20 {
            let targets = masking.corrupt(&tokens, None, &mut keyed(1, 0, item)).sequences.remove(0).targets;
            for i in 1..tokens.len() {
                if continues(tokens[i]) {
                    assert_eq!(targets[i] == IGNORE, targets[i - 1] == IGNORE, "at {i}");
                }
            }
        }
    }

    #[test]
    fn long_runs_are_rarer_in_proportion_to_their_length() {
        let mut counts = [0.0f64; 4];
        for item in 0..60_000 {
            counts[ngram(3, &mut keyed(0, 0, item))] += 1.0 / 60_000.0;
        }
        for (n, expected) in [(1, 6.0 / 11.0), (2, 3.0 / 11.0), (3, 2.0 / 11.0)] {
            assert!((counts[n] - expected).abs() < 0.01, "{counts:?}");
        }
    }

    #[test]
    fn predictions_have_a_least_and_a_greatest_number() {
        let count = |n: usize, n_max| {
            let masking = masking(MaskingOptions { n_max, ..Default::default() });
            masking.corrupt(&tokens()[..n], None, &mut keyed(0, 0, 0)).sequences[0].n_targets()
        };
        assert_eq!((count(3, None), count(500, Some(20)), count(500, None)), (1, 20, 75));
        assert_eq!(count(1, None), 0, "nothing but [CLS]");
    }

    #[test]
    fn a_masked_pair_keeps_its_segments_and_its_label() {
        let pair = Pair { tokens: tokens(), segments: vec![1; 500], label: Label::Class(1) };
        let example = masking(MaskingOptions::default()).corrupt_pair(&pair, &mut keyed(0, 0, 0));
        assert_eq!((example.label, &example.sequences[0].segments), (Label::Class(1), &Some(vec![1; 500])));
        assert_eq!(example.sequences[0].n_targets(), 75);
    }

    #[test]
    fn the_same_key_hides_the_same_tokens() {
        let (masking, tokens) = (masking(MaskingOptions::default()), tokens());
        let at = |epoch| masking.corrupt(&tokens, None, &mut keyed(1, epoch, 5));
        assert_eq!(at(0), at(0));
        assert_ne!(at(0), at(1));
    }

    #[test]
    fn a_vocabulary_without_a_mask_and_impossible_shares_are_refused() {
        let refused = Masking::new(&characters(), MaskingOptions::default()).unwrap_err().to_string();
        assert_eq!(refused, "masked language modelling needs the token [MASK], and the vocabulary has none");
        for wrong in [
            MaskingOptions { share: 0.0, ..Default::default() },
            MaskingOptions { random: 0.3, ..Default::default() },
            MaskingOptions { unit: MaskUnit::NGram(0), ..Default::default() },
        ] {
            assert!(matches!(Masking::new(&word_pieces(), wrong), Err(Error::InvalidOption { .. })));
        }
    }
}
