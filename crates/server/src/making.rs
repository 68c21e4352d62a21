//! New models out of others: what `create` and a Modelfile say becomes a model of the store.

use crate::modelfile::{Modelfile, ModelfileError};
use crate::wire::ollama::options::{Options, add_parameter, parameter};
use rhetor_formats::{Checkpoint, Kind};
use rhetor_generate::ChatTemplate;
use rhetor_models::adapters::{Purpose, peft};
use rhetor_models::convert::{self, ConvertOptions};
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Family, Model};
use rhetor_store::{Draft, ModelName, Settings, Store, StoredFile, Turn};
use rhetor_tokenizer::convert as vocabulary;
use serde_json::{Map, Value};
use std::ops::ControlFlow;
use std::path::Path;

/// What a new model is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Making {
    /// The model of the store that it is made from; none if `files` say it.
    pub from: Option<String>,
    /// Its files: the name of each, and the sha256 of its blob in hex.
    pub files: Vec<(String, String)>,
    /// The files of an adapter in PEFT's format, likewise.
    pub adapter: Vec<(String, String)>,
    /// The mix of types that its weights are stored in, as in `q4_K_M`.
    pub quantize: Option<String>,
    /// The chat template; `None` = that of the model it is made from.
    pub template: Option<String>,
    /// The turn of the system.
    pub system: Option<String>,
    /// Options, over those of the model it is made from.
    pub parameters: Map<String, Value>,
    /// Turns that go before every conversation.
    pub messages: Vec<Turn>,
    /// Texts of licences.
    pub licences: Vec<String>,
    /// The version of Ollama that the author asks for.
    pub requires: Option<String>,
}

/// What happens while a model is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A status in words.
    Status(String),
    /// Weights are stored in other types: tensors done, of all.
    Quantizing {
        /// What is done, as Ollama words it.
        status: String,
        /// Tensors done.
        done: u64,
        /// Tensors in all.
        total: u64,
    },
}

