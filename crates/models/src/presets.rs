//! Configurations of known sizes by name, for models that begin with random weights.
//!
//! A `config.json`, or the `[config]` of a recipe, that holds `"preset": "gpt3-125m"` gets the keys of that preset, and its
//! own keys win over them.
//!
//! The sizes are those of GPT-3, arXiv:2005.14165, table 2.1. Two rows of it cannot be built as they are printed: 1.3B has
//! 24 heads of 128 for a width of 2048, where we take 16, and 13B is 5140 wide with 40 heads of 128, where we take 5120.
//! Attention is dense. GPT-3's layers alternate dense and locally banded sparse attention, and how wide the bands are was
//! never published: `"attention_pattern": ["dense", "local"]` does so here, with `attention_band` keys, 256 by default.

use serde_json::{Map, Value, json};

/// A configuration that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// What it is called.
    pub name: &'static str,
    n_layers: usize,
    hidden_size: usize,
    n_heads: usize,
}

/// All presets, from small to large.
pub const PRESETS: &[Preset] = &[
    gpt3("gpt3-125m", 12, 768, 12),
    gpt3("gpt3-350m", 24, 1024, 16),
    gpt3("gpt3-760m", 24, 1536, 16),
    gpt3("gpt3-1.3b", 24, 2048, 16),
    gpt3("gpt3-2.7b", 32, 2560, 32),
    gpt3("gpt3-6.7b", 32, 4096, 32),
    gpt3("gpt3-13b", 40, 5120, 40),
    gpt3("gpt3-175b", 96, 12288, 96),
];

const fn gpt3(name: &'static str, n_layers: usize, hidden_size: usize, n_heads: usize) -> Preset {
    Preset { name, n_layers, hidden_size, n_heads }
}

/// A preset that the table does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no preset `{name}`; those that there are: {known}")]
pub struct UnknownPreset {
    /// What was asked for.
    pub name: String,
    /// What the table holds.
    pub known: String,
}

impl Preset {
    /// The keys of its `config.json`.
    pub fn config(&self) -> Map<String, Value> {
        let config = json!({
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": 50257,
            "n_positions": 2048,
            "n_layer": self.n_layers,
            "n_embd": self.hidden_size,
            "n_head": self.n_heads,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": true,
        });
        config.as_object().expect("an object is written above").clone()
    }
}

/// `config` with the keys of the preset that it names, where it names one.
pub fn fill(mut config: Map<String, Value>) -> Result<Map<String, Value>, UnknownPreset> {
    let Some(name) = config.remove("preset") else { return Ok(config) };
    let Some(preset) = PRESETS.iter().find(|preset| Some(preset.name) == name.as_str()) else {
        let known: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        let name = name.as_str().map_or_else(|| name.to_string(), str::to_string);
        return Err(UnknownPreset { name, known: known.join(", ") });
    };
    let mut filled = preset.config();
    filled.extend(config);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(error.name == "gpt4" && error.known.starts_with("gpt3-125m, gpt3-350m"), "{error}");
    }
}
