//! What a model brings besides its numbers: how it is spoken to, and how it answers if nobody says otherwise.

use crate::StoredFile;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a model made by `create` adds to the files it is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The model that it was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its chat template: a Go template or Jinja.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The turn of the system that goes before every conversation without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Options that hold where a request says nothing, by Ollama's names.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// Turns that go before every conversation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Turn>,
    /// Texts of licences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<String>,
    /// The files of an adapter in PEFT's format that is attached to the model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adapter: Vec<StoredFile>,
    /// The version of Ollama that the author asks for; shown, not enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
}

/// A turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Settings {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Settings::default()
    }
}
