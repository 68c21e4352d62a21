//! Text to text: an encoder reads one text, a decoder learns to write the other.

use rhetor_catalog::{About, Source, Values};
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_models::Training;

use super::causal_lm::{SMOOTHING, Z_LOSS, cross_entropy};
use super::{Objective, Reading, each_row, next_tokens};
use crate::data::Row;
use crate::error::Error;
use crate::example::{Example, Tally};
use crate::examples::text_to_text::TextToText;
use crate::policy::{Loss, Policy};

pub(super) const ABOUT: About = About {
    name: "seq2seq",
    summary: "read a prompt with an encoder and learn to write its completion: translations, tasks as text",
    source: Source::Paper {
        title: "Sequence to Sequence Learning with Neural Networks",
        id: "arXiv:1409.3215",
        section: "section 2",
    },
    options: &[SMOOTHING, Z_LOSS],
};

struct Seq2Seq {
    options: CrossEntropy,
    reading: Reading,
}

pub(super) fn build(values: &Values, reading: Reading) -> Result<Box<dyn Objective>, Error> {
    Ok(Box::new(Seq2Seq { options: cross_entropy(values), reading }))
}

impl Objective for Seq2Seq {
    fn examples(&self, rows: &[Row], tally: &mut Tally) -> Vec<Example> {
        let maker = TextToText {
            tokenizer: &self.reading.tokenizer,
            decoder_start: self.reading.decoder_start.unwrap_or(0),
            max_len: self.reading.max_len,
        };
        each_row(rows, tally, |row| maker.examples(row))
    }

    fn loss(&self, policy: &Policy, examples: &[Example], scale: f32, training: Option<Training>) -> Loss {
        next_tokens(policy, examples, scale, self.options, training)
    }
}
