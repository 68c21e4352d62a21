//! `adapter_config.json` as PEFT writes and reads it.

use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

use super::base_tensors::BaseTensors;
use super::lora::LoraSettings;
use super::targets::{Kind, Targets, default_targets};
use super::{AdapterError, Bias, Init, Names};

/// The configuration of an adapter's directory.
pub(super) struct Config {
    pub file: PathBuf,
    pub keys: Map<String, Value>,
}

impl Config {
    pub fn open(file: &Path) -> Result<Config, AdapterError> {
        let text =
            std::fs::read(file).map_err(|source| AdapterError::Io { path: file.to_path_buf(), source })?;
        let wrong = |got: String| AdapterError::Key {
            file: file.to_path_buf(),
            key: "the file".to_string(),
            got,
            expected: "a JSON object",
        };
        match serde_json::from_slice(&text) {
            Ok(Value::Object(keys)) => Ok(Config { file: file.to_path_buf(), keys }),
            Ok(other) => Err(wrong(other.to_string().chars().take(60).collect())),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// The value of a key, if there is one and it is not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    pub fn wrong(&self, key: &str, expected: &'static str) -> AdapterError {
        let got = self.keys.get(key).map_or("missing".to_string(), Value::to_string);
        AdapterError::Key { file: self.file.clone(), key: key.to_string(), got, expected }
    }

    pub fn number_or(&self, key: &str, default: f64) -> Result<f64, AdapterError> {
        match self.get(key) {
            Some(value) => value.as_f64().ok_or_else(|| self.wrong(key, "a number")),
            None => Ok(default),
        }
    }

    /// A whole number from 1 up to 2³¹.
    pub fn size(&self, key: &str) -> Result<usize, AdapterError> {
        let value = self.get(key).and_then(Value::as_u64).filter(|value| (1..1 << 31).contains(value));
        value.map(|value| value as usize).ok_or_else(|| self.wrong(key, "a whole number, at least 1"))
    }

    pub fn size_or(&self, key: &str, default: usize) -> Result<usize, AdapterError> {
        if self.get(key).is_some() { self.size(key) } else { Ok(default) }
    }

    pub fn switch(&self, key: &str) -> Result<bool, AdapterError> {
        match self.get(key) {
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, "true or false")),
            None => Ok(false),
        }
    }

    pub fn word(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    pub fn words(&self, key: &str) -> Result<Vec<String>, AdapterError> {
        let expected = "a list of names";
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(words)) => words
                .iter()
                .map(|word| word.as_str().map(str::to_string).ok_or_else(|| self.wrong(key, expected)))
                .collect(),
            Some(_) => Err(self.wrong(key, expected)),
        }
    }

    /// Names of modules: a list, a pattern or `all-linear`.
    pub fn names(&self, key: &str) -> Result<Names, AdapterError> {
        Ok(match self.get(key) {
            None => Names::Default,
            Some(Value::String(word)) if word == "all-linear" => Names::AllLinear,
            Some(Value::String(pattern)) => Names::Pattern(pattern.clone()),
            Some(_) => Names::List(self.words(key)?),
        })
    }

    fn pairs(&self, key: &str) -> Result<Vec<(String, f64)>, AdapterError> {
        let expected = "an object of numbers";
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Object(pairs)) => pairs
                .iter()
                .map(|(name, value)| {
                    value.as_f64().map(|value| (name.clone(), value)).ok_or_else(|| self.wrong(key, expected))
                })
                .collect(),
            Some(_) => Err(self.wrong(key, expected)),
        }
    }

    pub fn ranks(&self, key: &str) -> Result<Vec<(String, usize)>, AdapterError> {
        let pairs = self.pairs(key)?;
        if pairs.iter().any(|(_, rank)| *rank < 1.0 || rank.fract() != 0.0) {
            return Err(self.wrong(key, "an object of whole numbers, at least 1"));
        }
        Ok(pairs.into_iter().map(|(name, rank)| (name, rank as usize)).collect())
    }

    pub fn alphas(&self, key: &str) -> Result<Vec<(String, f64)>, AdapterError> {
        self.pairs(key)
    }

    /// Layer numbers: one, or a list.
    pub fn layers(&self, key: &str) -> Result<Option<Vec<usize>>, AdapterError> {
        let expected = "a layer's number, or a list of them";
        let number =
            |value: &Value| value.as_u64().map(|n| n as usize).ok_or_else(|| self.wrong(key, expected));
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(layers)) => layers.iter().map(number).collect::<Result<_, _>>().map(Some),
            Some(layer) => Ok(Some(vec![number(layer)?])),
        }
    }

    pub fn bias(&self) -> Result<Bias, AdapterError> {
        match self.word("bias") {
            None | Some("none") => Ok(Bias::None),
            Some("all") => Ok(Bias::All),
            Some("lora_only") => Ok(Bias::Adapted),
            Some(_) => Err(self.wrong("bias", "none, all or lora_only")),
        }
    }

    /// Refuses a key that is set to something that counts.
    pub fn refuse_if_set(&self, keys: &[&str]) -> Result<(), AdapterError> {
        for key in keys {
            if let Some(value) = self.get(key).filter(|value| counts(value)) {
                let (file, feature) = (self.file.clone(), key.to_string());
                return Err(AdapterError::Unsupported { file, feature, got: value.to_string() });
            }
        }
        Ok(())
    }

    /// A sentence for each key that is set and that nobody here knows.
    pub fn warnings(&self, known: &[&[&str]]) -> Vec<String> {
        let is_known = |key: &str| known.iter().any(|keys| keys.contains(&key));
        let unknown = self.keys.iter().filter(|(key, value)| !is_known(key) && counts(value));
        unknown
            .map(|(key, value)| format!("{}: unknown key `{key}` = {value} is ignored", self.file.display()))
            .collect()
    }
}

