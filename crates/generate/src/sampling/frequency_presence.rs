//! Makes tokens that were generated less likely, by a difference.

use super::{Chance, Draft, Past, Stage, Step};
use rhetor_catalog::{About, Opt, Source};
use rhetor_lm::Sampling;

/// The step `frequency-presence`.
#[derive(Debug)]
pub struct FrequencyPresence;

const ABOUT: About = About {
    name: "frequency-presence",
    summary: "Subtracts a penalty once per occurrence and one for being there at all, for generated tokens",
    source: Source::Project("OpenAI API, frequency_penalty and presence_penalty"),
    options: &[
        Opt {
            name: "frequency-penalty",
            summary: "subtracted once per occurrence in the answer",
            default: 0.0,
            range: (-2.0, 2.0),
        },
        Opt {
            name: "presence-penalty",
            summary: "subtracted once if the token is in the answer",
            default: 0.0,
            range: (-2.0, 2.0),
        },
    ],
};

impl Step for FrequencyPresence {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn stage(&self) -> Stage {
        Stage::Edit
    }

    fn values(&self, sampling: &Sampling) -> Vec<f64> {
        vec![f64::from(sampling.frequency_penalty), f64::from(sampling.presence_penalty)]
    }

    fn is_on(&self, sampling: &Sampling) -> bool {
        sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0
    }

    fn apply(&self, draft: &mut Draft<'_>, sampling: &Sampling, past: &Past<'_>, _chance: &mut Chance) {
        draft.edit_each(past.generated(), |logit, is_first| {
            *logit -= sampling.frequency_penalty;
            if is_first {
                *logit -= sampling.presence_penalty;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampler::tests::edited;
    use super::*;

    #[test]
    fn frequency_counts_occurrences_and_presence_counts_once_both_without_the_prompt() {
        let past = Past { tokens: &[0, 0, 1, 2, 2], n_prompt: 2, breakers: &[] };
        let sampling = Sampling { frequency_penalty: 0.5, ..Sampling::default() };
        assert_eq!(edited(&sampling, &[1.0; 4], &past), [1.0, 0.5, 0.0, 1.0]);
        let sampling = Sampling { presence_penalty: 0.25, ..Sampling::default() };
        assert_eq!(edited(&sampling, &[1.0; 4], &past), [1.0, 0.75, 0.75, 1.0]);
    }
}
