//! Mirostat 2: holds the surprise of the text at a target by feedback.

use super::draft::weight;
use super::{Chance, Draft, Past, Stage, Step};
use rhetor_catalog::{About, Opt, Source};
use rhetor_lm::Sampling;

/// The step `mirostat`.
#[derive(Debug)]
pub struct Mirostat;

const ABOUT: About = About {
    name: "mirostat",
    summary: "Drops tokens more surprising than a bound that follows a target; replaces the truncating steps",
    source: Source::Paper {
        title: "Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity",
        id: "arXiv:2007.14966",
        section: "Algorithm 2",
    },
    options: &[
        Opt {
            name: "mirostat-tau",
            summary: "target surprise in bits; 0 = off",
            default: 0.0,
            range: (0.0, 20.0),
        },
        Opt { name: "mirostat-eta", summary: "learning rate", default: 0.1, range: (0.0, 1.0) },
    ],
};

impl Step for Mirostat {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn stage(&self) -> Stage {
        Stage::Shape
    }

    fn values(&self, sampling: &Sampling) -> Vec<f64> {
        vec![f64::from(sampling.mirostat_tau), f64::from(sampling.mirostat_eta)]
    }

    fn is_on(&self, sampling: &Sampling) -> bool {
        sampling.mirostat_tau > 0.0
    }

    fn apply(&self, draft: &mut Draft<'_>, _sampling: &Sampling, _past: &Past<'_>, chance: &mut Chance) {
        let (max, sum) = draft.partition();
        // −log2 p ≤ μ is p ≥ 2^−μ; the most likely token always stays.
        let least = (-chance.mirostat_mu).exp2() * sum;
        draft.retain(|c| weight(c.logit, max) >= least.min(1.0));
    }

    fn observe(&self, probability: f64, sampling: &Sampling, chance: &mut Chance) {
        let surprise = -probability.log2();
        chance.mirostat_mu -=
            f64::from(sampling.mirostat_eta) * (surprise - f64::from(sampling.mirostat_tau));
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampler::tests::{logits, survivors};
    use super::super::{Sampler, Scratch};
    use super::*;
    use std::sync::Arc;

    fn sampling(tau: f32) -> Sampling {
        Sampling { temperature: 1.0, mirostat_tau: tau, ..Sampling::default() }
    }

    #[test]
    fn the_first_bound_is_twice_the_target() {
        // τ = 1: tokens of at most 2 bits stay, probability 1/4 or more.
        assert_eq!(survivors(&sampling(1.0), &[0.5, 0.3, 0.15, 0.05]), [0, 1]);
        assert_eq!(survivors(&sampling(0.01), &[0.5, 0.3, 0.15, 0.05]), [0], "one token always stays");
    }

    #[test]
    fn the_mean_surprise_among_the_candidates_is_the_target() {
        let p: Vec<f32> = (1..=200).map(|rank| 1.0 / rank as f32).collect();
        let logits = logits(&p);
        for tau in [2.0, 3.0, 4.0] {
            let mut sampler = Sampler::new(Arc::new(sampling(tau)), 5, 0);
            let mut scratch = Scratch::default();
            let past = Past { tokens: &[], n_prompt: 0, breakers: &[] };
            for _ in 0..4000 {
                sampler.next(&logits, &past, &mut scratch).unwrap();
            }
            // μ falls by η for each bit above the target: that it stays bounded means that the target is met.
            let drift = (2.0 * f64::from(tau) - sampler.chance.mirostat_mu) / 0.1 / 4000.0;
            assert!(drift.abs() < 0.05, "τ = {tau}: {drift} bits off");
        }
    }
}
