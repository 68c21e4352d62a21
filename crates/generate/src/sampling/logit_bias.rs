//! Adds a number to the logit of chosen tokens.

use super::{Chance, Draft, Past, Stage, Step};
use rhetor_catalog::{About, Source};
use rhetor_lm::{Error, Sampling};

/// The step `logit-bias`.
#[derive(Debug)]
pub struct LogitBias;

const ABOUT: About = About {
    name: "logit-bias",
    summary: "Adds a number to the logit of given tokens; −∞ forbids a token",
    source: Source::Project("OpenAI API, logit_bias"),
    options: &[],
};

impl Step for LogitBias {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn stage(&self) -> Stage {
        Stage::Edit
    }

    fn values(&self, _sampling: &Sampling) -> Vec<f64> {
        Vec::new()
    }

    fn is_on(&self, sampling: &Sampling) -> bool {
        !sampling.logit_bias.is_empty()
    }

    fn check(&self, sampling: &Sampling, n_tokens: usize) -> Result<(), Error> {
        for &(id, bias) in &sampling.logit_bias {
            let reason = if id as usize >= n_tokens {
                format!("token {id} is beyond the {n_tokens} tokens of the vocabulary")
            } else if bias.is_nan() || bias == f32::INFINITY {
                format!("{bias} for token {id} is no number that can be added")
            } else {
                continue;
            };
            return Err(Error::InvalidOption { option: "logit-bias", reason });
        }
        Ok(())
    }

    fn apply(&self, draft: &mut Draft<'_>, sampling: &Sampling, _past: &Past<'_>, _chance: &mut Chance) {
        let logits = draft.edit();
        for &(id, bias) in &sampling.logit_bias {
            logits[id as usize] += bias;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampler::tests::edited;
    use super::*;

    #[test]
    fn biases_are_added_and_add_up() {
        let sampling = Sampling { logit_bias: vec![(0, 1.5), (2, -1.0), (0, 1.0)], ..Sampling::default() };
        let past = Past { tokens: &[], n_prompt: 0, breakers: &[] };
        assert_eq!(edited(&sampling, &[1.0, 2.0, 3.0], &past), [3.5, 2.0, 2.0]);
    }
}
