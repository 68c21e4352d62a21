//! What an objective learns from: rows of tokens with the token that each of them must predict.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A target that is not trained.
pub const IGNORE: u32 = u32::MAX;

/// One sequence of tokens; positions count from 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sequence {
    /// What the model reads. [T]
    pub tokens: Vec<u32>,
    /// The token that row t must predict, already shifted, or [`IGNORE`]. [T]
    pub targets: Vec<u32>,
    /// BERT's segments: 0 for the first text, 1 for the second. [T]
    pub segments: Option<Vec<u8>>,
    /// The first rows that see each other in both directions; 0 = causal, T = an encoder.
    pub prefix_len: usize,
    /// What the encoder of an encoder-decoder reads for it; empty for models without one. [S]
    pub source: Vec<u32>,
    /// Pictures among the tokens.
    pub pictures: Vec<Picture>,
}

/// A picture among the tokens of a sequence.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// The first of the rows that stand for it.
    pub first: usize,
    /// Its file: a PNG, JPEG or WebP that can be decoded.
    pub file: Arc<[u8]>,
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a picture of {} bytes at row {}", self.file.len(), self.first)
    }
}

impl Sequence {
    /// Next-token prediction of all of `ids`: T is one less than their number.
    pub fn next_token(ids: &[u32]) -> Sequence {
        Sequence::completion(ids, 1)
    }

    /// Next-token prediction of what follows the first `n_given` of `ids`; T is one less than the number of
    /// ids.
    pub fn completion(ids: &[u32], n_given: usize) -> Sequence {
        let n = ids.len().saturating_sub(1);
        let targets = (1..ids.len()).map(|i| if i < n_given { IGNORE } else { ids[i] }).collect();
        Sequence { tokens: ids[..n].to_vec(), targets, ..Sequence::default() }
    }

    /// Next-token prediction of those `ids` for which `is_trained` says so. Panics if the lengths differ.
    #[track_caller]
    pub fn masked(ids: &[u32], is_trained: &[bool]) -> Sequence {
        assert_eq!(ids.len(), is_trained.len(), "one mark for each token");
        let n = ids.len().saturating_sub(1);
        let target = |i: usize| if is_trained[i] { ids[i] } else { IGNORE };
        let targets = (1..ids.len()).map(target).collect();
        Sequence { tokens: ids[..n].to_vec(), targets, ..Sequence::default() }
    }

    /// Tokens for an encoder, in which every row sees every other and nothing is predicted.
    pub fn encoder(tokens: Vec<u32>) -> Sequence {
        let (targets, prefix_len) = (vec![IGNORE; tokens.len()], tokens.len());
        Sequence { tokens, targets, prefix_len, ..Sequence::default() }
    }

    /// What a decoder reads and predicts to write `ids` after its encoder read `source`: it begins with `start` and is one
    /// row behind its targets.
    pub fn written(source: Vec<u32>, start: u32, ids: Vec<u32>) -> Sequence {
        let mut tokens = ids.clone();
        tokens.pop();
        tokens.insert(0, start);
        tokens.truncate(ids.len());
        Sequence { tokens, targets: ids, source, ..Sequence::default() }
    }

    /// Rows that have a target.
    pub fn n_targets(&self) -> usize {
        self.targets.iter().filter(|&&target| target != IGNORE).count()
    }

    /// Number of rows T.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// What an example says about its sequences as a whole.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Label {
    /// Nothing: all is in the targets.
    #[default]
    None,
    /// The class of the first sequence.
    Class(u32),
    /// A number to predict.
    Number(f32),
    /// A class for each row of the first sequence, or [`IGNORE`]. [T]
    Tokens(Vec<u32>),
    /// The first and the last row (included) of an answer; (0, 0) = the text does not say.
    Span {
        /// First row.
        start: u32,
        /// Last row, included.
        end: u32,
    },
    /// Whether the answer is one to write again (KTO).
    Desirable(bool),
    /// By how much the first sequence is better than the second.
    Margin(f32),
}

/// What one loss is computed from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Example {
    /// One; two for preferences (chosen, rejected).
    pub sequences: Vec<Sequence>,
    /// What is said about them as a whole.
    pub label: Label,
}

impl Example {
    /// An example of one sequence without a label.
    pub fn of(sequence: Sequence) -> Example {
        Example { sequences: vec![sequence], label: Label::None }
    }

    /// The rows of all sequences and of what is read for them.
    pub fn n_rows(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.len() + sequence.source.len()).sum()
    }
}

