//! Drops tokens that are unlikely compared with the most likely one.

use super::{Chance, Draft, Past, Stage, Step};
use rhetor_catalog::{About, Opt, Source};
use rhetor_lm::Sampling;

/// The step `min-p`.
#[derive(Debug)]
pub struct MinP;

const ABOUT: About = About {
    name: "min-p",
    summary: "Drops tokens less likely than a share of the most likely one",
    source: Source::Paper {
        title: "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs",
        id: "arXiv:2407.01082",
        section: "§3",
    },
    options: &[Opt {
        name: "min-p",
        summary: "the share; 0 = none dropped",
        default: 0.0,
        range: (0.0, 1.0),
    }],
};

impl Step for MinP {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn stage(&self) -> Stage {
        Stage::Shape
    }

    fn values(&self, sampling: &Sampling) -> Vec<f64> {
        vec![f64::from(sampling.min_p)]
    }

    fn is_on(&self, sampling: &Sampling) -> bool {
        sampling.min_p > 0.0 && sampling.mirostat_tau == 0.0
    }

    fn apply(&self, draft: &mut Draft<'_>, sampling: &Sampling, _past: &Past<'_>, _chance: &mut Chance) {
        // p ≥ min_p · p_max is a bound on the logits; no probability needs to be computed.
        let max = draft.candidates().iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        let least = max + sampling.min_p.ln();
        draft.retain(|c| c.logit >= least);
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampler::tests::survivors;
    use super::*;

    #[test]
    fn tokens_below_the_share_of_the_most_likely_go() {
        let p = [0.1, 0.4, 0.2, 0.3];
        let keep = |min_p| survivors(&Sampling { temperature: 1.0, min_p, ..Sampling::default() }, &p);
        assert_eq!(keep(1.0), [1]);
        assert_eq!(keep(0.6), [1, 3]);
        assert_eq!(keep(0.45), [1, 2, 3]);
        assert_eq!(keep(0.2), [0, 1, 2, 3]);
    }
}