/// Why a model cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MakingError {
    /// The Modelfile is wrong.
    #[error(transparent)]
    Modelfile(#[from] ModelfileError),
    /// The store refuses a name, a digest or a file.
    #[error(transparent)]
    Store(#[from] rhetor_store::Error),
    /// What is asked for is wrong; the field and the reason.
    #[error("{field}: {reason}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The caller broke off.
    #[error("the making of the model was broken off")]
    Cancelled,
}

fn wrong(field: &'static str, reason: impl std::fmt::Display) -> MakingError {
    MakingError::Field { field, reason: reason.to_string() }
}

/// Turns the argument of FROM or ADAPTER into files of the store, if it is a path that the caller allows.
type Bring<'a> = dyn FnMut(&str) -> Result<Option<Vec<StoredFile>>, MakingError> + 'a;

impl Making {
    /// What a Modelfile says. `bring` turns the argument of FROM or ADAPTER into files of the store, if it is a path
    /// that the caller allows.
    pub fn of_modelfile(file: &Modelfile, bring: &mut Bring<'_>) -> Result<Making, MakingError> {
        let mut making = Making::default();
        for command in &file.commands {
            let at = |reason: String| ModelfileError { line: command.line, reason };
            let value = command.value.clone();
            let pairs = |files: Vec<StoredFile>| files.into_iter().map(|file| (file.path, file.sha256));
            let is_file = matches!(command.name, "from" | "adapter");
            let brought = if is_file { bring(&value)? } else { None };
            if brought.as_ref().is_some_and(Vec::is_empty) {
                return Err(at(format!("there is no file of a model in {value}")).into());
            }
            match command.name {
                "from" => match brought {
                    Some(files) => making.files.extend(pairs(files)),
                    None if making.from.is_none() => making.from = Some(value),
                    None => return Err(at("several models after FROM".to_string()).into()),
                },
                "adapter" => match brought {
                    Some(files) => making.adapter.extend(pairs(files)),
                    None => return Err(at(format!("there is no adapter {value}")).into()),
                },
                "license" => making.licences.push(value),
                "template" => making.template = Some(value),
                "system" => making.system = Some(value),
                "requires" => making.requires = Some(value),
                "message" => making.messages.push(Turn { role: command.key.clone(), content: value }),
                "parameter" => {
                    let value = parameter(&command.key, &value).map_err(at)?;
                    add_parameter(&mut making.parameters, &command.key, value);
                }
                other => return Err(at(format!("{} is not supported", other.to_uppercase())).into()),
            }
        }
        Ok(making)
    }

    /// Makes the model `name`, whole or not at all. Blocks; `on_step` may break it off.
    pub fn make(
        self,
        store: &Store,
        name: &ModelName,
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<(), MakingError> {
        let mut tell = |status: String| match on_step(Step::Status(status)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(MakingError::Cancelled),
        };
        let mut draft = match (&self.from, self.files.is_empty()) {
            (Some(from), true) => {
                tell("reading model metadata".to_string())?;
                let manifest = store.share(from)?;
                let parent = Some(manifest.name.clone());
                Draft {
                    name: name.clone(),
                    source: manifest.source,
                    licence: manifest.licence,
                    files: manifest.files,
                    settings: Settings { parent, ..manifest.settings },
                }
            }
            (None, false) => {
                tell("parsing model files".to_string())?;
                let files = stored(store, &self.files)?;
                let (name, source) = (name.clone(), "created here".to_string());
                Draft { name, source, licence: None, files, settings: Settings::default() }
            }
            (None, true) => return Err(wrong("from", "neither 'from' or 'files' was specified")),
            (Some(_), false) => return Err(wrong("from", "'from' and 'files' were both specified")),
        };
        self.settings(store, &mut draft.settings)?;
        let mix = self.quantize.as_deref().map(mix_of).transpose()?;
        let scratch = store.scratch()?;
        let place = scratch.path().join("model");
        let path = lay_out(store, &draft.files, &place)?;
        let checkpoint = Checkpoint::open(&path).map_err(|error| wrong("files", error))?;
        check_model(&checkpoint)?;
        if let Some(mix) = mix {
            let quantized = scratch.path().join("model.gguf");
            quantize(&checkpoint, &quantized, mix, on_step)?;
            draft.files = vec![store.adopt(&quantized)?];
        }
        let mut tell = |status: String| match on_step(Step::Status(status)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(MakingError::Cancelled),
        };
        for file in &draft.files {
            tell(format!("using existing layer sha256:{}", file.sha256))?;
        }
        tell("writing manifest".to_string())?;
        store.create(draft)?;
        tell("success".to_string())
    }

    /// Puts what is said over the settings of the model that it is made from.
    fn settings(&self, store: &Store, settings: &mut Settings) -> Result<(), MakingError> {
        if let Some(template) = &self.template {
            ChatTemplate::new(template, "", "").map_err(|error| wrong("template", error))?;
            settings.template = Some(template.clone());
        }
        if self.system.is_some() {
            settings.system = self.system.clone();
        }
        settings.parameters.extend(self.parameters.clone());
        Options::of_model(&settings.parameters).map_err(|refusal| wrong("parameters", refusal.message))?;
        if !self.messages.is_empty() {
            settings.messages = self.messages.clone();
        }
        if !self.licences.is_empty() {
            settings.licences = self.licences.clone();
        }
        if let Some(requires) = &self.requires {
            if !is_version(requires) {
                return Err(wrong("requires", format!("{requires:?} is no version such as 0.14.0")));
            }
            settings.requires = Some(requires.clone());
        }
        if !self.adapter.is_empty() {
            if !settings.adapter.is_empty() {
                return Err(wrong("adapters", "the model has an adapter already, and only one is supported"));
            }
            settings.adapter = stored(store, &self.adapter)?;
            let scratch = store.scratch()?;
            let place = scratch.path().join("adapter");
            lay_out(store, &settings.adapter, &place)?;
            let folder = if place.is_dir() { place.as_path() } else { scratch.path() };
            peft::open(folder, Purpose::Inference).map_err(|error| wrong("adapters", error))?;
        }
        Ok(())
    }
}

fn stored(store: &Store, files: &[(String, String)]) -> Result<Vec<StoredFile>, MakingError> {
    files.iter().map(|(path, sha256)| Ok(store.stored_file(path, sha256)?)).collect()
}

/// Gives blobs their names in the folder `place`; returns what is to be opened there.
fn lay_out(store: &Store, files: &[StoredFile], place: &Path) -> Result<std::path::PathBuf, MakingError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| wrong("files", format!("{path}: {error}"))
    };
    for file in files {
        let path = place.join(&file.path);
        let folder = path.parent().unwrap_or(place);
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        let blob = store.find_blob(&file.sha256)?;
        if std::fs::hard_link(&blob, &path).is_err() {
            std::fs::copy(&blob, &path).map_err(failed(&path))?;
        }
    }
    Ok(match files {
        [one] => place.join(&one.path),
        _ => place.to_path_buf(),
    })
}

