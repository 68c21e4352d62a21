//! Directories of adapters as PEFT lays them out: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! What PEFT writes is read here, and what is written here is read there. Source: PEFT 0.21, `utils/save_and_load.py`.

use rhetor_formats::{ElementType, TensorToWrite, safetensors};
use rhetor_kernels::DType;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

use super::base_tensors::BaseTensors;
use super::full::Direct;
use super::hub;
use super::ia3::{Ia3, Ia3Settings};
use super::longlora::{KEY, LongLora};
use super::lora::{Lora, LoraSettings};
use super::peft_config::{BASE_CHANGED, COMMON, Config, IA3, LORA, LORA_REFUSED, VIRTUAL};
use super::prefix::PrefixTuning;
use super::prompt_tuning::PromptTuning;
use super::stored::Stored;
use super::targets::{Kind, Patterns, Targets};
use super::{Adapter, AdapterError, Bias, Init, Names, Purpose, SavedTensor};

/// The configuration's file.
pub const CONFIG: &str = "adapter_config.json";
/// The tensors' file.
pub const TENSORS: &str = "adapter_model.safetensors";
/// The tensors' file of old adapters.
const OLD_TENSORS: &str = "adapter_model.bin";
/// Trained tensors of the base, under their Hugging Face names, where they have a file of their own.
pub const BASE_TENSORS: &str = "trainable_params.safetensors";

/// The same as LongLoRA's program writes it.
const OLD_BASE_TENSORS: &str = "trainable_params.bin";

/// An adapter that was read.
pub struct Opened {
    /// The adapter, not yet attached to a model.
    pub adapter: Box<dyn Adapter>,
    /// The base model that it says it belongs to: a path or a name.
    pub base: Option<String>,
    /// The kind of task, such as `CAUSAL_LM`.
    pub task: Option<String>,
    /// What was read and has no effect.
    pub warnings: Vec<String>,
}

/// Whether `dir` holds an adapter.
pub fn is_adapter(dir: &Path) -> bool {
    dir.join(CONFIG).is_file()
}

/// The base model that the adapter of a directory says it belongs to: a path or a name.
pub fn base_of(dir: &Path) -> Result<Option<String>, AdapterError> {
    let config = Config::open(&dir.join(CONFIG))?;
    let key = if config.get("config").is_some() { "model_name" } else { "base_model_name_or_path" };
    Ok(config.word(key).filter(|name| !name.is_empty()).map(str::to_string))
}

/// Reads the adapter of a directory.
pub fn open(dir: &Path, purpose: Purpose) -> Result<Opened, AdapterError> {
    let file = dir.join(CONFIG);
    if !file.is_file() {
        return Err(AdapterError::NoAdapter { dir: dir.to_path_buf(), expected: CONFIG });
    }
    let config = Config::open(&file)?;
    if let Some(Value::Object(_)) = config.get("config") {
        let adapter = Box::new(hub::open(dir, &config, purpose)?);
        let base = config.word("model_name").map(str::to_string);
        return Ok(Opened { adapter, base, task: None, warnings: Vec::new() });
    }
    if let Some(method) = config.word("rhetor_method") {
        let adapter = Box::new(Direct::read(method, &config, &dir.join(BASE_TENSORS), purpose)?);
        let base = config.word("base_model_name_or_path").map(str::to_string);
        return Ok(Opened { adapter, base, task: None, warnings: Vec::new() });
    }
    let Some(kind) = config.word("peft_type") else {
        return Err(config.wrong("peft_type", "LORA, IA3, PROMPT_TUNING, P_TUNING or PREFIX_TUNING"));
    };
    let (adapter, known): (Box<dyn Adapter>, &[&str]) = match kind {
        "LORA" => {
            let lora = open_lora(dir, &config, purpose)?;
            let trained = [BASE_TENSORS, OLD_BASE_TENSORS].map(|name| dir.join(name));
            match (config.get(KEY), trained.into_iter().find(|file| file.is_file())) {
                (None, None) => (Box::new(lora), LORA),
                (own, trained) => (Box::new(open_longlora(lora, own, trained)?), LORA),
            }
        }
        "IA3" => (Box::new(open_ia3(dir, &config, purpose)?), IA3),
        "PROMPT_TUNING" | "P_TUNING" | "PREFIX_TUNING" => {
            (open_virtual(dir, &config, purpose, kind == "PREFIX_TUNING")?, VIRTUAL)
        }
        _ => {
            let (file, feature) = (config.file.clone(), "peft_type".to_string());
            return Err(AdapterError::Unsupported { file, feature, got: kind.to_string() });
        }
    };
    let word = |key: &str| config.word(key).map(str::to_string);
    Ok(Opened {
        adapter,
        base: word("base_model_name_or_path"),
        task: word("task_type"),
        warnings: config.warnings(&[COMMON, known, &[KEY]]),
    })
}