/// Whether Python takes a value for true.
fn counts(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
        Value::String(word) => !word.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Bool(true) => true,
    }
}

/// Keys of every kind of adapter.
pub(super) const COMMON: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
];

/// Keys of LoRA that change nothing when a finished adapter runs, or that are read.
pub(super) const LORA: &[&str] = &[
    "alpha_pattern",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "megatron_core",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "runtime_config",
    "target_modules",
    "use_dora",
    "use_rslora",
];

/// Keys of LoRA whose features compute something that is not built here.
pub(super) const LORA_REFUSED: &[&str] = &[
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
    "velora_config",
];

/// Keys of IA³.
pub(super) const IA3: &[&str] =
    &["exclude_modules", "fan_in_fan_out", "feedforward_modules", "init_ia3_weights", "target_modules"];

/// Keys of prompts and prefixes, of which only the number of virtual tokens counts when they are finished.
pub(super) const VIRTUAL: &[&str] = &[
    "encoder_dropout",
    "encoder_hidden_size",
    "encoder_num_layers",
    "encoder_reparameterization_type",
    "init_weights",
    "num_attention_heads",
    "num_layers",
    "num_transformer_submodules",
    "num_virtual_tokens",
    "prefix_projection",
    "prompt_tuning_init",
    "prompt_tuning_init_text",
    "token_dim",
    "tokenizer_kwargs",
    "tokenizer_name_or_path",
];

/// First values that are cut out of the base's weights, which then are no longer the base's.
pub(super) const BASE_CHANGED: &[&str] = &["pissa", "olora", "corda", "loftq", "lora_ga"];

/// A number without `.0` where it is whole, as PEFT writes what it was given.
pub(super) fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 { (value as i64).into() } else { value.into() }
}

/// The value of `target_modules` for targets that met the layers called `names`.
pub(super) fn target_names(targets: &Targets, names: &[&str], kind: Kind, family: Option<&str>) -> Value {
    match &targets.names {
        Names::Pattern(pattern) => pattern.as_str().into(),
        Names::List(names) => names.iter().map(String::as_str).collect(),
        Names::Default => match family.and_then(|family| default_targets(family, kind)) {
            Some(names) => names.iter().copied().collect(),
            None => names.iter().copied().collect(),
        },
        Names::AllLinear => names.iter().copied().collect(),
    }
}

fn excluded(names: &Names) -> Value {
    match names {
        Names::Default => Value::Null,
        Names::List(names) => names.iter().map(String::as_str).collect(),
        Names::Pattern(pattern) => pattern.as_str().into(),
        Names::AllLinear => "all-linear".into(),
    }
}

/// Sorted keys, with those that every adapter has.
pub(super) fn with_common(peft_type: &str, keys: Vec<(&str, Value)>) -> Map<String, Value> {
    let mut all: Vec<(&str, Value)> = vec![
        ("auto_mapping", Value::Null),
        ("base_model_name_or_path", Value::Null),
        ("inference_mode", true.into()),
        ("peft_type", peft_type.into()),
        ("revision", Value::Null),
        ("task_type", Value::Null),
    ];
    all.extend(keys);
    all.sort_by_key(|(key, _)| *key);
    all.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

/// The list, or null where it is empty.
pub(super) fn list_or_null(words: &[String]) -> Value {
    if words.is_empty() { Value::Null } else { words.iter().map(String::as_str).collect() }
}

/// The configuration of a LoRA adapter that changes the layers called `names`.
pub(super) fn lora(
    settings: &LoraSettings,
    targets: &Targets,
    base: &BaseTensors,
    names: &[&str],
    family: Option<&str>,
    is_transposed: bool,
) -> Map<String, Value> {
    let bias = match base.bias {
        Bias::None => "none",
        Bias::All => "all",
        Bias::Adapted => "lora_only",
    };
    let init = match settings.init {
        Init::Gaussian => "gaussian".into(),
        Init::Random => false.into(),
        _ => true.into(),
    };
    let ranks: Map<String, Value> =
        settings.rank_pattern.iter().map(|(pattern, rank)| (pattern.to_string(), rank.into())).collect();
    let alphas: Map<String, Value> =
        settings.alpha_pattern.iter().map(|(pattern, alpha)| (pattern.to_string(), number(alpha))).collect();
    let layers = match &targets.layers {
        Some(layers) => layers.iter().copied().collect(),
        None => Value::Null,
    };
    let dropout: f64 = settings.dropout.to_string().parse().unwrap_or(0.0);
    with_common(
        "LORA",
        vec![
            ("alpha_pattern", alphas.into()),
            ("bias", bias.into()),
            ("ensure_weight_tying", base.keeps_ties.into()),
            ("exclude_modules", excluded(&targets.exclude)),
            ("fan_in_fan_out", is_transposed.into()),
            ("init_lora_weights", init),
            ("layers_pattern", Value::Null),
            ("layers_to_transform", layers),
            ("lora_alpha", number(settings.alpha)),
            ("lora_bias", settings.has_bias.into()),
            ("lora_dropout", dropout.into()),
            ("modules_to_save", list_or_null(&base.module_names())),
            ("r", settings.rank.into()),
            ("rank_pattern", ranks.into()),
            ("target_modules", target_names(targets, names, Kind::Lora, family)),
            ("use_dora", settings.is_dora.into()),
            ("use_rslora", settings.is_rank_stabilised.into()),
        ],
    )
}
