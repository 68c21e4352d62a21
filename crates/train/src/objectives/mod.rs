//! Objectives: what is optimised. Each makes its own examples and says their loss; the loop is the same for all.

mod causal_lm;
mod distill;
mod fill_in_the_middle;
mod masked_lm;
mod preference;
mod prefix_lm;
mod question_answering;
mod seq2seq;
mod sequence_classification;
mod sft;
mod span_corruption;
mod token_classification;

use rhetor_catalog::{About, BadOption, Values};
use rhetor_generate::{ChatTemplate, Rng};
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_models::{Labelled, Training};
use rhetor_tensor::Tensor;
use rhetor_tokenizer::Tokenizer;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::data::Row;
use crate::error::Error;
use crate::example::{Example, Sequence, Skip, Tally};
use crate::examples::classification::Labels;
use crate::policy::{Loss, Policy};

/// What is optimised.
pub trait Objective: Send + Sync {
    /// The examples that rows of data give; rows that give none are counted by reason.
    fn examples(&self, rows: &[Row], tally: &mut Tally) -> Vec<Example>;

    /// The example as it is trained on this time: objectives that mask or cut at random do it here, with a generator
    /// that depends on the seed, the epoch and the example alone.
    fn draw(&self, example: Example, _rng: &mut Rng) -> Example {
        example
    }

    /// How much an example counts: the losses of a step are divided by the sum of these over all its examples.
    fn weight(&self, example: &Example) -> f64 {
        example.sequences.iter().map(|sequence| sequence.n_targets() as f64).sum()
    }

    /// The loss of some examples of a step, times `scale`.
    fn loss(&self, policy: &Policy, examples: &[Example], scale: f32, training: Option<Training>) -> Loss;

    /// The head that the model must have, and what its outputs are called; `None` = over the vocabulary, as it is.
    fn head(&self) -> Option<Labelled> {
        None
    }

    /// Makes of the means of its metrics what follows from them alone, such as F1 from true and false positives.
    fn conclude(&self, _metrics: &mut BTreeMap<&'static str, f64>) {}

    /// What the policy's reference is to the objective.
    fn reference(&self) -> Reference {
        Reference::None
    }
}

/// What an objective compares the model that learns with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// Nothing.
    None,
    /// The model as it was before training.
    Before,
    /// Another model, with the same vocabulary.
    Teacher,
}

/// What rows are read with.
#[derive(Clone)]
pub struct Reading {
    /// The vocabulary.
    pub tokenizer: Arc<Tokenizer>,
    /// The model's chat template, if it has one.
    pub template: Option<Arc<ChatTemplate>>,
    /// Rows of an example at most; longer ones are cut.
    pub max_len: usize,
    /// Whether the model is an encoder.
    pub is_encoder: bool,
    /// The token that the decoder begins with, if the model has an encoder to read a source.
    pub decoder_start: Option<u32>,
    /// Rows that the model makes of a picture, if it has eyes.
    pub picture_rows: Option<usize>,
    /// The classes of the rows, where these have any.
    pub labels: Labels,
    /// What templates are told of the clock, in seconds since 1970.
    pub now: i64,
}

/// What the models that an objective trains read besides what they write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Nothing: they are an encoder, or a decoder.
    Nothing,
    /// A source, through an encoder.
    Source,
    /// A source if they have an encoder beside a decoder.
    Either,
}

/// Makes an objective with its options.
type Build = fn(&Values, Reading) -> Result<Box<dyn Objective>, Error>;

/// One line of the table.
pub struct Method {
    /// Name, source, options.
    pub about: &'static About,
    /// Whether it learns windows of a long text rather than rows one by one, if the data are texts.
    pub reads_windows: bool,
    /// What a model reads besides what it writes.
    pub reads: Reads,
    build: Build,
}

/// Every objective.
pub const OBJECTIVES: &[Method] = &[
    Method { about: &causal_lm::ABOUT, reads_windows: true, reads: Reads::Nothing, build: causal_lm::build },
    Method { about: &masked_lm::ABOUT, reads_windows: true, reads: Reads::Nothing, build: masked_lm::build },
    Method {
        about: &span_corruption::ABOUT,
        reads_windows: true,
        reads: Reads::Either,
        build: span_corruption::build,
    },
    Method { about: &prefix_lm::ABOUT, reads_windows: true, reads: Reads::Either, build: prefix_lm::build },
    Method {
        about: &fill_in_the_middle::ABOUT,
        reads_windows: true,
        reads: Reads::Nothing,
        build: fill_in_the_middle::build,
    },
    Method { about: &seq2seq::ABOUT, reads_windows: false, reads: Reads::Source, build: seq2seq::build },
    Method { about: &sft::ABOUT, reads_windows: false, reads: Reads::Nothing, build: sft::build },
    Method {
        about: &sequence_classification::ABOUT,
        reads_windows: false,
        reads: Reads::Nothing,
        build: sequence_classification::build,
    },
    Method {
        about: &token_classification::ABOUT,
        reads_windows: false,
        reads: Reads::Nothing,
        build: token_classification::build,
    },
    Method {
        about: &question_answering::ABOUT,
        reads_windows: false,
        reads: Reads::Nothing,
        build: question_answering::build,
    },
    Method { about: &distill::ABOUT, reads_windows: false, reads: Reads::Nothing, build: distill::build },
    Method { about: &preference::DPO, reads_windows: false, reads: Reads::Nothing, build: preference::dpo },
    Method { about: &preference::IPO, reads_windows: false, reads: Reads::Nothing, build: preference::ipo },
    Method { about: &preference::KTO, reads_windows: false, reads: Reads::Nothing, build: preference::kto },
    Method { about: &preference::ORPO, reads_windows: false, reads: Reads::Nothing, build: preference::orpo },
    Method {
        about: &preference::SIMPO,
        reads_windows: false,
        reads: Reads::Nothing,
        build: preference::simpo,
    },
];

