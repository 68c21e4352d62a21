//! Keeps the tokens whose surprise is closest to what the distribution lets expect.

use super::draft::{reach, weight};
use super::{Chance, Draft, Past, Stage, Step};
use rhetor_catalog::{About, Opt, Source};
use rhetor_lm::Sampling;

/// The step `typical`.
#[derive(Debug)]
pub struct Typical;

const ABOUT: About = About {
    name: "typical",
    summary: "Keeps the tokens whose surprise is closest to the entropy, up to a mass",
    source: Source::Paper {
        title: "Locally Typical Sampling", id: "arXiv:2202.00666", section: "§3, eq. 9"
    },
    options: &[Opt { name: "typical-p", summary: "the mass kept; 1 = all", default: 1.0, range: (0.0, 1.0) }],
};

impl Step for Typical {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn stage(&self) -> Stage {
        Stage::Shape
    }

    fn values(&self, sampling: &Sampling) -> Vec<f64> {
        vec![f64::from(sampling.typical_p)]
    }

    fn is_on(&self, sampling: &Sampling) -> bool {
        sampling.typical_p < 1.0 && sampling.mirostat_tau == 0.0
    }

    fn apply(&self, draft: &mut Draft<'_>, sampling: &Sampling, _past: &Past<'_>, _chance: &mut Chance) {
        let (max, sum) = draft.partition();
        let surprise = |logit: f32| sum.ln() - f64::from(logit - max);
        let candidates = draft.candidates();
        let entropy: f64 = candidates.iter().map(|c| weight(c.logit, max) / sum * surprise(c.logit)).sum();
        let mut by_deviation: Vec<(f64, u32, f64)> = candidates
            .iter()
            .map(|c| ((surprise(c.logit) - entropy).abs(), c.id, weight(c.logit, max) / sum))
            .collect();
        let order = |a: &(f64, u32, f64), b: &(f64, u32, f64)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        let n = reach(&mut by_deviation, f64::from(sampling.typical_p), order, |c| c.2).max(1);
        by_deviation.truncate(n);
        by_deviation.sort_unstable_by_key(|c| c.1);
        draft.retain(|c| by_deviation.binary_search_by_key(&c.id, |kept| kept.1).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampler::tests::survivors;
    use super::*;

    #[test]
    fn tokens_of_typical_surprise_stay_even_if_the_most_likely_goes() {
        // Entropy = 1.2799 nats; surprises 0.6931, 1.6094, 1.6094, 2.3026: the two of 0.2 are closest (0.33),
        // then 0.5 (0.59), then 0.1.
        let p = [0.5, 0.2, 0.2, 0.1];
        let keep =
            |typical_p| survivors(&Sampling { temperature: 1.0, typical_p, ..Sampling::default() }, &p);
        assert_eq!(keep(0.15), [1]);
        assert_eq!(keep(0.3), [1, 2]);
        assert_eq!(keep(0.6), [0, 1, 2]);
        assert_eq!(keep(0.95), [0, 1, 2, 3]);
    }
}
