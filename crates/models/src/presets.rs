//! Configurations of known sizes by name: for models that begin with random weights, and for what can be said of a model
//! without its files.
//!
//! A `config.json`, or the `[config]` of a recipe, that holds `"preset": "gpt3-125m"` gets the keys of that preset, and its
//! own keys win over them. Published checkpoints go by the names that they have in [`Family::published`](crate::Family).
//!
//! GPT-3's sizes are those of arXiv:2005.14165, table 2.1. Two rows of it cannot be built as they are printed: 1.3B has 24
//! heads of 128 for a width of 2048, where we take 16, and 13B is 5140 wide with 40 heads of 128, where we take 5120.
//! Attention is dense. GPT-3's layers alternate dense and locally banded sparse attention, and how wide the bands are was
//! never published: `"attention_pattern": ["dense", "local"]` does so here, with `attention_band` keys, 256 by default.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// A configuration that has a name.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Preset {
    /// What it is called.
    pub name: String,
    /// What its `config.json` says of sizes.
    pub config: Map<String, Value>,
}

impl Preset {
    /// Its `config.json`, in one line.
    pub fn text(&self) -> String {
        Value::Object(self.config.clone()).to_string()
    }
}

/// All presets.
pub static PRESETS: LazyLock<Vec<Preset>> =
    LazyLock::new(|| serde_json::from_str(include_str!("presets.json")).expect("a list of presets"));

/// A preset that the table does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no preset `{name}`; those that there are: {known}")]
pub struct UnknownPreset {
    /// What was asked for.
    pub name: String,
    /// What the table holds.
    pub known: String,
}

/// The preset of that name.
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// `config` with the keys of the preset that it names, where it names one.
pub fn fill(mut config: Map<String, Value>) -> Result<Map<String, Value>, UnknownPreset> {
    let Some(name) = config.remove("preset") else { return Ok(config) };
    let Some(preset) = name.as_str().and_then(find) else {
        let known: Vec<&str> = PRESETS.iter().map(|preset| preset.name.as_str()).collect();
        let name = name.as_str().map_or_else(|| name.to_string(), str::to_string);
        return Err(UnknownPreset { name, known: known.join(", ") });
    };
    let mut filled = preset.config.clone();
    filled.extend(config);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filled(config: Value) -> Result<Map<String, Value>, UnknownPreset> {
        fill(config.as_object().unwrap().clone())
    }

    #[test]
    fn own_keys_win_over_those_of_the_preset() {
        let config = filled(json!({"preset": "gpt3-125m", "vocab_size": 99, "attention_band": 64})).unwrap();
        assert_eq!(config["vocab_size"], 99);
        assert_eq!((&config["n_embd"], &config["attention_band"]), (&json!(768), &json!(64)));
        assert!(!config.contains_key("preset"));
        let plain = json!({"n_embd": 8});
        assert_eq!(Value::Object(filled(plain.clone()).unwrap()), plain);
    }

    #[test]
    fn an_unknown_preset_is_refused_with_those_that_there_are() {
        let error = filled(json!({"preset": "gpt4"})).unwrap_err();
        assert!(error.name == "gpt4" && error.known.contains("gpt3-125m, gpt3-350m"), "{error}");
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = PRESETS.iter().map(|preset| preset.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PRESETS.len());
    }
}