/// Refuses what is no model that can be loaded.
fn check_model(checkpoint: &Checkpoint) -> Result<(), MakingError> {
    Family::of(checkpoint).map_err(|error| wrong("files", error))?;
    Model::config_of(checkpoint).map_err(|error| wrong("files", error))?;
    Ok(())
}

/// The mix of that name, in the spellings of Ollama and of llama.cpp.
fn mix_of(name: &str) -> Result<Mix, MakingError> {
    Mix::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = Mix::all().map(Mix::name).collect();
        wrong("quantize", format!("unsupported quantization type {name:?}; there are {}", known.join(", ")))
    })
}

/// Stores the weights of `source` in other types, as `rhetor convert` does.
fn quantize(
    source: &Checkpoint,
    path: &Path,
    mix: Mix,
    on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> Result<(), MakingError> {
    let is_dense = |name: &str| matches!(name, "f16" | "bf16" | "f32");
    let from = crate::details::quantization(source);
    if !is_dense(&from.to_lowercase()) {
        let reason =
            format!("quantization is only supported for F16, BF16 and F32 models; this one is {from}");
        return Err(wrong("quantize", reason));
    }
    let failed = |error: &dyn std::fmt::Display| wrong("quantize", error);
    let vocabulary = match source.kind() {
        Kind::Gguf => Vec::new(),
        _ => {
            let config = Model::config_of(source).map_err(|error| failed(&error))?;
            vocabulary::to_gguf(source, config.vocab_size).map_err(|error| failed(&error))?
        }
    };
    let options = ConvertOptions { mix, importance: None, vocabulary };
    let status = format!("quantizing {from} model to {}", mix.name().to_uppercase());
    convert::to_gguf(source, path, &options, &mut |converted| {
        let (done, total) = (converted.done as u64, converted.total as u64);
        // What is written is thrown away if nobody waits for it any more.
        let _ = on_step(Step::Quantizing { status: status.clone(), done, total });
    })
    .map_err(|error| failed(&error))
}

/// Whether `text` is a version of three numbers, with a suffix or without.
fn is_version(text: &str) -> bool {
    let text = text.strip_prefix('v').unwrap_or(text);
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = core.split('.').collect();
    parts.len() == 3
        && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The Modelfile that makes a model of the store again.
pub fn modelfile_of(from: &str, settings: &Settings) -> Modelfile {
    use crate::modelfile::Command;
    let mut commands = Vec::new();
    let mut add = |name: &'static str, key: &str, value: String| {
        commands.push(Command { name, key: key.to_string(), value, line: 0 });
    };
    add("from", "", from.to_string());
    for (name, text) in [("template", &settings.template), ("system", &settings.system)] {
        if let Some(text) = text {
            add(name, "", text.clone());
        }
    }
    for (key, text) in parameter_texts(&settings.parameters) {
        add("parameter", &key, text);
    }
    settings.messages.iter().for_each(|turn| add("message", &turn.role, turn.content.clone()));
    settings.licences.iter().for_each(|text| add("license", "", text.clone()));
    if let Some(requires) = &settings.requires {
        add("requires", "", requires.clone());
    }
    Modelfile { commands }
}

/// Each parameter with its value in words; a list gives one entry for each item.
pub(crate) fn parameter_texts(parameters: &Map<String, Value>) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let each = parameters.iter().flat_map(|(key, value)| match value {
        Value::Array(items) => items.iter().map(|item| (key.clone(), text(item))).collect(),
        value => vec![(key.clone(), text(value))],
    });
    each.collect()
}
