//! Keeps the smallest set of tokens that has a given probability: the nucleus.

use super::{Chance, Draft, Past, Stage, Step};
use rhetor_catalog::{About, Opt, Source};
use rhetor_lm::Sampling;

/// The step `top-p`.
#[derive(Debug)]
pub struct TopP;

const ABOUT: About = About {
    name: "top-p",
    summary: "Keeps the smallest set of most likely tokens whose probability reaches p, at least one",
    source: Source::Paper {
        title: "The Curious Case of Neural Text Degeneration",
        id: "arXiv:1904.09751",
        section: "§3.1",
    },
    options: &[Opt { name: "top-p", summary: "the mass kept; 1 = all", default: 1.0, range: (0.0, 1.0) }],
};

impl Step for TopP {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn stage(&self) -> Stage {
        Stage::Shape
    }

    fn values(&self, sampling: &Sampling) -> Vec<f64> {
        vec![f64::from(sampling.top_p)]
    }

    fn is_on(&self, sampling: &Sampling) -> bool {
        sampling.top_p < 1.0 && sampling.mirostat_tau == 0.0
    }

    fn apply(&self, draft: &mut Draft<'_>, sampling: &Sampling, _past: &Past<'_>, _chance: &mut Chance) {
        let (max, sum) = draft.partition();
        draft.keep_mass(f64::from(sampling.top_p) * sum, max);
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampler::tests::survivors;
    use super::*;

    #[test]
    fn the_smallest_set_that_reaches_p_stays() {
        let p = [0.1, 0.4, 0.2, 0.3];
        let keep = |top_p| survivors(&Sampling { temperature: 1.0, top_p, ..Sampling::default() }, &p);
        assert_eq!(keep(0.0), [1]);
        assert_eq!(keep(0.39), [1]);
        assert_eq!(keep(0.41), [1, 3]);
        assert_eq!(keep(0.85), [1, 2, 3]);
        assert_eq!(keep(0.95), [0, 1, 2, 3]);
    }

    #[test]
    fn top_k_comes_first_and_top_p_sees_what_it_left() {
        // After top-k 2 the two tokens have 4/7 and 3/7: the first alone reaches 0.5.
        let sampling = Sampling { temperature: 1.0, top_k: 2, top_p: 0.5, ..Sampling::default() };
        assert_eq!(survivors(&sampling, &[0.1, 0.4, 0.2, 0.3]), [1]);
    }

    #[test]
    fn a_flat_distribution_over_many_tokens_is_cut_at_its_share() {
        let sampling = Sampling { temperature: 1.0, top_p: 0.2501, ..Sampling::default() };
        assert_eq!(survivors(&sampling, &[1.0 / 4000.0; 4000]), (0..1001).collect::<Vec<u32>>());
    }
}
