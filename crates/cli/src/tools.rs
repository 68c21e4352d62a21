//! Tools and thoughts of an answer, as flags.

use crate::errors::Failure;
use crate::input;
use rhetor_lm::{Completion, Request, Tool, ToolCall, ToolChoice};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A switch that a person sets, or leaves as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// Yes
    On,
    /// No
    Off,
}

impl Switch {
    /// Whether it is on.
    pub fn is_on(self) -> bool {
        self == Switch::On
    }
}

/// What a model may call, and whether it must.
#[derive(Debug, clap::Args)]
pub struct ToolArgs {
    /// A JSON file with the tools that the model may call: a list of {"name", "description", "parameters"}, each alone or
    /// as the "function" of an object, as OpenAI has them. Calls are printed as lines of JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["raw", "suffix"])]
    tools: Option<PathBuf>,

    /// With --tools: auto, none, required, or the name of the tool that must be called
    #[arg(long, value_name = "CHOICE", default_value = "auto", requires = "tools")]
    tool_choice: String,
}

impl ToolArgs {
    /// Puts the tools into a request.
    pub fn apply(&self, request: &mut Request) -> Result<(), Failure> {
        let Some(path) = &self.tools else { return Ok(()) };
        let wrong = |reason: String| Failure::input(format!("{}: {reason}", path.display()));
        let values: Value =
            serde_json::from_str(&input::file(path)?).map_err(|error| wrong(error.to_string()))?;
        let Value::Array(values) = values else { return Err(wrong("it is no list of tools".to_string())) };
        let read =
            |(i, value): (usize, &Value)| tool(value).map_err(|reason| wrong(format!("tool {i}: {reason}")));
        request.tools.offered =
            values.iter().enumerate().map(read).collect::<Result<Vec<Tool>, Failure>>()?;
        request.tools.choice = match self.tool_choice.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            name => ToolChoice::Named(name.to_string()),
        };
        Ok(())
    }
}

/// OpenAI's object, or its `function` alone.
fn tool(value: &Value) -> Result<Tool, String> {
    let function = value.get("function").unwrap_or(value);
    let name = function["name"].as_str().ok_or("`name` is missing or no text")?;
    let description = match &function["description"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => return Err(format!("`description` is no text: {other}")),
    };
    let parameters = match &function["parameters"] {
        Value::Null => r#"{"type":"object","properties":{}}"#.to_string(),
        Value::Object(map) => serde_json::to_string(map).expect("a JSON value can be written"),
        other => return Err(format!("`parameters` are no object: {other}")),
    };
    Ok(Tool { name: name.to_string(), description, parameters })
}

/// A call as the JSON that scripts read; the arguments are an object.
pub fn call_to_json(call: &ToolCall) -> Value {
    let arguments = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!(call.arguments));
    json!({ "id": call.id, "name": call.name, "arguments": arguments })
}

/// Adds to `value`, a completion as JSON, what only some have: thoughts, calls, the constraint in force.
pub fn add_parts(completion: &Completion, value: &mut Value) {
    if !completion.thinking.is_empty() {
        value["thinking"] = json!(completion.thinking);
        value["usage"]["thinking_tokens"] = json!(completion.usage.thinking_tokens);
    }
    if !completion.tool_calls.is_empty() {
        value["tool_calls"] = completion.tool_calls.iter().map(call_to_json).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    fn applied(json: &str, choice: &str) -> Result<Request, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json).unwrap();
        let command = ToolArgs::augment_args(
            clap::Command::new("x").arg(clap::Arg::new("raw")).arg(clap::Arg::new("suffix")),
        );
        let path = file.path().display().to_string();
        let matches = command.get_matches_from(["x", "--tools", &path, "--tool-choice", choice]);
        let mut request = Request::text("");
        let args = ToolArgs::from_arg_matches(&matches).unwrap();
        args.apply(&mut request).map_err(|failure| failure.message)?;
        Ok(request)
    }

    #[test]
    fn tools_are_read_in_both_shapes_with_their_keys_in_order() {
        let json = r#"[{"type": "function", "function": {"name": "f", "description": "F",
            "parameters": {"type": "object", "properties": {"z": {}, "a": {}}}}}, {"name": "g"}]"#;
        let request = applied(json, "g").unwrap();
        assert_eq!(request.tools.choice, ToolChoice::Named("g".to_string()));
        let [f, g] = request.tools.offered.as_slice() else { panic!("two tools") };
        assert_eq!(f.parameters, r#"{"type":"object","properties":{"z":{},"a":{}}}"#);
        assert_eq!((g.name.as_str(), &g.description), ("g", &None));
    }

    #[test]
    fn what_is_no_tool_is_refused_with_its_place() {
        assert!(applied("{}", "auto").unwrap_err().contains("no list of tools"));
        assert!(applied("[{\"name\": 1}]", "auto").unwrap_err().contains("tool 0: `name`"));
        assert!(
            applied("[{\"name\": \"f\", \"parameters\": []}]", "auto").unwrap_err().contains("`parameters`")
        );
    }
}
