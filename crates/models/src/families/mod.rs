//! The table of families.

use rhetor_catalog::About;
use rhetor_formats::{Checkpoint, Kind};

use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::load::{LoadError, Weights};
use crate::model::Network;
use crate::names::TensorName;

mod awd_lstm;
mod bert;
mod gpt2;
mod llama;
mod mistral;

pub(crate) use mistral::MISTRAL;

/// An architecture: how its files are read and how its network is built.
pub struct Family {
    /// Name, summary, paper.
    pub about: About,
    /// `general.architecture` in GGUF files.
    pub gguf: &'static str,
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// `architectures` in `config.json`, and the head that each has; the first of a head is the one that is written.
    pub architectures: &'static [(&'static str, Task)],
    /// The prefix of Hugging Face's tensor names, which some files leave out.
    pub prefix: &'static str,
    /// The file's keys → our names.
    pub config: fn(&Keys) -> Result<ModelConfig, LoadError>,
    /// Our names → the file's keys: what `config` reads, to be written. Rotary positions are left to [`Key::rope`].
    pub keys: fn(&ModelConfig) -> Vec<Key>,
    /// Every tensor, with its shape.
    pub tensors: &'static [TensorName],
    /// Loads the weights.
    pub build: fn(&mut Weights) -> Result<Box<dyn Network>, LoadError>,
}

/// Every family, in the order in which a file's architecture is looked up.
pub const FAMILIES: &[&Family] = &[&llama::LLAMA, &MISTRAL, &gpt2::GPT2, &bert::BERT, &awd_lstm::AWD_LSTM];

impl Family {
    /// The family that reads `checkpoint`.
    pub fn of(checkpoint: &Checkpoint) -> Result<&'static Family, LoadError> {
        Family::and_task_of(checkpoint).map(|(family, _)| family)
    }

    /// The family that reads `checkpoint`, and what its head is for.
    pub fn and_task_of(checkpoint: &Checkpoint) -> Result<(&'static Family, Task), LoadError> {
        let keys = checkpoint.metadata();
        let file = || checkpoint.path().to_path_buf();
        let (found, architecture) = match checkpoint.kind() {
            Kind::Gguf | Kind::Llama2C => {
                let architecture = keys
                    .get_str("general.architecture")?
                    .ok_or(LoadError::NoArchitecture { file: file() })?;
                {
                    let family = FAMILIES.iter().find(|family| family.gguf == architecture);
                    (family.map(|family| (*family, Task::Vocabulary)), architecture.to_string())
                }
            }
            Kind::HuggingFace | Kind::Safetensors | Kind::PyTorch => {
                let architectures: Vec<&str> =
                    keys.get_strings("architectures")?.map_or_else(Vec::new, |names| names.iter().collect());
                let model_type = keys.get_str("model_type")?.map(str::to_string);
                let by_class = FAMILIES.iter().find_map(|f| {
                    let named = f.architectures.iter().find(|(class, _)| architectures.contains(class));
                    named.map(|(_, task)| (*f, *task))
                });
                // A named class that the table does not hold is another head or another model: never guess by type then.
                let by_type = FAMILIES
                    .iter()
                    .find(|f| architectures.is_empty() && Some(f.model_type) == model_type.as_deref())
                    .map(|family| (*family, Task::Vocabulary));
                let architecture = architectures.first().map(|name| name.to_string()).or(model_type);
                (by_class.or(by_type), architecture.ok_or(LoadError::NoArchitecture { file: file() })?)
            }
        };
        found.ok_or_else(|| {
            let supported: Vec<&str> = FAMILIES.iter().map(|family| family.about.name).collect();
            LoadError::UnknownArchitecture { file: file(), architecture, supported: supported.join(", ") }
        })
    }
}
