//! What can be told of a model from its files, without loading it.

use rhetor_formats::{Checkpoint, ElementType, Kind, Value as Meta};
use rhetor_generate::infill::InfillTemplate;
use rhetor_generate::open::tokenizer_of;
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Family, Model};
use rhetor_store::PulledModel;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Items of an array that are shown without `verbose`.
const SHORT_ARRAY: usize = 16;

/// What can be told of a model from its files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Details {
    /// `gguf` or `safetensors`.
    pub format: &'static str,
    /// The family, by its name in GGUF files.
    pub family: String,
    /// Numbers that were trained.
    pub n_parameters: u64,
    /// How most weights are stored, as in `Q4_K_M`.
    pub quantization: String,
    /// Tokens of the longest context.
    pub context_len: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// `completion`, `tools`, `insert`, `vision`, `thinking`, `embedding`.
    pub capabilities: Vec<&'static str>,
    /// The chat template of the files.
    pub template: Option<String>,
}

/// Details that were looked up already, by the digests of the files.
#[derive(Default)]
pub(crate) struct KnownDetails(Mutex<HashMap<String, Arc<Details>>>);

impl KnownDetails {
    /// The details of a model; empty ones if its files cannot be read. Blocks.
    pub fn of(&self, model: &PulledModel) -> Arc<Details> {
        let key: String = match &model.manifest {
            Some(manifest) => manifest.files.iter().map(|file| file.sha256.as_str()).collect(),
            None => model.path.display().to_string(),
        };
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(details) = known().get(&key) {
            return details.clone();
        }
        let details = Arc::new(read(model).unwrap_or_default());
        known().insert(key, details.clone());
        details
    }
}

impl Details {
    /// As Ollama's `details`.
    pub fn to_json(&self, parent: Option<&str>) -> Value {
        json!({
            "parent_model": parent.unwrap_or_default(),
            "format": self.format,
            "family": self.family,
            "families": [self.family],
            "parameter_size": parameter_size(self.n_parameters),
            "quantization_level": self.quantization,
            "context_length": self.context_len,
            "embedding_length": self.hidden_size,
        })
    }
}

fn read(model: &PulledModel) -> Option<Details> {
    let checkpoint = Checkpoint::open(&model.path).ok()?;
    let config = Model::config_of(&checkpoint).ok()?;
    let (family, task) = Family::and_task_of(&checkpoint).ok()?;
    let tokenizer = tokenizer_of(&checkpoint).ok();
    let template = tokenizer.as_ref().and_then(|tokenizer| tokenizer.chat_template()).map(str::to_string);
    let is_reader = config.is_encoder || model.path.join("modules.json").is_file();
    let mut capabilities = Vec::new();
    if is_reader {
        capabilities.push("embedding");
    } else if family.has_head(task) {
        capabilities.push("completion");
        if template.is_some() {
            capabilities.push("tools");
        }
        if tokenizer.as_ref().is_some_and(|tokenizer| InfillTemplate::of(tokenizer).is_some()) {
            capabilities.push("insert");
        }
        let thinks = |text: &String| text.contains("think");
        if template.as_ref().is_some_and(thinks) {
            capabilities.push("thinking");
        }
    }
    Some(Details {
        format: if checkpoint.kind() == Kind::Gguf { "gguf" } else { "safetensors" },
        family: if family.gguf.is_empty() { family.about.name } else { family.gguf }.to_string(),
        n_parameters: checkpoint
            .tensors()
            .iter()
            .map(|tensor| tensor.shape.iter().product::<usize>() as u64)
            .sum(),
        quantization: quantization(&checkpoint),
        context_len: config.context_len,
        hidden_size: config.hidden_size,
        capabilities,
        template,
    })
}

/// How the file says that its weights are stored, or how most of their bytes are.
pub(crate) fn quantization(checkpoint: &Checkpoint) -> String {
    let said = checkpoint.metadata().get_u64("general.file_type").ok().flatten();
    if let Some(mix) = said.and_then(|said| Mix::all().find(|mix| u64::from(mix.file_type()) == said)) {
        return mix.name().to_uppercase();
    }
    let mut bytes: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in checkpoint.tensors() {
        let name = match tensor.dtype {
            ElementType::Known(dtype) => dtype.name(),
            ElementType::Other(name) => name,
        };
        *bytes.entry(name).or_default() += tensor.n_bytes;
    }
    bytes.into_iter().max_by_key(|(_, n)| *n).map_or("unknown", |(name, _)| name).to_uppercase()
}

/// A count as people say it: `134.52M`, `7.6B`.
fn parameter_size(n: u64) -> String {
    match n as f64 {
        n if n >= 1e9 => format!("{:.1}B", n / 1e9),
        n if n >= 1e6 => format!("{:.2}M", n / 1e6),
        n if n >= 1e3 => format!("{:.2}K", n / 1e3),
        n => n.to_string(),
    }
}

/// The metadata of a model's file, long arrays left out unless `verbose`, and its tensors.
pub(crate) fn insides(model: &PulledModel, details: &Details, is_verbose: bool) -> (Value, Value) {
    let Ok(checkpoint) = Checkpoint::open(&model.path) else { return (json!({}), json!([])) };
    let mut info = Map::new();
    for (key, value) in checkpoint.metadata().iter() {
        info.insert(key.to_string(), meta(value, is_verbose));
    }
    info.entry("general.architecture").or_insert_with(|| json!(details.family));
    info.entry("general.parameter_count").or_insert_with(|| json!(details.n_parameters));
    let tensors = checkpoint.tensors().iter().map(|tensor| {
        let name = match tensor.dtype {
            ElementType::Known(dtype) => dtype.name(),
            ElementType::Other(name) => name,
        };
        json!({ "name": tensor.name, "type": name.to_uppercase(), "shape": tensor.shape })
    });
    let tensors = if is_verbose { tensors.collect() } else { Vec::new() };
    (Value::Object(info), json!(tensors))
}

fn meta(value: &Meta, is_verbose: bool) -> Value {
    if let Some(array) = value.as_array() {
        return match is_verbose || array.len() <= SHORT_ARRAY {
            true => array.iter().map(|item| meta(&item, is_verbose)).collect(),
            false => Value::Null,
        };
    }
    if let Some(text) = value.as_str() {
        return json!(text);
    }
    if let Some(flag) = value.as_bool() {
        return json!(flag);
    }
    match (value.as_u64(), value.as_i64(), value.as_f64()) {
        (Some(n), ..) => json!(n),
        (_, Some(n), _) => json!(n),
        (.., n) => json!(n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_written_as_people_say_them() {
        assert_eq!(parameter_size(134_515_008), "134.52M");
        assert_eq!(parameter_size(7_615_616_512), "7.6B");
        assert_eq!(parameter_size(999), "999");
    }

    #[test]
    fn the_model_of_the_program_is_told_from_its_file() {
        let home = tempfile::tempdir().unwrap();
        let store = rhetor_store::Store::open(home.path());
        let model = store.show("builtin").unwrap();
        let details = KnownDetails::default().of(&model);
        assert!(
            details.format == "gguf"
                && details.n_parameters > 1_000_000
                && details.capabilities.contains(&"completion")
        );
        let (info, tensors) = insides(&model, &details, false);
        assert!(info["general.architecture"].is_string() && tensors == json!([]));
        assert!(info["tokenizer.ggml.tokens"].is_null());
        let (info, tensors) = insides(&model, &details, true);
        assert!(info["tokenizer.ggml.tokens"].is_array() && tensors[0]["shape"].is_array());
    }
}
