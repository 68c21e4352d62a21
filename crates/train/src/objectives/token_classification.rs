//! A class of each word: parts of speech, names.

use rhetor_catalog::{About, Source, Values};
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_models::{Head, Labelled, Task, Training};
use rhetor_tensor::ops::cross_entropy::{self, Targets};
use std::collections::BTreeMap;

use super::{FALSE_NEGATIVES, FALSE_POSITIVES, TRUE_POSITIVES};
use super::{Objective, Reading, conclude_f1, each_row, most_likely};
use crate::data::Row;
use crate::error::Error;
use crate::example::{Example, IGNORE, Label, Tally};
use crate::examples::classification::{Labels, Reader};
use crate::examples::tagging;
use crate::policy::{Loss, Policy};

pub(super) const ABOUT: About = About {
    name: "token-classification",
    summary: "say the tag of each word",
    source: Source::Paper { title: "BERT", id: "arXiv:1810.04805", section: "section 5.3" },
    options: &[],
};

struct TokenClassification {
    names: Vec<String>,
    reader: Reader,
    reading: Reading,
}

pub(super) fn build(_: &Values, reading: Reading) -> Result<Box<dyn Objective>, Error> {
    let names = match &reading.labels {
        Labels::Classes(names) => names.clone(),
        Labels::Numbers => Vec::new(),
    };
    let reader = Reader::of_model(&reading.tokenizer, reading.is_encoder)?;
    Ok(Box::new(TokenClassification { names, reader, reading }))
}

/// The tags of a sequence, and the rows that have one.
fn tags(example: &Example) -> impl Iterator<Item = (usize, u32)> {
    let tags: &[u32] = if let Label::Tokens(tags) = &example.label { tags } else { &[] };
    tags.iter().copied().enumerate().filter(|(_, tag)| *tag != IGNORE)
}

impl Objective for TokenClassification {
    fn examples(&self, rows: &[Row], tally: &mut Tally) -> Vec<Example> {
        let Reading { tokenizer, max_len, labels, .. } = &self.reading;
        each_row(rows, tally, |row| tagging::examples(row, tokenizer, self.reader, labels, *max_len))
    }

    fn weight(&self, example: &Example) -> f64 {
        tags(example).count() as f64
    }

    fn head(&self) -> Option<Labelled> {
        let head = Head { task: Task::Tokens, n_labels: self.names.len() };
        Some(Labelled { head, labels: self.names.clone() })
    }

    fn loss(&self, policy: &Policy, examples: &[Example], scale: f32, training: Option<Training>) -> Loss {
        let asked = examples.iter().map(|example| (&example.sequences[0], tags(example).map(|(row, _)| row)));
        let logits = policy.at_rows(asked, training); // [N, C]
        let expected: Vec<u32> = examples.iter().flat_map(|e| tags(e).map(|(_, tag)| tag)).collect();
        let said = most_likely(&logits);
        let n_right = said.iter().zip(&expected).filter(|(a, b)| a == b).count();
        let mut metrics = vec![("accuracy", n_right as f64)];
        if self.names.iter().any(|name| name.starts_with("B-")) {
            let (mut n_said, mut n_expected, mut n_both, mut first) = (0, 0, 0, 0);
            for example in examples {
                let end = first + tags(example).count();
                let [said, expected] =
                    [&said, &expected].map(|tags| entities(&tags[first..end], &self.names));
                n_both += said.iter().filter(|entity| expected.contains(entity)).count();
                (n_said, n_expected) = (n_said + said.len(), n_expected + expected.len());
                first = end;
            }
            metrics.push((TRUE_POSITIVES, n_both as f64));
            metrics.push((FALSE_POSITIVES, (n_said - n_both) as f64));
            metrics.push((FALSE_NEGATIVES, (n_expected - n_both) as f64));
        }
        let targets = Targets { tokens: &expected, weights: None, scale };
        let loss = cross_entropy::cross_entropy(logits, targets, CrossEntropy::default());
        let sum = loss.rows.iter().map(|&row| f64::from(row)).sum();
        Loss { total: loss.total, sum, metrics }
    }

    /// F1 of whole entities, where the tags are of the kind `B-PER`, `I-PER`, `O`.
    fn conclude(&self, metrics: &mut BTreeMap<&'static str, f64>) {
        conclude_f1(metrics);
    }
}

/// The entities of a sentence: kind, first and last word. `I-` without a beginning begins one, as CoNLL's script has it.
fn entities<'n>(tags: &[u32], names: &'n [String]) -> Vec<(&'n str, usize, usize)> {
    let mut found: Vec<(&str, usize, usize)> = Vec::new();
    for (at, &tag) in tags.iter().enumerate() {
        let Some((place, kind)) = names[tag as usize].split_once('-') else { continue };
        match found.last_mut() {
            Some((open, _, last)) if place == "I" && *open == kind && *last + 1 == at => *last = at,
            _ => found.push((kind, at, at)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_ends_where_another_begins_or_its_kind_changes() {
        let names = ["O", "B-PER", "I-PER", "I-LOC"].map(str::to_string);
        let tags = [1, 2, 0, 2, 3, 3, 1, 1];
        let expected = vec![("PER", 0, 1), ("PER", 3, 3), ("LOC", 4, 5), ("PER", 6, 6), ("PER", 7, 7)];
        assert_eq!(entities(&tags, &names), expected);
    }
}
