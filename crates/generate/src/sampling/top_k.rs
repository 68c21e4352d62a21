//! Keeps the k most likely tokens.

use super::{Chance, Draft, Past, Stage, Step};
use rhetor_catalog::{About, Opt, Source};
use rhetor_lm::Sampling;

/// The step `top-k`.
#[derive(Debug)]
pub struct TopK;

const ABOUT: About = About {
    name: "top-k",
    summary: "Keeps the k most likely tokens",
    source: Source::Paper {
        title: "Hierarchical Neural Story Generation",
        id: "arXiv:1805.04833",
        section: "§5.4",
    },
    options: &[Opt {
        name: "top-k",
        summary: "how many tokens are kept; 0 = all",
        default: 0.0,
        range: (0.0, u32::MAX as f64),
    }],
};

impl Step for TopK {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn stage(&self) -> Stage {
        Stage::Shape
    }

    fn values(&self, sampling: &Sampling) -> Vec<f64> {
        vec![sampling.top_k as f64]
    }

    fn is_on(&self, sampling: &Sampling) -> bool {
        sampling.top_k > 0 && sampling.mirostat_tau == 0.0
    }

    fn apply(&self, draft: &mut Draft<'_>, sampling: &Sampling, _past: &Past<'_>, _chance: &mut Chance) {
        draft.keep_top(sampling.top_k);
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampler::tests::survivors;
    use super::*;

    #[test]
    fn the_k_most_likely_stay() {
        let p = [0.1, 0.4, 0.2, 0.3];
        let keep = |top_k| survivors(&Sampling { temperature: 1.0, top_k, ..Sampling::default() }, &p);
        assert_eq!(keep(1), [1]);
        assert_eq!(keep(2), [1, 3]);
        assert_eq!(keep(0), [0, 1, 2, 3]);
        assert_eq!(keep(9), [0, 1, 2, 3]);
    }
}
