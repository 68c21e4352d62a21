//! Kinds of attention heads, told by where they look in repeated random tokens.
//!
//! In a sequence of random tokens that is repeated, nothing but the repetition can be predicted. A *previous-token head* looks one
//! token back, a *duplicate-token head* at the same token's earlier occurrence, an *induction head* at the token after
//! that, which is the one to come. Source: In-context Learning and Induction Heads, arXiv:2209.11895, "Definition of induction
//! heads" and appendix "Head activation evaluators".

use super::AnalysisError;
use super::circuits::Circuits;
use super::maps::{LayerMaps, record};
use crate::init::Normal;
use crate::model::Model;

/// The random sequences that heads are scored on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RandomTokens {
    /// Tokens to choose from, without control tokens.
    pub choice: Vec<u32>,
    /// Tokens of a segment, all different.
    pub segment_len: usize,
    /// Sequences whose scores are averaged.
    pub n_sequences: usize,
    /// A token before the first segment, where texts begin with one.
    pub first: Option<u32>,
    /// The same seed draws the same tokens.
    pub seed: u64,
}

/// What a head does with repeated random tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadScores {
    /// The layer, from 0.
    pub layer: usize,
    /// The head of the layer, from 0.
    pub head: usize,
    /// Mean attention to the token before.
    pub previous_token: f32,
    /// Mean attention of tokens of the second copy to the same token of the first.
    pub duplicate_token: f32,
    /// Mean attention of tokens of the second copy to the token after the same one of the first.
    pub induction: f32,
    /// Mean attention of tokens of copies 2 to 4 to all tokens that came after the same one before.
    pub prefix_matching: f32,
    /// Σλ / Σ|λ| of the eigenvalues of the circuit from tokens through the head's values and output to logits: 1 = what is looked at becomes
    /// more likely, −1 = less. Norms are left out of it. Source: A Mathematical Framework for Transformer Circuits (2021),
    /// "Copying heads".
    pub copying: f32,
}

/// What a head mostly does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// Looks one token back.
    PreviousToken,
    /// Looks at the same token.
    DuplicateToken,
    /// Looks at what came after the same token.
    Induction,
}

impl HeadKind {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            HeadKind::PreviousToken => "previous-token",
            HeadKind::DuplicateToken => "duplicate-token",
            HeadKind::Induction => "induction",
        }
    }
}

impl HeadScores {
    /// A head with less attention than this at the place that makes the kind has no kind.
    pub const KIND_FROM: f32 = 0.4;

    /// The kind with the highest score, if that is [`KIND_FROM`](HeadScores::KIND_FROM) or more.
    pub fn kind(&self) -> Option<HeadKind> {
        let kinds = [
            (self.previous_token, HeadKind::PreviousToken),
            (self.duplicate_token, HeadKind::DuplicateToken),
            (self.induction, HeadKind::Induction),
        ];
        let best = kinds.into_iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
        (best.0 >= HeadScores::KIND_FROM).then_some(best.1)
    }
}

/// The heads of a model, and what they are for: how much better it predicts what it has seen before.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadReport {
    /// Every head, layer by layer.
    pub heads: Vec<HeadScores>,
    /// Mean loss of predicting the first copy's tokens, from its second on. Nats.
    pub loss_first: f32,
    /// Mean loss of predicting the second copy's tokens, from its second on. Nats.
    pub loss_second: f32,
}

impl HeadReport {
    /// Loss at late positions minus loss at early ones, nats: negative where the context is made use of. Source:
    /// arXiv:2209.11895, "in-context learning score".
    pub fn in_context_score(&self) -> f32 {
        self.loss_second - self.loss_first
    }
}

/// Scores every head of a decoder.
///
/// Errors: the model is no decoder; fewer tokens to choose from than a segment has; four segments do not fit into the context.
pub fn score_heads(model: &Model, options: &RandomTokens) -> Result<HeadReport, AnalysisError> {
    let twice = options.sequences(2)?;
    let (layers, logits) = record(model, &twice)?;
    let n = options.segment_len;
    let start = usize::from(options.first.is_some());
    let mut heads = Vec::new();
    let mut circuits = Circuits::of(model)?;
    let sample = circuits.sample(model, &options.choice, options.seed)?;
    for maps in &layers {
        for head in 0..maps.n_heads() {
            let mean = |from: usize, back: usize| mean_attention(maps, head, twice.len(), from, back);
            heads.push(HeadScores {
                layer: maps.layer(),
                head,
                previous_token: mean(1, 1),
                duplicate_token: mean(start + n, n),
                induction: mean(start + n, n - 1),
                prefix_matching: 0.0,
                copying: circuits.copying(maps.layer(), head, &sample),
            });
        }
    }
    drop(layers);
    let four = options.sequences(4)?;
    let (layers, _) = record(model, &four)?;
    let all = layers.iter().flat_map(|maps| (0..maps.n_heads()).map(move |head| (maps, head)));
    for (scores, (maps, head)) in heads.iter_mut().zip(all) {
        scores.prefix_matching = prefix_matching(maps, head, four.len(), start, n);
    }
    let len = start + 2 * n;
    let loss = |from: usize| {
        let places = (0..twice.len()).flat_map(|s| (from..from + n - 1).map(move |i| (s, i)));
        let losses = places.map(|(s, i)| loss_of(logits.row(s * len + i), twice[s][i + 1]));
        losses.sum::<f32>() / (twice.len() * (n - 1)) as f32
    };
    Ok(HeadReport { heads, loss_first: loss(start), loss_second: loss(start + n) })
}

