//! Makes tokens that were seen less likely, by a factor.

use super::{Chance, Draft, Past, Stage, Step};
use rhetor_catalog::{About, Opt, Source};
use rhetor_lm::Sampling;

/// The step `repetition-penalty`.
#[derive(Debug)]
pub struct Repetition;

const ABOUT: About = About {
    name: "repetition-penalty",
    summary: "Divides positive and multiplies negative logits of tokens seen in prompt or answer",
    source: Source::Paper {
        title: "CTRL: A Conditional Transformer Language Model for Controllable Generation",
        id: "arXiv:1909.05858",
        section: "§4.1; negative logits multiplied as in Hugging Face transformers",
    },
    options: &[
        Opt {
            name: "repetition-penalty",
            summary: "the factor; 1 = off",
            default: 1.0,
            range: (0.01, 100.0),
        },
        Opt {
            name: "penalty-last-n",
            summary: "how many of the last tokens count; 0 = all",
            default: 0.0,
            range: (0.0, u32::MAX as f64),
        },
    ],
};

impl Step for Repetition {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn stage(&self) -> Stage {
        Stage::Edit
    }

    fn values(&self, sampling: &Sampling) -> Vec<f64> {
        vec![f64::from(sampling.repetition_penalty), sampling.penalty_last_n as f64]
    }

    fn is_on(&self, sampling: &Sampling) -> bool {
        sampling.repetition_penalty != 1.0
    }

    fn apply(&self, draft: &mut Draft<'_>, sampling: &Sampling, past: &Past<'_>, _chance: &mut Chance) {
        let penalty = sampling.repetition_penalty;
        draft.edit_each(past.last(sampling.penalty_last_n), |logit, is_first| {
            if is_first {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampler::tests::edited;
    use super::*;

    #[test]
    fn seen_tokens_are_penalised_once_prompt_included() {
        let past = Past { tokens: &[0, 1, 1, 2], n_prompt: 1, breakers: &[] };
        let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        assert_eq!(edited(&sampling, &[4.0, -1.0, 0.0, 4.0], &past), [2.0, -2.0, 0.0, 4.0]);
        let sampling = Sampling { penalty_last_n: 2, ..sampling };
        assert_eq!(edited(&sampling, &[4.0, -1.0, 8.0, 4.0], &past), [4.0, -2.0, 4.0, 4.0]);
    }
}