impl Method {
    /// The objective of that name.
    pub fn find(name: &str) -> Result<&'static Method, Error> {
        let known = || OBJECTIVES.iter().map(|method| method.about.name).collect::<Vec<_>>().join(", ");
        let unknown = || Error::UnknownName { what: "objective", name: name.to_string(), known: known() };
        OBJECTIVES.iter().find(|method| method.about.name == name).ok_or_else(unknown)
    }

    /// The objective with these options.
    pub fn build<'a>(
        &self,
        given: impl IntoIterator<Item = (&'a str, f64)>,
        reading: Reading,
    ) -> Result<Box<dyn Objective>, Error> {
        (self.build)(&Values::of(self.about, given)?, reading)
    }
}

impl From<BadOption> for Error {
    fn from(bad: BadOption) -> Error {
        Error::BadOption(bad.to_string())
    }
}

/// The loss of language models: the cross-entropy of every target of every sequence.
fn next_tokens(
    policy: &Policy,
    examples: &[Example],
    scale: f32,
    options: CrossEntropy,
    training: Option<Training>,
) -> Loss {
    policy.next_tokens(examples.iter().flat_map(|example| &example.sequences), scale, options, training)
}

/// The tokens that a window of a text holds, the last target included.
fn tokens_of(example: &Example) -> Vec<u32> {
    let mut tokens = Vec::new();
    for sequence in &example.sequences {
        tokens.extend_from_slice(&sequence.tokens);
    }
    if let Some(&last) = example.sequences.last().and_then(|sequence| sequence.targets.last()) {
        tokens.extend((last != crate::IGNORE).then_some(last));
    }
    tokens
}

/// The documents of `rows` cut into examples of at most `max_len` rows, to be drawn from later.
fn documents(rows: &[Row], reading: &Reading, tally: &mut Tally) -> Vec<Example> {
    let made = |row| crate::examples::causal_lm::examples(row, &reading.tokenizer, reading.max_len);
    rows.iter().flat_map(|row| tally.count(made(row))).collect()
}

/// The examples that `make` makes of each row.
fn each_row(
    rows: &[Row],
    tally: &mut Tally,
    mut make: impl FnMut(&Row) -> Result<Vec<Example>, Skip>,
) -> Vec<Example> {
    rows.iter().flat_map(|row| tally.count(make(row))).collect()
}

/// The column of each row's greatest number. logits: [N, C] → [N]
fn most_likely(logits: &Tensor) -> Vec<u32> {
    let greatest = |row: &[f32]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
    (0..logits.n_rows()).map(|i| greatest(logits.row(i)) as u32).collect()
}

/// Puts F1 in the place of true and false positives and false negatives, all of them divided by the same number.
fn conclude_f1(metrics: &mut BTreeMap<&'static str, f64>) {
    let counts = [TRUE_POSITIVES, FALSE_POSITIVES, FALSE_NEGATIVES].map(|name| metrics.remove(name));
    if let [Some(right), Some(wrong), Some(missed)] = counts {
        let all = 2.0 * right + wrong + missed;
        metrics.insert("f1", if all > 0.0 { 2.0 * right / all } else { 0.0 });
    }
}

const TRUE_POSITIVES: &str = "true-positives";
const FALSE_POSITIVES: &str = "false-positives";
const FALSE_NEGATIVES: &str = "false-negatives";

/// Sequences of all examples.
fn sequences(examples: &[Example]) -> impl Iterator<Item = &Sequence> {
    examples.iter().flat_map(|example| &example.sequences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::fixtures::{characters, word_pieces};
    use crate::random::keyed;

    #[test]
    fn windows_of_every_objective_have_no_more_rows_than_are_allowed() {
        const MAX_LEN: usize = 24;
        for method in OBJECTIVES.iter().filter(|method| method.reads_windows) {
            let is_encoder = method.about.name == "masked-lm";
            let tokenizer = if is_encoder { word_pieces() } else { characters() };
            let reading = Reading {
                tokenizer: Arc::new(tokenizer),
                template: None,
                max_len: MAX_LEN,
                is_encoder,
                decoder_start: None,
                picture_rows: None,
                labels: Labels::Classes(Vec::new()),
                now: 0,
            };
            let objective =
                method.build([], reading).unwrap_or_else(|e| panic!("{}: {e}", method.about.name));
            let ids: Vec<u32> = (0..=MAX_LEN as u32).map(|i| 130 + i % 40).collect();
            for item in 0..50 {
                let window = Example::of(Sequence::next_token(&ids));
                let drawn = objective.draw(window, &mut keyed(0, 0, item));
                let longest = drawn.sequences.iter().map(Sequence::len).max().unwrap_or(0);
                assert!((1..=MAX_LEN).contains(&longest), "{}: {longest} rows", method.about.name);
            }
        }
    }
}
