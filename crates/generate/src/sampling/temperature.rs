//! Sharpens or flattens the distribution.

use super::{Chance, Draft, Past, Stage, Step};
use rhetor_catalog::{About, Opt, Source};
use rhetor_lm::Sampling;

/// The step `temperature`.
#[derive(Debug)]
pub struct Temperature;

const ABOUT: About = About {
    name: "temperature",
    summary: "Divides the logits: below 1 sharpens, above 1 flattens; 0 takes the most likely token",
    source: Source::Paper {
        title: "A Learning Algorithm for Boltzmann Machines",
        id: "doi:10.1207/s15516709cog0901_7",
        section: "eq. 5",
    },
    options: &[Opt {
        name: "temperature",
        summary: "the divisor; 0 = greedy",
        default: 0.0,
        range: (0.0, 100.0),
    }],
};

impl Step for Temperature {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn stage(&self) -> Stage {
        Stage::Shape
    }

    fn values(&self, sampling: &Sampling) -> Vec<f64> {
        vec![f64::from(sampling.temperature)]
    }

    fn is_on(&self, sampling: &Sampling) -> bool {
        sampling.temperature != 0.0 && sampling.temperature != 1.0
    }

    fn apply(&self, draft: &mut Draft<'_>, sampling: &Sampling, _past: &Past<'_>, _chance: &mut Chance) {
        // Measured from the greatest logit, so that a temperature near 0 cannot overflow.
        let candidates = draft.candidates();
        let max = candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        for candidate in candidates {
            candidate.logit = (candidate.logit - max) / sampling.temperature;
        }
        draft.retain(|c| c.logit > f32::NEG_INFINITY);
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampler::tests::survivors;
    use super::*;

    #[test]
    fn a_temperature_near_zero_leaves_only_the_most_likely_and_overflows_nothing() {
        let sampling = Sampling { temperature: 1e-40, ..Sampling::default() };
        assert_eq!(survivors(&sampling, &[0.1, 0.6, 0.3]), [1]);
    }
}
