//! Causal language modelling: every token from those before it.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_models::Training;

use super::{Objective, Reading, documents, next_tokens};
use crate::data::Row;
use crate::error::Error;
use crate::example::{Example, Tally};
use crate::policy::{Loss, Policy};

pub(super) const SMOOTHING: Opt = Opt {
    name: "label-smoothing",
    summary: "part of a target's weight that goes to all tokens alike (arXiv:1706.03762, section 5.4)",
    default: 0.0,
    range: (0.0, 0.999),
};
pub(super) const Z_LOSS: Opt = Opt {
    name: "z-loss",
    summary: "factor of the squared logarithm of the normaliser (arXiv:2204.02311, section 5)",
    default: 0.0,
    range: (0.0, 1.0),
};

pub(super) const ABOUT: About = About {
    name: "causal-lm",
    summary: "predict every token from those before it: pre-training, and going on with it",
    source: Source::Paper {
        title: "Improving Language Understanding by Generative Pre-Training",
        id: "OpenAI 2018",
        section: "eq. 1",
    },
    options: &[SMOOTHING, Z_LOSS],
};

struct CausalLm {
    options: CrossEntropy,
    reading: Reading,
}

/// The options of the cross-entropy.
pub(super) fn cross_entropy(values: &Values) -> CrossEntropy {
    let (smoothing, z_loss) = (values.get("label-smoothing") as f32, values.get("z-loss") as f32);
    CrossEntropy { smoothing, z_loss }
}

pub(super) fn build(values: &Values, reading: Reading) -> Result<Box<dyn Objective>, Error> {
    Ok(Box::new(CausalLm { options: cross_entropy(values), reading }))
}

impl Objective for CausalLm {
    fn examples(&self, rows: &[Row], tally: &mut Tally) -> Vec<Example> {
        documents(rows, &self.reading, tally)
    }

    fn loss(&self, policy: &Policy, examples: &[Example], scale: f32, training: Option<Training>) -> Loss {
        next_tokens(policy, examples, scale, self.options, training)
    }
}
