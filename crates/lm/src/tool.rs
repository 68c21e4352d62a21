//! What a model may ask its caller to do.

use serde::{Deserialize, Serialize};

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Letters, digits, `_` and `-`; at most 64.
    pub name: String,
    /// What it does, for the model to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON Schema of its arguments, as JSON text; its order of keys is kept.
    pub parameters: String,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Names the call within its conversation, as in `call_k3x9...`.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments: a JSON object, as text, in the order written.
    pub arguments: String,
}

/// Whether and which tools are to be called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// None: the tools are not shown to the model.
    None,
    /// At least one call, enforced by a grammar.
    Required,
    /// A call of the tool of this name, enforced by a grammar.
    Named(String),
}

/// The tools of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// The functions that the model may call.
    pub offered: Vec<Tool>,
    /// Whether and which must be called.
    pub choice: ToolChoice,
    /// Whether one turn may have several calls.
    pub parallel: bool,
}

impl Default for Tools {
    fn default() -> Tools {
        Tools { offered: Vec::new(), choice: ToolChoice::Auto, parallel: true }
    }
}