/// Why a row gives no example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// The objective has no use for rows of this kind.
    WrongKind {
        /// What it learns from.
        expected: &'static str,
        /// The row's kind.
        got: &'static str,
    },
    /// There is too little text.
    Empty,
    /// Nothing that would be trained is left after truncation.
    NothingLeft,
    /// The prompt alone fills the length allowed.
    PromptTooLong,
    /// The conversation has no turn of the assistant.
    NoAnswer,
    /// Both answers are the same tokens, so that nothing tells them apart.
    SameAnswers,
    /// The chat template refused, in its own words.
    Template(String),
    /// The template does not show the assistant's words, so that nothing says which tokens to train.
    AnswerNotShown,
    /// The tokens could not be aligned with the text that they come from.
    NotAligned,
    /// The label is not among those known.
    UnknownLabel(String),
    /// The model has no eyes for the picture of the row.
    NoEyes,
    /// The picture of the row cannot be read.
    Picture(String),
    /// The words and the tags differ in number, or the answer is not at its place in the text.
    Contradiction(String),
}

impl Skip {
    /// The reason, in words that are the same for all rows alike.
    pub fn reason(&self) -> &'static str {
        match self {
            Skip::WrongKind { .. } => "of a kind that the objective has no use for",
            Skip::Empty => "too little text",
            Skip::NothingLeft => "nothing to train left after truncation",
            Skip::PromptTooLong => "the prompt alone is too long",
            Skip::NoAnswer => "no turn of the assistant",
            Skip::SameAnswers => "both answers are the same",
            Skip::Template(_) => "refused by the chat template",
            Skip::AnswerNotShown => "the chat template does not show the answer",
            Skip::NotAligned => "tokens and text cannot be aligned",
            Skip::UnknownLabel(_) => "a label that is not known",
            Skip::NoEyes => "a picture, and the model has no eyes",
            Skip::Picture(_) => "a picture that cannot be read",
            Skip::Contradiction(_) => "the row contradicts itself",
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Skip::WrongKind { expected, got } => {
                write!(f, "{}: expected {expected}, got {got}", self.reason())
            }
            Skip::Template(words)
            | Skip::UnknownLabel(words)
            | Skip::Picture(words)
            | Skip::Contradiction(words) => {
                write!(f, "{}: {words}", self.reason())
            }
            _ => f.write_str(self.reason()),
        }
    }
}

impl std::error::Error for Skip {}

/// How many rows became examples, and why the others did not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tally {
    /// Rows that gave at least one example.
    pub n_kept: u64,
    /// Examples made.
    pub n_examples: u64,
    /// Rows that gave none, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// The first row of each reason, in full words.
    pub first: BTreeMap<&'static str, String>,
}

impl Tally {
    /// Counts what became of a row, and passes the examples on.
    pub fn count<T>(&mut self, made: Result<Vec<T>, Skip>) -> Vec<T> {
        match made {
            Ok(examples) => {
                self.n_kept += 1;
                self.n_examples += examples.len() as u64;
                examples
            }
            Err(skip) => {
                *self.skipped.entry(skip.reason()).or_default() += 1;
                self.first.entry(skip.reason()).or_insert_with(|| skip.to_string());
                Vec::new()
            }
        }
    }

    /// Rows that gave no example.
    pub fn n_skipped(&self) -> u64 {
        self.skipped.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_tokens_one_further() {
        let sequence = Sequence::next_token(&[5, 6, 7]);
        assert_eq!((sequence.tokens, sequence.targets), (vec![5, 6], vec![6, 7]));
        let sequence = Sequence::completion(&[5, 6, 7, 8], 2);
        assert_eq!((sequence.n_targets(), sequence.targets), (2, vec![IGNORE, 7, 8]));
        let sequence = Sequence::masked(&[5, 6, 7], &[true, false, true]);
        assert_eq!(sequence.targets, [IGNORE, 7]);
        let sequence = Sequence::written(vec![9], 0, vec![5, 6, 7]);
        assert_eq!((sequence.tokens, sequence.targets), (vec![0, 5, 6], vec![5, 6, 7]));
        assert!(Sequence::next_token(&[]).is_empty() && Sequence::written(vec![9], 0, vec![]).is_empty());
    }

    #[test]
    fn a_tally_counts_reasons_and_keeps_the_first_of_each() {
        let mut tally = Tally::default();
        assert_eq!(tally.count(Ok(vec![1, 2])), [1, 2]);
        for label in ["a", "b"] {
            assert!(tally.count::<u8>(Err(Skip::UnknownLabel(label.into()))).is_empty());
        }
        tally.count::<u8>(Err(Skip::Empty));
        assert_eq!((tally.n_kept, tally.n_examples, tally.n_skipped()), (1, 2, 3));
        assert_eq!(tally.first["a label that is not known"], "a label that is not known: a");
    }
}
