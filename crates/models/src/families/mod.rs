//! The table of families.

use rhetor_catalog::{About, Source};
use rhetor_formats::{Checkpoint, Kind, TensorEntry};

use crate::config::{Key, Keys, ModelConfig, Part};
use crate::head::Task;
use crate::load::{LoadError, Weights};
use crate::model::Network;
use crate::names::TensorName;

mod albert;
mod attention_only;
mod awd_lstm;
mod bert;
mod codegen;
mod decilm;
mod distilbert;
mod electra;
mod falcon;
mod fid;
mod gemma;
mod gemma3;
mod gpt;
mod gpt2;
mod gpt_bigcode;
mod gpt_neox;
mod llama;
mod llama_kin;
mod minigpt4;
mod mistral;
mod mixtral;
mod phi;
mod phi3;
mod qformer;
mod qwen;
mod retro;
mod roberta;
mod stablelm;
mod starcoder2;
mod t5;
mod t5_encoder;
mod transformer;
mod vit;
mod xlm_roberta;

/// An architecture: how its files are read and how its network is built.
pub struct Family {
    /// Name, summary, paper.
    pub about: About,
    /// `general.architecture` in GGUF files; empty = GGUF does not know it.
    pub gguf: &'static str,
    /// What the head of its GGUF files is for.
    pub gguf_task: Task,
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
    /// Other names under which some Hugging Face files hold the tensor of this name, whole: looked for in order where the
    /// first is not there, and passed over where it is.
    pub other_names: fn(&str) -> Vec<String>,
    /// Loads the weights.
    pub build: fn(&mut Weights) -> Result<Box<dyn Network>, LoadError>,
    /// Whether a GGUF file of this architecture is of this family, where several share the name.
    pub is_told_by: fn(&Keys) -> Result<bool, LoadError>,
    /// Tensors by which a graph is known to hold such a model, for graphs say no more; empty = none is.
    pub known_by: &'static [&'static str],
    /// What the names of tensors begin with that graphs build upon the model, and that are not read.
    pub beside: &'static [&'static str],
    /// Checkpoints that the world knows.
    pub published: &'static [Published],
}

/// A published checkpoint of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// What it is called.
    pub name: &'static str,
    /// Its elements, tied ones counted once.
    pub n_parameters: u64,
    /// Positions it was made for; 0 = as many as fit.
    pub context_len: usize,
    /// What its licence lets one do.
    pub licence: Licence,
}

/// A line of a family's table of published checkpoints.
pub(crate) const fn published(
    name: &'static str,
    n_parameters: u64,
    context_len: usize,
    licence: Licence,
) -> Published {
    Published { name, n_parameters, context_len, licence }
}

/// What a licence lets one do with weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Licence {
    /// Anything: MIT, Apache, BSD and their kin.
    Open,
    /// Much, with conditions of use or of size: LLaMA 2, Gemma, RAIL.
    Restricted,
    /// Research alone.
    Research,
    /// There are no weights to be had.
    Unpublished,
}

/// What a family says only if it differs: `Family { about: ..., ..BASE }`.
pub(crate) const BASE: Family = Family {
    about: About { name: "", summary: "", source: Source::Folklore, options: &[] },
    gguf: "",
    gguf_task: Task::Vocabulary,
    model_type: "",
    architectures: &[],
    prefix: "",
    config: |keys| Err(keys.refuse("general.architecture", "model_type", "nothing", "the name of a family")),
    keys: |_| Vec::new(),
    tensors: &[],
    other_names: |_| Vec::new(),
    build: |_| unreachable!("every family builds its own network"),
    is_told_by: |_| Ok(true),
    known_by: &[],
    beside: &[],
    published: &[],
};

/// Every family, in the order in which a file's architecture is looked up: of those that share a name in GGUF, the one
/// that takes all that is left comes last.
pub const FAMILIES: &[&Family] = &[
    &mixtral::MIXTRAL,
    &mistral::MISTRAL,
    &llama::LLAMA,
    &decilm::DECILM,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma3::GEMMA3,
    &phi3::PHI3,
    &stablelm::STABLELM,
    &starcoder2::STARCODER2,
    &gpt::GPT,
    &gpt2::GPT2,
    &gpt_neox::GPT_NEOX,
    &falcon::FALCON,
    &phi::PHI,
    &gpt_bigcode::GPT_BIGCODE,
    &codegen::CODEGEN,
    &bert::BERT,
    &albert::ALBERT,
    &roberta::ROBERTA,
    &xlm_roberta::XLM_ROBERTA,
    &electra::ELECTRA,
    &distilbert::DISTILBERT,
    &retro::RETRO,
    &awd_lstm::AWD_LSTM,
    &vit::CLIP_VISION,
    &vit::EVA_CLIP,
    &vit::DINOV2,
    &minigpt4::MINIGPT4,
    &attention_only::ATTENTION_ONLY,
    &t5::T5,
    &t5_encoder::T5_ENCODER,
    &fid::FID,
    &transformer::TRANSFORMER,
];

/// The sizes of a model with LLaMA's keys, for parts of models that are no family of their own.
pub(crate) fn llama_keys(keys: &Keys, family: &'static str) -> Result<ModelConfig, LoadError> {
    llama_kin::Kin { family, ..llama_kin::LLAMA }.config(keys)
}

/// Families that are parts of models and no models by themselves.
const PARTS: &[&Family] = &[&qformer::QFORMER];

impl Family {
    /// The family whose `model_type` this is, as the section of a part has it.
    pub(crate) fn of_type(model_type: &str) -> Option<&'static Family> {
        FAMILIES.iter().chain(PARTS).find(|family| family.model_type == model_type).copied()
    }

    /// The family of a part of a model.
    pub(crate) fn of_part(part: &Part) -> &'static Family {
        let named = |family: &&&Family| family.about.name == part.config.family;
        FAMILIES.iter().chain(PARTS).find(named).expect("a part's config is made by its family")
    }

    /// Elements of all weights of a model of these sizes, tied ones counted once.
    pub fn n_parameters(&self, config: &ModelConfig) -> u64 {
        let rows = self.tensors.iter().filter(|row| row.is_new_in(config));
        let own: u64 = rows.map(|row| row.n_elements(config)).sum();
        own + config.parts.iter().map(|part| Family::of_part(part).n_parameters(&part.config)).sum::<u64>()
    }

    /// The tensor of a checkpoint that is called `name`, or otherwise in [some files](Family::other_names).
    pub fn find<'c>(&self, checkpoint: &'c Checkpoint, name: &str) -> Option<&'c TensorEntry> {
        let other = || (self.other_names)(name).iter().find_map(|other| checkpoint.find(other));
        checkpoint.find(name).or_else(other)
    }

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
                let mut found = None;
                for family in FAMILIES.iter().filter(|family| family.gguf == architecture) {
                    if found.is_none() && (family.is_told_by)(&Keys::new(checkpoint, family.gguf))? {
                        found = Some((*family, family.gguf_task));
                    }
                }
                (found, architecture.to_string())
            }
            Kind::Onnx => {
                let is_known = |f: &&&Family| f.known_by.iter().all(|name| checkpoint.find(name).is_some());
                let found = FAMILIES.iter().filter(|f| !f.known_by.is_empty()).find(is_known);
                let family = found.ok_or(LoadError::NoArchitecture { file: file() })?;
                (Some((*family, Task::Hidden)), family.about.name.to_string())
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
