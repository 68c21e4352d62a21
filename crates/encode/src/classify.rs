//! Classes of texts and of pairs of texts, and choices.

use rhetor_models::Task;

use crate::Error;
use crate::reader::{Reader, Text};
use crate::softmax::{sigmoid, softmax};

/// A class and how likely it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// Its name.
    pub label: String,
    /// A probability, or the number itself of a model that learnt numbers.
    pub score: f64,
}

/// What makes scores of logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalization {
    /// They add up to 1: one class of several.
    Softmax,
    /// Each by itself: several classes may be right, or there is one.
    Sigmoid,
    /// The logits themselves.
    None,
}

impl Reader {
    /// What the model was trained for: `problem_type` if the file has it, else softmax of several classes and the sigmoid of one,
    /// as transformers has it.
    pub fn normalization(&self) -> Normalization {
        match self.problem_type.as_deref() {
            Some("regression") => Normalization::None,
            Some("multi_label_classification") => Normalization::Sigmoid,
            _ if self.labels.len() == 1 => Normalization::Sigmoid,
            _ => Normalization::Softmax,
        }
    }

    /// The classes of each text, the likeliest first. The model has a head for sequences, or tells whether texts follow another.
    pub fn classify(&self, texts: &[Text], normalization: Normalization) -> Result<Vec<Vec<Class>>, Error> {
        if self.model.config().head.task != Task::NextSentence {
            self.check_head("classification", Task::Sequence)?;
        }
        let is_encoder = self.model.config().is_encoder;
        // A decoder knows the text at its last row.
        let row = |text: &Text| if is_encoder { 0..1 } else { text.ids.len() - 1..text.ids.len() };
        let mut classes = vec![Vec::new(); texts.len()];
        self.read(texts, row, |i, logits, _| {
            let scores = match normalization {
                Normalization::Softmax => softmax(logits),
                Normalization::Sigmoid => logits.iter().map(|&x| sigmoid(x)).collect(),
                Normalization::None => logits.iter().map(|&x| f64::from(x)).collect(),
            };
            let named = self.labels.iter().zip(scores);
            let mut of_text: Vec<Class> =
                named.map(|(label, score)| Class { label: label.clone(), score }).collect();
            of_text.sort_by(|a, b| b.score.total_cmp(&a.score));
            classes[i] = of_text;
        });
        Ok(classes)
    }

    /// How likely each of `choices` goes with `text`; the probabilities add up to 1. The model has a head for choices.
    pub fn choose<S: AsRef<str>>(&self, text: &str, choices: &[S]) -> Result<Vec<f64>, Error> {
        self.check_head("a choice", Task::Choice)?;
        let pairs: Result<Vec<Text>, Error> =
            choices.iter().map(|choice| self.pair(text, choice.as_ref())).collect();
        let mut logits = vec![0f32; choices.len()];
        self.read(&pairs?, |_| 0..1, |i, outputs, _| logits[i] = outputs[0]);
        Ok(softmax(&logits))
    }
}