pub(super) fn open_tensors(dir: &Path) -> Result<Stored, AdapterError> {
    let files = [TENSORS, OLD_TENSORS].map(|name| dir.join(name));
    match files.iter().find(|file| file.is_file()) {
        Some(file) => Stored::open(file),
        None => Err(AdapterError::NoAdapter { dir: dir.to_path_buf(), expected: TENSORS }),
    }
}

fn open_lora(dir: &Path, config: &Config, purpose: Purpose) -> Result<Lora, AdapterError> {
    config.refuse_if_set(LORA_REFUSED)?;
    if let Some(init) = config.word("init_lora_weights")
        && BASE_CHANGED.iter().any(|changed| init.starts_with(changed))
    {
        let (file, feature) = (config.file.clone(), "init_lora_weights".to_string());
        return Err(AdapterError::Unsupported { file, feature, got: init.to_string() });
    }
    let settings = LoraSettings {
        rank: config.size_or("r", 8)?,
        alpha: config.number_or("lora_alpha", 8.0)?,
        dropout: config.number_or("lora_dropout", 0.0)? as f32,
        is_rank_stabilised: config.switch("use_rslora")?,
        has_bias: config.switch("lora_bias")?,
        is_dora: config.switch("use_dora")?,
        rank_pattern: Patterns::new(&config.ranks("rank_pattern")?)?,
        alpha_pattern: Patterns::new(&config.alphas("alpha_pattern")?)?,
        init: Init::Default,
        seed: 0,
        purpose,
    };
    let targets = Targets::new(
        config.names("target_modules")?,
        config.names("exclude_modules")?,
        config.layers("layers_to_transform")?,
        Kind::Lora,
    )?;
    let mut base = BaseTensors::new(&config.words("modules_to_save")?, config.bias()?);
    base.keeps_ties = config.switch("ensure_weight_tying")?;
    Ok(Lora::new(settings, targets, base, Some(open_tensors(dir)?), config.keys.clone()))
}

fn open_longlora(lora: Lora, own: Option<&Value>, file: Option<PathBuf>) -> Result<LongLora, AdapterError> {
    let trained = file.map(|file| Stored::open(&file)).transpose()?;
    let factor = own.and_then(|own| own.get("factor")).and_then(Value::as_f64);
    Ok(LongLora::read(lora, trained, factor.map(|factor| factor as f32)))
}

fn open_ia3(dir: &Path, config: &Config, purpose: Purpose) -> Result<Ia3, AdapterError> {
    let targets =
        |key: &str, kind| Targets::new(config.names(key)?, config.names("exclude_modules")?, None, kind);
    let outputs = targets("target_modules", Kind::Ia3)?;
    let inputs = targets("feedforward_modules", Kind::Ia3Inputs)?;
    // Without names both sides have the defaults of the family; with them, one list says which of the other it means.
    let is_split = outputs.names != Names::Default;
    let settings = Ia3Settings { outputs, inputs, is_split };
    let base = BaseTensors::new(&config.words("modules_to_save")?, Bias::None);
    Ok(Ia3::new(settings, base, Some(open_tensors(dir)?), config.keys.clone(), purpose))
}

