//! Learning from preferences without a reward model: DPO and its kin, which differ in one function of log-likelihoods.
//!
//! π is the log-likelihood of an answer under the model that learns, ρ under the reference; c is the chosen answer, r the
//! rejected one, h = (π_c − ρ_c) − (π_r − ρ_r) what the model has learnt to prefer.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_models::Training;
use rhetor_tensor::ops::segments;

use super::{Objective, Reading, Reference, each_row, sequences, sft};
use crate::data::Row;
use crate::error::Error;
use crate::example::{Example, Label, Sequence, Tally};
use crate::examples::preference::Preferences;
use crate::policy::{Loss, Policy};

const BETA: Opt = Opt {
    name: "beta",
    summary: "how strongly the model is held to the reference",
    default: 0.1,
    range: (1e-6, 100.0),
};

pub(super) const DPO: About = About {
    name: "dpo",
    summary: "prefer chosen over rejected answers: −log σ(βh)",
    source: Source::Paper {
        title: "Direct Preference Optimization",
        id: "arXiv:2305.18290",
        section: "eq. 7",
    },
    options: &[
        BETA,
        Opt {
            name: "label-smoothing",
            summary: "share of preferences that are wrong (cDPO)",
            default: 0.0,
            range: (0.0, 0.5),
        },
    ],
};
pub(super) const IPO: About = About {
    name: "ipo",
    summary: "bring the preference per token to a margin: (h − 1/2β)²",
    source: Source::Paper {
        title: "A General Theoretical Paradigm to Understand Learning from Human Preferences",
        id: "arXiv:2310.12036",
        section: "eq. 17",
    },
    options: &[BETA],
};
pub(super) const KTO: About = About {
    name: "kto",
    summary: "write desirable answers more and others less often: 1 − σ(±β(π − ρ − z))",
    source: Source::Paper { title: "KTO", id: "arXiv:2402.01306", section: "eq. 8" },
    options: &[
        BETA,
        Opt { name: "desirable", summary: "weight of desirable answers", default: 1.0, range: (0.0, 100.0) },
        Opt {
            name: "undesirable",
            summary: "weight of undesirable answers",
            default: 1.0,
            range: (0.0, 100.0),
        },
    ],
};
pub(super) const ORPO: About = About {
    name: "orpo",
    summary: "learn chosen answers, and their odds against rejected ones; no reference",
    source: Source::Paper { title: "ORPO", id: "arXiv:2403.07691", section: "eq. 6 and 7" },
    options: &[Opt { name: "lambda", summary: "weight of the odds", default: 0.1, range: (0.0, 100.0) }],
};
pub(super) const SIMPO: About = About {
    name: "simpo",
    summary: "prefer chosen answers per token by a margin: −log σ(β(π_c/|c| − π_r/|r|) − γ); no reference",
    source: Source::Paper { title: "SimPO", id: "arXiv:2405.14734", section: "eq. 6" },
    options: &[
        Opt { default: 2.0, ..BETA },
        Opt { name: "gamma", summary: "the margin", default: 1.0, range: (0.0, 100.0) },
    ],
};

/// The function that sets a method apart.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Dpo { beta: f64, smoothing: f64 },
    Ipo { beta: f64 },
    Kto { beta: f64, desirable: f64, undesirable: f64 },
    Orpo { lambda: f64 },
    SimPo { beta: f64, gamma: f64 },
}

struct Preference {
    kind: Kind,
    reading: Reading,
}

type Built = Result<Box<dyn Objective>, Error>;

pub(super) fn dpo(values: &Values, reading: Reading) -> Built {
    let kind = Kind::Dpo { beta: values.get("beta"), smoothing: values.get("label-smoothing") };
    Ok(Box::new(Preference { kind, reading }))
}

pub(super) fn ipo(values: &Values, reading: Reading) -> Built {
    Ok(Box::new(Preference { kind: Kind::Ipo { beta: values.get("beta") }, reading }))
}

pub(super) fn kto(values: &Values, reading: Reading) -> Built {
    let (desirable, undesirable) = (values.get("desirable"), values.get("undesirable"));
    let kind = Kind::Kto { beta: values.get("beta"), desirable, undesirable };
    Ok(Box::new(Preference { kind, reading }))
}

