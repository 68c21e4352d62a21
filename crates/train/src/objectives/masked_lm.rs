//! Masked language modelling: hidden tokens from all others.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_generate::Rng;
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_models::Training;

use super::{Objective, Reading, documents, next_tokens, tokens_of};
use crate::data::Row;
use crate::error::Error;
use crate::example::{Example, Tally};
use crate::examples::masked_lm::{MaskUnit, Masking, MaskingOptions};
use crate::policy::{Loss, Policy};

pub(super) const ABOUT: About = About {
    name: "masked-lm",
    summary: "predict hidden tokens from those on both sides",
    source: Source::Paper { title: "BERT", id: "arXiv:1810.04805", section: "section 3.1, task 1" },
    options: &[
        Opt { name: "share", summary: "tokens that are hidden", default: 0.15, range: (0.001, 0.9) },
        Opt {
            name: "whole-word",
            summary: "1 = hide all pieces of a word together",
            default: 0.0,
            range: (0.0, 1.0),
        },
        Opt {
            name: "n-gram",
            summary: "words hidden in a row at most (ALBERT, arXiv:1909.11942, eq. 1); 0 = off",
            default: 0.0,
            range: (0.0, 10.0),
        },
    ],
};

struct MaskedLm {
    masking: Masking,
    reading: Reading,
}

pub(super) fn build(values: &Values, reading: Reading) -> Result<Box<dyn Objective>, Error> {
    let unit = match (values.get("n-gram") as usize, values.is_on("whole-word")) {
        (0, false) => MaskUnit::Token,
        (0, true) => MaskUnit::WholeWord,
        (n, _) => MaskUnit::NGram(n),
    };
    let options = MaskingOptions { share: values.get("share"), unit, ..MaskingOptions::default() };
    Ok(Box::new(MaskedLm { masking: Masking::new(&reading.tokenizer, options)?, reading }))
}

impl Objective for MaskedLm {
    fn examples(&self, rows: &[Row], tally: &mut Tally) -> Vec<Example> {
        documents(rows, &self.reading, tally)
    }

    fn draw(&self, example: Example, rng: &mut Rng) -> Example {
        let mut tokens = tokens_of(&example);
        // The last token of a window is a target of those who predict the next one: here every token takes a row.
        tokens.truncate(self.reading.max_len);
        self.masking.corrupt(&tokens, None, rng)
    }

    fn loss(&self, policy: &Policy, examples: &[Example], scale: f32, training: Option<Training>) -> Loss {
        next_tokens(policy, examples, scale, CrossEntropy::default(), training)
    }
}
