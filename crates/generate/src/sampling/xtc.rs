//! XTC ("exclude top choices"): now and then removes the most likely tokens, where several are likely enough.

use super::draft::weight;
use super::{Chance, Draft, Past, Stage, Step};
use rhetor_catalog::{About, Opt, Source};
use rhetor_lm::Sampling;

/// The step `xtc`.
#[derive(Debug)]
pub struct Xtc;

const ABOUT: About = About {
    name: "xtc",
    summary: "By chance removes all tokens above a threshold but the least likely of them",
    source: Source::Project("text-generation-webui, pull request 6335"),
    options: &[
        Opt {
            name: "xtc-probability",
            summary: "the chance at each token; 0 = off",
            default: 0.0,
            range: (0.0, 1.0),
        },
        Opt {
            name: "xtc-threshold",
            summary: "the probability from which a token is a top choice",
            default: 0.1,
            range: (0.0, 0.5),
        },
    ],
};

impl Step for Xtc {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn stage(&self) -> Stage {
        Stage::Shape
    }

    fn values(&self, sampling: &Sampling) -> Vec<f64> {
        vec![f64::from(sampling.xtc_probability), f64::from(sampling.xtc_threshold)]
    }

    fn is_on(&self, sampling: &Sampling) -> bool {
        sampling.xtc_probability > 0.0 && sampling.mirostat_tau == 0.0
    }

    fn apply(&self, draft: &mut Draft<'_>, sampling: &Sampling, _past: &Past<'_>, chance: &mut Chance) {
        // Drawn at every token, so that the stream of random numbers does not depend on the distribution.
        if chance.rng.uniform() >= f64::from(sampling.xtc_probability) {
            return;
        }
        let (max, sum) = draft.partition();
        let least = f64::from(sampling.xtc_threshold) * sum;
        let n_top = draft.candidates().iter().filter(|c| weight(c.logit, max) >= least).count();
        if n_top < 2 {
            return;
        }
        let last = draft.sort_front(n_top)[n_top - 1];
        draft.retain(|c| c.id == last.id || weight(c.logit, max) < least);
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampler::tests::survivors;
    use super::*;

    #[test]
    fn of_the_top_choices_the_least_likely_stays() {
        let p = [0.1, 0.4, 0.2, 0.3];
        let keep = |xtc_probability, xtc_threshold| {
            survivors(
                &Sampling { temperature: 1.0, xtc_probability, xtc_threshold, ..Sampling::default() },
                &p,
            )
        };
        assert_eq!(keep(1.0, 0.15), [0, 2]);
        assert_eq!(keep(1.0, 0.25), [0, 2, 3]);
        assert_eq!(keep(1.0, 0.35), [0, 1, 2, 3], "a single top choice stays");
        assert_eq!(keep(1.0, 0.0), [0], "at threshold 0 all are top choices");
    }
}