pub(super) fn orpo(values: &Values, reading: Reading) -> Built {
    Ok(Box::new(Preference { kind: Kind::Orpo { lambda: values.get("lambda") }, reading }))
}

pub(super) fn simpo(values: &Values, reading: Reading) -> Built {
    let kind = Kind::SimPo { beta: values.get("beta"), gamma: values.get("gamma") };
    Ok(Box::new(Preference { kind, reading }))
}

impl Objective for Preference {
    fn examples(&self, rows: &[Row], tally: &mut Tally) -> Vec<Example> {
        let reader = Preferences { sft: sft::reader(&self.reading), max_len: self.reading.max_len };
        let examples = each_row(rows, tally, |row| reader.examples(row));
        if !matches!(self.kind, Kind::Kto { .. }) {
            return examples;
        }
        // A preference is two answers, one desirable and one not.
        let rated = |sequence: Sequence, is_desirable| Example {
            sequences: vec![sequence],
            label: Label::Desirable(is_desirable),
        };
        let split = |example: Example| match <[Sequence; 2]>::try_from(example.sequences) {
            Ok([chosen, rejected]) => vec![rated(chosen, true), rated(rejected, false)],
            Err(sequences) => vec![Example { sequences, label: example.label }],
        };
        examples.into_iter().flat_map(split).collect()
    }

    fn weight(&self, _: &Example) -> f64 {
        1.0
    }

    fn reference(&self) -> Reference {
        match self.kind {
            Kind::Orpo { .. } | Kind::SimPo { .. } => Reference::None,
            _ => Reference::Before,
        }
    }

    fn loss(&self, policy: &Policy, examples: &[Example], scale: f32, training: Option<Training>) -> Loss {
        let lens: Vec<f64> = sequences(examples).map(|sequence| sequence.n_targets() as f64).collect();
        let reference = match self.reference() {
            Reference::None => vec![0.0; lens.len()],
            _ => policy.reference_log_likelihoods(sequences(examples)).data().to_vec(),
        };
        let learnt = policy.log_likelihoods(sequences(examples), training); // [answers]
        let desirable: Vec<bool> =
            examples.iter().map(|example| example.label != Label::Desirable(false)).collect();
        let (mut sum, mut margin, mut n_right) = (0.0, 0.0, 0.0);
        let total = segments::function(&learnt, |learnt, slopes| {
            let ratios: Vec<f64> =
                learnt.iter().zip(&reference).map(|(&p, &r)| f64::from(p) - f64::from(r)).collect();
            let outcome = self.kind.loss(&ratios, &lens, &desirable);
            (sum, margin, n_right) = (outcome.sum, outcome.margin, outcome.n_right);
            for (slope, &exact) in slopes.iter_mut().zip(&outcome.slopes) {
                *slope = (exact * f64::from(scale)) as f32;
            }
            (outcome.sum * f64::from(scale)) as f32
        });
        Loss { total, sum, metrics: vec![("margin", margin), ("accuracy", n_right)] }
    }
}

/// The loss of some answers.
struct Outcome {
    sum: f64,
    /// Derivative of the sum by each answer's π.
    slopes: Vec<f64>,
    /// Sum of the implicit rewards' differences.
    margin: f64,
    /// How often the better answer has the higher reward.
    n_right: f64,
}