fn open_virtual(
    dir: &Path,
    config: &Config,
    purpose: Purpose,
    is_prefix: bool,
) -> Result<Box<dyn Adapter>, AdapterError> {
    if config.size_or("num_transformer_submodules", 1)? != 1 {
        return Err(config.wrong("num_transformer_submodules", "1: a model without an encoder"));
    }
    let n_virtual = config.size("num_virtual_tokens")?;
    let base = BaseTensors::new(&config.words("modules_to_save")?, Bias::None);
    let (stored, keys) = (open_tensors(dir)?, config.keys.clone());
    Ok(if is_prefix {
        Box::new(PrefixTuning::read(n_virtual, base, stored, keys, purpose))
    } else {
        Box::new(PromptTuning::read(n_virtual, base, stored, keys, purpose))
    })
}

/// Writes `adapter` to `dir`, for the model `base` (a name or a path) and the kind of task `task`, such as `CAUSAL_LM`.
///
/// Each file is complete or as it was before; the configuration comes last.
pub fn save(adapter: &dyn Adapter, dir: &Path, base: &str, task: Option<&str>) -> Result<(), AdapterError> {
    let saved = adapter.save();
    std::fs::create_dir_all(dir).map_err(|source| AdapterError::Io { path: dir.to_path_buf(), source })?;
    if !saved.tensors.is_empty() {
        let name = if saved.config.contains_key("config") { hub::TENSORS } else { TENSORS };
        write_tensors(&dir.join(name), saved.tensors)?;
    }
    if !saved.base.is_empty() {
        write_tensors(&dir.join(BASE_TENSORS), saved.base)?;
    }
    let mut config = saved.config;
    if config.contains_key("peft_type") {
        config.insert("base_model_name_or_path".to_string(), base.into());
        config.insert("task_type".to_string(), task.map_or(Value::Null, Value::from));
        config.insert("inference_mode".to_string(), true.into());
    } else {
        let key = if config.contains_key("config") { "model_name" } else { "base_model_name_or_path" };
        config.insert(key.to_string(), base.into());
    }
    write_config(dir, config)
}

/// Writes an adapter that is known by its configuration and tensors.
pub(super) fn write(
    dir: &Path,
    config: Map<String, Value>,
    tensors: Vec<SavedTensor>,
) -> Result<(), AdapterError> {
    std::fs::create_dir_all(dir).map_err(|source| AdapterError::Io { path: dir.to_path_buf(), source })?;
    write_tensors(&dir.join(TENSORS), tensors)?;
    write_config(dir, config)
}

fn write_config(dir: &Path, mut config: Map<String, Value>) -> Result<(), AdapterError> {
    config.sort_keys();
    let text = serde_json::to_string_pretty(&config).expect("a JSON value can be written");
    rhetor_formats::write_bytes(&dir.join(CONFIG), text.as_bytes())?;
    Ok(())
}

/// Writes tensors in the order of their names, as `f32`.
fn write_tensors(file: &Path, mut tensors: Vec<SavedTensor>) -> Result<(), AdapterError> {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let to_write: Vec<TensorToWrite> = tensors
        .iter()
        .map(|tensor| TensorToWrite {
            name: tensor.name.clone(),
            dtype: ElementType::Known(DType::F32),
            shape: tensor.shape.clone(),
        })
        .collect();
    safetensors::write(file, &[("format", "pt")], &to_write, |i, out| {
        let bytes: Vec<u8> = tensors[i].values.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes)
    })?;
    Ok(())
}

/// The files of an adapter's directory, so that they can be copied.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let names =
        [CONFIG, TENSORS, OLD_TENSORS, hub::TENSORS, hub::OLD_TENSORS, BASE_TENSORS, OLD_BASE_TENSORS];
    names.iter().map(|name| dir.join(name)).filter(|file| file.is_file()).collect()
}
