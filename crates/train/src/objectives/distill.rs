//! Distillation: the teacher's distribution of the next token, and the token itself.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_models::Training;
use rhetor_tensor::ops::cross_entropy::{self, Targets};
use rhetor_tensor::tape;

use super::{Objective, Reading, Reference, documents, each_row, sequences, sft};
use crate::data::Row;
use crate::error::Error;
use crate::example::{Example, Tally};
use crate::policy::{Loss, Policy, batch_of};

pub(super) const ABOUT: About = About {
    name: "distill",
    summary: "learn a teacher's distribution of each next token; needs --teacher, a model with the same vocabulary",
    source: Source::Paper {
        title: "Distilling the Knowledge in a Neural Network",
        id: "arXiv:1503.02531",
        section: "section 2",
    },
    options: &[
        Opt { name: "temperature", summary: "of both distributions", default: 2.0, range: (0.01, 100.0) },
        Opt {
            name: "hard",
            summary: "weight of the tokens themselves against the teacher's distribution",
            default: 0.1,
            range: (0.0, 1.0),
        },
    ],
};

struct Distill {
    temperature: f32,
    hard: f32,
    reading: Reading,
}

pub(super) fn build(values: &Values, reading: Reading) -> Result<Box<dyn Objective>, Error> {
    let (temperature, hard) = (values.get("temperature") as f32, values.get("hard") as f32);
    Ok(Box::new(Distill { temperature, hard, reading }))
}

impl Objective for Distill {
    fn examples(&self, rows: &[Row], tally: &mut Tally) -> Vec<Example> {
        let is_text = |row: &Row| matches!(row, Row::Text(_));
        if rows.iter().all(is_text) {
            return documents(rows, &self.reading, tally);
        }
        let reader = sft::reader(&self.reading);
        each_row(rows, tally, |row| reader.examples(row))
    }

    fn loss(&self, policy: &Policy, examples: &[Example], scale: f32, training: Option<Training>) -> Loss {
        let teacher = policy.reference.as_ref().expect("the loop loads a teacher for this objective");
        let (batch, tokens) = batch_of(sequences(examples), training);
        let logits = policy.model.forward(&batch, None);
        let learnt = tape::pause(|| teacher.forward(&batch_of(sequences(examples), None).0, None));
        let soft =
            cross_entropy::distill(logits.clone(), &learnt, self.temperature, (1.0 - self.hard) * scale);
        let targets = Targets { tokens: &tokens, weights: None, scale: self.hard * scale };
        let hard = cross_entropy::cross_entropy(logits, targets, CrossEntropy::default());
        let sum = |rows: &[f32]| rows.iter().map(|&row| f64::from(row)).sum::<f64>();
        let (soft_sum, hard_sum) = (sum(&soft.rows), sum(&hard.rows));
        let (hard_share, soft_share) = (f64::from(self.hard), f64::from(1.0 - self.hard));
        Loss {
            total: soft.total + hard.total,
            sum: soft_share * soft_sum + hard_share * hard_sum,
            metrics: vec![("kl", soft_sum / f64::from(self.temperature).powi(2)), ("nll", hard_sum)],
        }
    }

    fn reference(&self) -> Reference {
        Reference::Teacher
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_tensor::gradient_check::{check, noise};
    use rhetor_tensor::ops;

    #[test]
    fn the_gradient_of_distillation_equals_central_differences() {
        let teacher = noise(&[3, 7], 2);
        check(&[noise(&[3, 7], 1)], &[], |x| {
            let loss = cross_entropy::distill(x[0].clone(), &teacher, 2.0, 0.5);
            ops::add::scale(loss.total, 1.0)
        });
    }
}
