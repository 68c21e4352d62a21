//! A class, or a number, of a whole text or a pair of texts.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_models::{Head, Labelled, Task, Training};
use rhetor_tensor::ops::cross_entropy::{self, Targets};
use rhetor_tensor::ops::segments;
use std::collections::BTreeMap;

use super::causal_lm::SMOOTHING;
use super::{FALSE_NEGATIVES, FALSE_POSITIVES, TRUE_POSITIVES};
use super::{Objective, Reading, conclude_f1, each_row, most_likely};
use crate::data::Row;
use crate::error::Error;
use crate::example::{Example, IGNORE, Label, Tally};
use crate::examples::classification::{self, Labels, Reader};
use crate::policy::{Loss, Policy};

pub(super) const ABOUT: About = About {
    name: "sequence-classification",
    summary: "say the class of a text or of a pair of texts, or a number",
    source: Source::Paper { title: "BERT", id: "arXiv:1810.04805", section: "section 4.1" },
    options: &[
        Opt {
            name: "numbers",
            summary: "1 = labels are numbers to predict, by their squared error",
            default: 0.0,
            range: (0.0, 1.0),
        },
        SMOOTHING,
    ],
};

struct SequenceClassification {
    labels: Labels,
    reader: Reader,
    reading: Reading,
    options: CrossEntropy,
}

pub(super) fn build(values: &Values, reading: Reading) -> Result<Box<dyn Objective>, Error> {
    let labels = if values.is_on("numbers") { Labels::Numbers } else { reading.labels.clone() };
    let reader = Reader::of_model(&reading.tokenizer, reading.is_encoder)?;
    let options = CrossEntropy { smoothing: values.get("label-smoothing") as f32, z_loss: 0.0 };
    Ok(Box::new(SequenceClassification { labels, reader, reading, options }))
}

impl Objective for SequenceClassification {
    fn examples(&self, rows: &[Row], tally: &mut Tally) -> Vec<Example> {
        let Reading { tokenizer, max_len, .. } = &self.reading;
        each_row(rows, tally, |row| {
            classification::examples(row, tokenizer, self.reader, &self.labels, *max_len)
        })
    }

    fn weight(&self, _example: &Example) -> f64 {
        1.0
    }

    fn head(&self) -> Option<Labelled> {
        let (n_labels, labels) = match &self.labels {
            Labels::Classes(names) => (names.len(), names.clone()),
            Labels::Numbers => (1, Vec::new()),
        };
        Some(Labelled { head: Head { task: Task::Sequence, n_labels }, labels })
    }

    fn loss(&self, policy: &Policy, examples: &[Example], scale: f32, training: Option<Training>) -> Loss {
        let judged = examples.iter().map(|example| {
            let sequence = &example.sequences[0];
            (sequence, [if self.reader.is_encoder() { 0 } else { sequence.len() - 1 }])
        });
        let logits = policy.at_rows(judged, training); // [N, C]
        if self.labels == Labels::Numbers {
            let expected = examples.iter().map(|example| match example.label {
                Label::Number(number) => number,
                _ => 0.0,
            });
            let expected: Vec<f32> = expected.collect();
            return squared_error(&logits, &expected, scale);
        }
        let classes = examples.iter().map(|example| match example.label {
            Label::Class(class) => class,
            _ => IGNORE,
        });
        let classes: Vec<u32> = classes.collect();
        let said = most_likely(&logits);
        let count = |is: &dyn Fn(u32, u32) -> bool| {
            said.iter().zip(&classes).filter(|(said, class)| is(**said, **class)).count() as f64
        };
        let mut metrics = vec![("accuracy", count(&|said, class| said == class))];
        if logits.row_len() == 2 {
            metrics.push((TRUE_POSITIVES, count(&|said, class| said == 1 && class == 1)));
            metrics.push((FALSE_POSITIVES, count(&|said, class| said == 1 && class == 0)));
            metrics.push((FALSE_NEGATIVES, count(&|said, class| said == 0 && class == 1)));
        }
        let targets = Targets { tokens: &classes, weights: None, scale };
        let loss = cross_entropy::cross_entropy(logits, targets, self.options);
        let sum = loss.rows.iter().map(|&row| f64::from(row)).sum();
        Loss { total: loss.total, sum, metrics }
    }

    /// F1 of the second of two classes; the correlation of numbers (Pearson's).
    fn conclude(&self, metrics: &mut BTreeMap<&'static str, f64>) {
        conclude_f1(metrics);
        let sums = ["x", "y", "x·x", "y·y", "x·y"].map(|name| metrics.remove(name));
        if let [Some(x), Some(y), Some(xx), Some(yy), Some(xy)] = sums {
            let variances = (xx - x * x) * (yy - y * y);
            metrics.insert("pearson", if variances > 0.0 { (xy - x * y) / variances.sqrt() } else { 0.0 });
        }
    }
}

/// Σ (said − expected)². said: [N, 1]
fn squared_error(said: &rhetor_tensor::Tensor, expected: &[f32], scale: f32) -> Loss {
    let mut sum = 0.0;
    let total = segments::function(said, |said, slopes| {
        for ((slope, &said), &expected) in slopes.iter_mut().zip(said).zip(expected) {
            let off = f64::from(said) - f64::from(expected);
            sum += off * off;
            *slope = (2.0 * off * f64::from(scale)) as f32;
        }
        (sum * f64::from(scale)) as f32
    });
    let of = |f: &dyn Fn(f64, f64) -> f64| {
        let pairs = said.data().iter().zip(expected);
        pairs.map(|(&x, &y)| f(f64::from(x), f64::from(y))).sum::<f64>()
    };
    let metrics = vec![
        ("absolute-error", of(&|x, y| (x - y).abs())),
        ("x", of(&|x, _| x)),
        ("y", of(&|_, y| y)),
        ("x·x", of(&|x, _| x * x)),
        ("y·y", of(&|_, y| y * y)),
        ("x·y", of(&|x, y| x * y)),
    ];
    Loss { total, sum, metrics }
}
