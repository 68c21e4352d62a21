//! Fill in the middle: causal language modelling of documents whose middle was moved to their end.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_generate::Rng;
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_models::Training;

use super::{Objective, Reading, documents, next_tokens, tokens_of};
use crate::data::Row;
use crate::error::Error;
use crate::example::{Example, Sequence, Tally};
use crate::examples::fill_in_the_middle::{FillInTheMiddle, Layout};
use crate::policy::{Loss, Policy};

pub(super) const ABOUT: About = About {
    name: "fill-in-the-middle",
    summary: "predict documents whose middle was moved to their end, in the layout of the vocabulary's own markers",
    source: Source::Paper {
        title: "Efficient Training of Language Models to Fill in the Middle",
        id: "arXiv:2207.14255",
        section: "section 3",
    },
    options: &[
        Opt { name: "rate", summary: "documents that are rearranged", default: 0.5, range: (0.0, 1.0) },
        Opt {
            name: "spm-rate",
            summary: "of those, how many have the suffix first",
            default: 0.5,
            range: (0.0, 1.0),
        },
        Opt {
            name: "holes",
            summary: "middles of a document at most, for vocabularies with <mask_1> and on (CodeGen2.5)",
            default: 1.0,
            range: (1.0, 99.0),
        },
    ],
};

struct Middle {
    fim: FillInTheMiddle,
    reading: Reading,
}

pub(super) fn build(values: &Values, reading: Reading) -> Result<Box<dyn Objective>, Error> {
    let layout = match Layout::markers(&reading.tokenizer) {
        Ok(markers) => markers,
        Err(no_markers) => {
            Layout::masks(&reading.tokenizer, values.get("holes") as usize).map_err(|_| no_markers)?
        }
    };
    let fim = FillInTheMiddle { layout, rate: values.get("rate"), spm_rate: values.get("spm-rate") };
    Ok(Box::new(Middle { fim, reading }))
}

impl Objective for Middle {
    fn examples(&self, rows: &[Row], tally: &mut Tally) -> Vec<Example> {
        documents(rows, &self.reading, tally)
    }

    fn draw(&self, example: Example, rng: &mut Rng) -> Example {
        let mut tokens = self.fim.corrupt_tokens(&tokens_of(&example), &self.reading.tokenizer, rng);
        tokens.extend(self.reading.tokenizer.eos());
        tokens.truncate(self.reading.max_len + 1);
        Example::of(Sequence::next_token(&tokens))
    }

    fn loss(&self, policy: &Policy, examples: &[Example], scale: f32, training: Option<Training>) -> Loss {
        next_tokens(policy, examples, scale, CrossEntropy::default(), training)
    }
}