impl RandomTokens {
    /// Sequences of one random segment, `times` over.
    fn sequences(&self, times: usize) -> Result<Vec<Vec<u32>>, AnalysisError> {
        let n = self.segment_len;
        if n < 2 || self.choice.len() < n {
            return Err(AnalysisError::VocabularyTooSmall { expected: n.max(2), got: self.choice.len() });
        }
        let sequence = |s| {
            let mut choice = self.choice.clone();
            shuffle_front(&mut choice, n, self.seed, s as u64);
            let repeated = choice[..n].iter().copied().cycle().take(times * n);
            self.first.into_iter().chain(repeated).collect()
        };
        Ok((0..self.n_sequences).map(sequence).collect())
    }
}

/// Puts `n` random elements in front.
pub(super) fn shuffle_front(values: &mut [u32], n: usize, seed: u64, stream: u64) {
    let mut random = Normal::new(seed, stream);
    for i in 0..n.min(values.len()) {
        let left = values.len() - i;
        values.swap(i, i + ((random.uniform() * left as f64) as usize).min(left - 1));
    }
}

/// Mean attention of tokens `from..` to those `back` before them.
fn mean_attention(maps: &LayerMaps, head: usize, n_sequences: usize, from: usize, back: usize) -> f32 {
    let means = (0..n_sequences).map(|s| {
        let map = maps.map(s, head);
        let len = map.len().isqrt();
        (from..len).map(|i| map[i * len + i - back]).sum::<f32>() / (len - from) as f32
    });
    means.sum::<f32>() / n_sequences as f32
}

/// Mean over the tokens of all copies but the first of the attention to all tokens that came after the same one.
fn prefix_matching(maps: &LayerMaps, head: usize, n_sequences: usize, start: usize, n: usize) -> f32 {
    let means = (0..n_sequences).map(|s| {
        let map = maps.map(s, head);
        let len = map.len().isqrt();
        let to = |i: usize| (1..=(i - start) / n).map(move |copies| i + 1 - copies * n);
        let of = |i: usize| to(i).map(|j| map[i * len + j]).sum::<f32>();
        (start + n..len).map(of).sum::<f32>() / (len - start - n) as f32
    });
    means.sum::<f32>() / n_sequences as f32
}

/// −ln p(token). logits: [V]
fn loss_of(logits: &[f32], token: u32) -> f32 {
    let highest = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let sum: f32 = logits.iter().map(|logit| (logit - highest).exp()).sum();
    sum.ln() + highest - logits[token as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(n: usize, n_choice: u32) -> RandomTokens {
        RandomTokens {
            choice: (5..5 + n_choice).collect(),
            segment_len: n,
            n_sequences: 3,
            first: Some(1),
            seed: 7,
        }
    }

    #[test]
    fn random_segments_hold_different_tokens_and_are_repeated() {
        let sequences = options(6, 9).sequences(2).unwrap();
        assert_eq!(sequences, options(6, 9).sequences(2).unwrap());
        assert_ne!(sequences[0], sequences[1]);
        for sequence in sequences {
            assert_eq!((sequence.len(), sequence[0]), (13, 1));
            assert_eq!(sequence[1..7], sequence[7..13]);
            let mut sorted = sequence[1..7].to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert!(sorted.len() == 6 && sorted.iter().all(|id| (5..14).contains(id)), "{sequence:?}");
        }
        let refused = options(10, 9).sequences(2).unwrap_err();
        assert_eq!(refused, AnalysisError::VocabularyTooSmall { expected: 10, got: 9 });
    }

    #[test]
    fn the_kind_is_the_highest_score_that_is_high_enough() {
        let scores = HeadScores {
            layer: 0,
            head: 0,
            previous_token: 0.1,
            duplicate_token: 0.45,
            induction: 0.5,
            prefix_matching: 1.0,
            copying: 1.0,
        };
        assert_eq!(scores.kind(), Some(HeadKind::Induction));
        assert_eq!(HeadScores { induction: 0.2, ..scores }.kind(), Some(HeadKind::DuplicateToken));
        assert_eq!(HeadScores { induction: 0.2, duplicate_token: 0.3, ..scores }.kind(), None);
    }

    #[test]
    fn the_loss_of_even_logits_is_the_logarithm_of_their_number() {
        assert!((loss_of(&[3.0; 8], 2) - 8.0f32.ln()).abs() < 1e-6);
    }
}