impl Kind {
    /// `ratios`: π − ρ of each answer, chosen and rejected by turns (KTO: any); `lens`: their tokens.
    fn loss(self, ratios: &[f64], lens: &[f64], desirable: &[bool]) -> Outcome {
        let mut outcome = Outcome { sum: 0.0, slopes: vec![0.0; ratios.len()], margin: 0.0, n_right: 0.0 };
        if let Kind::Kto { beta, desirable: gain, undesirable: pain } = self {
            // z: how far the model has moved in all, estimated from the answers at hand and not differentiated.
            let z = (ratios.iter().sum::<f64>() / ratios.len().max(1) as f64).max(0.0);
            for ((&ratio, &is_good), slope) in ratios.iter().zip(desirable).zip(&mut outcome.slopes) {
                let (weight, sign) = if is_good { (gain, 1.0) } else { (pain, -1.0) };
                let value = sigmoid(sign * beta * (ratio - z));
                outcome.sum += weight * (1.0 - value);
                *slope = -weight * value * (1.0 - value) * sign * beta;
                outcome.margin += sign * beta * ratio;
                outcome.n_right += f64::from(u8::from(sign * (ratio - z) > 0.0));
            }
            return outcome;
        }
        for (i, pair) in ratios.chunks_exact(2).enumerate() {
            let (chosen, rejected, n_c, n_r) = (pair[0], pair[1], lens[2 * i], lens[2 * i + 1]);
            let (loss, d_chosen, d_rejected, margin) = match self {
                Kind::Dpo { beta, smoothing } => {
                    let h = beta * (chosen - rejected);
                    let loss = (1.0 - smoothing) * softplus(-h) + smoothing * softplus(h);
                    let slope = beta * (sigmoid(h) - (1.0 - smoothing));
                    (loss, slope, -slope, h)
                }
                Kind::Ipo { beta } => {
                    let h = chosen / n_c - rejected / n_r;
                    let off = h - 1.0 / (2.0 * beta);
                    (off * off, 2.0 * off / n_c, -2.0 * off / n_r, beta * h)
                }
                Kind::SimPo { beta, gamma } => {
                    let h = beta * (chosen / n_c - rejected / n_r) - gamma;
                    let slope = -beta * sigmoid(-h);
                    (softplus(-h), slope / n_c, -slope / n_r, h + gamma)
                }
                Kind::Orpo { lambda } => {
                    // Odds of the mean log-probability p: log(eᵖ / (1 − eᵖ)), whose derivative by p is 1 / (1 − eᵖ).
                    let (p_c, p_r) = ((chosen / n_c).min(-1e-6), (rejected / n_r).min(-1e-6));
                    let odds = |p: f64| p - (-p.exp_m1()).ln();
                    let h = odds(p_c) - odds(p_r);
                    let slope = -lambda * sigmoid(-h);
                    let (d_c, d_r) = (slope / -p_c.exp_m1(), -slope / -p_r.exp_m1());
                    (-p_c + lambda * softplus(-h), (d_c - 1.0) / n_c, d_r / n_r, h)
                }
                Kind::Kto { .. } => unreachable!("done above"),
            };
            outcome.sum += loss;
            outcome.slopes[2 * i] = d_chosen;
            outcome.slopes[2 * i + 1] = d_rejected;
            outcome.margin += margin;
            outcome.n_right += f64::from(u8::from(margin > 0.0));
        }
        outcome
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// log(1 + eˣ)
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 6] = [
        Kind::Dpo { beta: 0.1, smoothing: 0.0 },
        Kind::Dpo { beta: 0.3, smoothing: 0.2 },
        Kind::Ipo { beta: 0.1 },
        Kind::Kto { beta: 0.5, desirable: 1.0, undesirable: 1.5 },
        Kind::Orpo { lambda: 0.4 },
        Kind::SimPo { beta: 2.0, gamma: 1.0 },
    ];

    #[test]
    fn slopes_equal_central_differences() {
        let (ratios, lens) = ([-3.0, -4.5, -2.0, -1.0], [3.0, 4.0, 2.0, 5.0]);
        for kind in KINDS {
            let outcome = kind.loss(&ratios, &lens, &[true, false, true, false]);
            for i in 0..4 {
                let at = |step: f64| {
                    let mut ratios = ratios;
                    ratios[i] += step;
                    kind.loss(&ratios, &lens, &[true, false, true, false]).sum
                };
                // KTO's z is 0 here, as all ratios are negative.
                let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((outcome.slopes[i] - expected).abs() < 1e-6, "{kind:?} {i}: {expected}");
            }
        }
    }

    #[test]
    fn dpo_begins_at_the_logarithm_of_two() {
        let outcome = Kind::Dpo { beta: 0.1, smoothing: 0.0 }.loss(&[0.0, 0.0], &[3.0, 5.0], &[]);
        assert!((outcome.sum - 2f64.ln()).abs() < 1e-12 && outcome.margin == 0.0);
    }

    #[test]
    fn kto_begins_at_one_half() {
        let kind = Kind::Kto { beta: 0.1, desirable: 1.0, undesirable: 1.0 };
        let outcome = kind.loss(&[0.0, 0.0], &[3.0, 5.0], &[true, false]);
        assert!((outcome.sum - 1.0).abs() < 1e-12);
    }
}
