//! What an answer must look like.

/// A language that the answer must belong to. Every token that would leave it is forbidden; none is ever dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// Any JSON object.
    Json,
    /// A JSON value that this JSON Schema, given as text, accepts. Properties come in the schema's order.
    JsonSchema(String),
    /// A text that matches this regular expression as a whole.
    Regex(String),
    /// A grammar in the dialect of Lark.
    Lark(String),
    /// A grammar in llama.cpp's GBNF.
    Gbnf(String),
}

impl Constraint {
    /// `json`, `json_schema`, `regex`, `lark` or `gbnf`: what replies call it.
    pub fn name(&self) -> &'static str {
        match self {
            Constraint::Json => "json",
            Constraint::JsonSchema(_) => "json_schema",
            Constraint::Regex(_) => "regex",
            Constraint::Lark(_) => "lark",
            Constraint::Gbnf(_) => "gbnf",
        }
    }
}
