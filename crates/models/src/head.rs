//! What stands on top of a network: the output layer over the vocabulary, or a few outputs that are learnt for a task.
//!
//! A head is a part of the model, and `architectures` in `config.json` names it. One that the file does not have is
//! drawn from N(0, 0.02) when it is asked for. Source: BERT, arXiv:1810.04805, section 4, and its `run_classifier.py`.

use rhetor_formats::Checkpoint;
use serde_json::{Value, json};

use crate::config::ModelConfig;
use crate::families::Family;
use crate::load::LoadError;
use crate::names::TensorName;

/// What a model's outputs say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Task {
    /// The next token of a decoder, a hidden token of an encoder.
    #[default]
    Vocabulary,
    /// A class of a whole sequence, or a number: at an encoder's first row, at a decoder's last.
    Sequence,
    /// A class of each token.
    Tokens,
    /// Where an answer begins and ends.
    Span,
    /// Whether a text follows another (class 0) or does not (1): BERT's second task; of ALBERT, whether two texts stand
    /// in their order (0) or were swapped (1).
    NextSentence,
    /// How good a choice is, as one number at the first row; softmax over the choices is the caller's.
    Choice,
    /// Whether each token was put in the place of another: one number above 0 if so (ELECTRA's discriminator).
    Replaced,
    /// None: the outputs are the hidden states themselves.
    Hidden,
    /// None but BERT's pooler: the hidden states after a linear layer and tanh, meant of the first row.
    Pooled,
}

/// The head of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// What its outputs say.
    pub task: Task,
    /// C: classes; 1 for a number, 2 for a beginning and an end; 0 where the outputs are tokens.
    pub n_labels: usize,
}

impl Head {
    /// Outputs over the vocabulary.
    pub const VOCABULARY: Head = Head { task: Task::Vocabulary, n_labels: 0 };

    /// The kind of task in the words of PEFT, which knows no encoders' vocabularies.
    pub fn peft_task(self, config: &ModelConfig) -> Option<&'static str> {
        match self.task {
            Task::Vocabulary if config.is_encoder => None,
            Task::Vocabulary if config.has_encoder() => Some("SEQ_2_SEQ_LM"),
            Task::Vocabulary => Some("CAUSAL_LM"),
            Task::Sequence => Some("SEQ_CLS"),
            Task::Tokens => Some("TOKEN_CLS"),
            Task::Span => Some("QUESTION_ANS"),
            Task::Hidden | Task::Pooled => Some("FEATURE_EXTRACTION"),
            Task::NextSentence | Task::Choice | Task::Replaced => None,
        }
    }
}

/// A head that a model is to have, whatever the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewHead {
    /// Which.
    pub head: Head,
    /// Of the tensors that the file does not have in this shape.
    pub seed: u64,
}

/// A head and what its outputs are called, as `config.json` says it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labelled {
    /// The head.
    pub head: Head,
    /// The names of the classes, by number; empty where the outputs are no classes.
    pub labels: Vec<String>,
}

impl Labelled {
    /// Writes the head into a `config.json`: the class that transformers opens it with, and the names of the labels.
    pub fn write_to(&self, family: &Family, settings: &mut Value) {
        if let Some((class, _)) = family.architectures.iter().find(|(_, task)| *task == self.head.task) {
            settings["architectures"] = json!([class]);
        }
        let Some(settings) = settings.as_object_mut() else { return };
        if !matches!(self.head.task, Task::Sequence | Task::Tokens) {
            return;
        }
        let names: Vec<String> = match self.labels.is_empty() {
            true => (0..self.head.n_labels).map(|i| format!("LABEL_{i}")).collect(),
            false => self.labels.clone(),
        };
        let by_number = names.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name)));
        settings.insert("id2label".to_string(), Value::Object(by_number.collect()));
        let by_name = names.iter().enumerate().map(|(i, name)| (name.clone(), json!(i)));
        settings.insert("label2id".to_string(), Value::Object(by_name.collect()));
        if self.head.task == Task::Sequence {
            let is_number = self.head.n_labels == 1 && self.labels.is_empty();
            let problem = if is_number { "regression" } else { "single_label_classification" };
            settings.insert("problem_type".to_string(), problem.into());
        }
    }
}

/// The names of the classes of a Hugging Face checkpoint with such a head, by number; empty if it names none.
pub fn labels_of(checkpoint: &Checkpoint) -> Result<Vec<String>, LoadError> {
    let mut labels = Vec::new();
    while let Some(label) = checkpoint.metadata().get_str(&format!("id2label.{}", labels.len()))? {
        labels.push(label.to_string());
    }
    Ok(labels)
}

/// The head that a checkpoint has, in which `task` is what its class says.
pub(crate) fn head_of(checkpoint: &Checkpoint, task: Task) -> Result<Head, LoadError> {
    let n_labels = match task {
        Task::Vocabulary | Task::Hidden | Task::Pooled => 0,
        Task::Choice | Task::Replaced => 1,
        Task::Span | Task::NextSentence => 2,
        Task::Sequence | Task::Tokens => {
            let named = labels_of(checkpoint)?.len();
            let number = checkpoint.metadata().get_u64("num_labels")?.map(|n| n as usize);
            // Two is what transformers takes and does not write down.
            if named > 0 { named } else { number.unwrap_or(2) }
        }
    };
    Ok(Head { task, n_labels })
}

impl Family {
    /// Whether models of the family can have this head. The pooler is a part of models of other heads.
    pub fn has_head(&self, task: Task) -> bool {
        match task {
            Task::Pooled => self.tensors.iter().any(|row| row.tasks.contains(&Task::Pooled)),
            _ => self.architectures.iter().any(|(_, has)| *has == task),
        }
    }

    /// The modules of a head that train in full beside an adapter, by the ends of their Hugging Face names.
    pub fn head_modules(&self, task: Task) -> impl Iterator<Item = &'static str> {
        let is_own = move |row: &&TensorName| row.is_head() && row.belongs_to(task);
        self.tensors.iter().filter(is_own).map(|row| row.hugging_face)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::FAMILIES;

    #[test]
    fn a_head_is_written_as_transformers_reads_it() {
        let llama = FAMILIES.iter().find(|family| family.about.name == "llama").unwrap();
        let mut settings = json!({"architectures": ["LlamaForCausalLM"]});
        let labels = vec!["no".to_string(), "yes".to_string()];
        Labelled { head: Head { task: Task::Sequence, n_labels: 2 }, labels }.write_to(llama, &mut settings);
        assert_eq!(settings["architectures"], json!(["LlamaForSequenceClassification"]));
        assert_eq!(settings["id2label"], json!({"0": "no", "1": "yes"}));
        assert_eq!(settings["label2id"]["yes"], 1);
        assert_eq!(settings["problem_type"], "single_label_classification");
        assert_eq!(llama.head_modules(Task::Sequence).collect::<Vec<_>>(), ["score"]);
    }
}
