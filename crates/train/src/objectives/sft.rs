//! Supervised fine-tuning: the assistant's words in conversations, through the model's own chat template.

use rhetor_catalog::{About, Source, Values};
use rhetor_models::Training;

use super::causal_lm::{SMOOTHING, Z_LOSS, cross_entropy};
use super::{Objective, Reading, each_row, next_tokens};
use crate::data::Row;
use crate::error::Error;
use crate::example::{Example, Tally};
use crate::examples::sft::Sft;
use crate::policy::{Loss, Policy};
use rhetor_kernels::cross_entropy::CrossEntropy;

pub(super) const ABOUT: About = About {
    name: "sft",
    summary: "learn the assistant's turns of conversations, or the completions of prompts",
    source: Source::Paper {
        title: "Training language models to follow instructions with human feedback",
        id: "arXiv:2203.02155",
        section: "section 3.5",
    },
    options: &[SMOOTHING, Z_LOSS],
};

struct SupervisedFineTuning {
    options: CrossEntropy,
    reading: Reading,
}

pub(super) fn build(values: &Values, reading: Reading) -> Result<Box<dyn Objective>, Error> {
    Ok(Box::new(SupervisedFineTuning { options: cross_entropy(values), reading }))
}

/// What makes examples of conversations.
pub(super) fn reader(reading: &Reading) -> Sft<'_> {
    let reader = Sft::new(&reading.tokenizer, reading.template.as_deref(), reading.max_len, reading.now);
    reader.with_pictures(reading.picture_rows)
}

impl Objective for SupervisedFineTuning {
    fn examples(&self, rows: &[Row], tally: &mut Tally) -> Vec<Example> {
        let reader = reader(&self.reading);
        each_row(rows, tally, |row| reader.examples(row))
    }

    fn loss(&self, policy: &Policy, examples: &[Example], scale: f32, training: Option<Training>) -> Loss {
        next_tokens(policy, examples, scale, self.options, training)
    }
}
