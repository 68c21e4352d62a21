//! Prefix language modelling: the rest of a text from a beginning that is seen from both sides.

use rhetor_catalog::{About, Source, Values};
use rhetor_generate::Rng;
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_models::Training;

use super::{Objective, Reading, documents, next_tokens, tokens_of};
use crate::data::Row;
use crate::error::Error;
use crate::example::{Example, Tally};
use crate::examples::prefix_lm;
use crate::policy::{Loss, Policy};

pub(super) const ABOUT: About = About {
    name: "prefix-lm",
    summary: "predict the rest of a text from a beginning whose tokens see each other",
    source: Source::Paper { title: "T5", id: "arXiv:1910.10683", section: "section 3.2.1" },
    options: &[],
};

struct PrefixLm(Reading);

pub(super) fn build(_: &Values, reading: Reading) -> Result<Box<dyn Objective>, Error> {
    Ok(Box::new(PrefixLm(reading)))
}

impl Objective for PrefixLm {
    fn examples(&self, rows: &[Row], tally: &mut Tally) -> Vec<Example> {
        documents(rows, &self.0, tally)
    }

    fn draw(&self, example: Example, rng: &mut Rng) -> Example {
        let tokens = tokens_of(&example);
        match self.0.decoder_start {
            Some(start) => prefix_lm::encoder_decoder(&tokens, start, rng),
            None => prefix_lm::corrupt(&tokens, rng),
        }
    }

    fn loss(&self, policy: &Policy, examples: &[Example], scale: f32, training: Option<Training>) -> Loss {
        next_tokens(policy, examples, scale, CrossEntropy::default(), training)
    }
}
