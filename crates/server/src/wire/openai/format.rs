//! What an answer must look like, and which tools it may call.

use crate::refusal::Refusal;
use crate::wire::fields::Fields;
use crate::wire::request::{schema, wrong};
use rhetor_lm::{Constraint, Tool, ToolChoice};
use serde_json::Value;

/// `{"type": "text" | "json_object" | "json_schema", ...}` in the field `name`. The schema stands in `json_schema`, or, as
/// in `text.format` of responses, beside the type.
pub(crate) fn format(fields: &mut Fields, name: &str) -> Result<Option<Constraint>, Refusal> {
    let Some(mut format) = fields.object(name)? else { return Ok(None) };
    let constraint = match format.need::<String>("type")?.as_str() {
        "text" => None,
        "json_object" => Some(Constraint::Json),
        "json_schema" => match format.object("json_schema")? {
            Some(mut named) => {
                let constraint = named_schema(&mut named)?;
                format.close(named)?;
                Some(constraint)
            }
            None => Some(named_schema(&mut format)?),
        },
        other => {
            let message = format!("{other:?} is none of text, json_object, json_schema");
            return Err(wrong(&format.path("type"), message));
        }
    };
    fields.close(format)?;
    Ok(constraint)
}

/// `{"name", "schema", "strict", "description"}`. The schema is kept to, `strict` or not.
fn named_schema(named: &mut Fields) -> Result<Constraint, Refusal> {
    named.need::<String>("name")?;
    named.take::<String>("description")?;
    named.take::<bool>("strict")?;
    let path = named.path("schema");
    match named.value("schema") {
        Some(value) => schema(&value, &path),
        None => Ok(Constraint::Json),
    }
}

/// `tool_choice`: `none`, `auto`, `required`, the name of a function in chat's form or in that of responses, or a list of
/// allowed tools, which shortens `offered`.
pub(crate) fn tool_choice(fields: &mut Fields, offered: &mut Vec<Tool>) -> Result<ToolChoice, Refusal> {
    let path = fields.path("tool_choice");
    let by_word = |word: &str| match word {
        "none" => Ok(ToolChoice::None),
        "auto" => Ok(ToolChoice::Auto),
        "required" => Ok(ToolChoice::Required),
        other => Err(wrong(&path, format!("{other:?} is none of none, auto, required"))),
    };
    let choice = match fields.value("tool_choice") {
        None => return Ok(ToolChoice::Auto),
        Some(Value::String(word)) => by_word(&word)?,
        Some(value) => {
            let mut choice = fields.part(value, &path)?;
            let chosen = match choice.need::<String>("type")?.as_str() {
                "function" => ToolChoice::Named(function_name(&mut choice)?),
                "allowed_tools" => {
                    let inner = choice.object("allowed_tools")?;
                    let chosen = match inner {
                        Some(mut inner) => {
                            let word = allowed(&mut inner, offered)?;
                            choice.close(inner)?;
                            word
                        }
                        None => allowed(&mut choice, offered)?,
                    };
                    by_word(&chosen)?
                }
                other => {
                    let message = format!("{other:?} is neither function nor allowed_tools");
                    return Err(wrong(&choice.path("type"), message));
                }
            };
            fields.close(choice)?;
            chosen
        }
    };
    match &choice {
        ToolChoice::Named(name) if !offered.iter().any(|tool| tool.name == *name) => {
            Err(wrong(&path, format!("there is no tool called `{name}`")))
        }
        ToolChoice::Required if offered.is_empty() => Err(wrong(&path, "there are no tools to be called")),
        _ => Ok(choice),
    }
}

/// The name in `{"function": {"name"}}` or in `{"name"}`.
fn function_name(choice: &mut Fields) -> Result<String, Refusal> {
    let Some(mut function) = choice.object("function")? else { return choice.need("name") };
    let name = function.need("name")?;
    choice.close(function)?;
    Ok(name)
}

/// `{"mode", "tools"}`: leaves those of `offered` that are allowed; returns the mode.
fn allowed(choice: &mut Fields, offered: &mut Vec<Tool>) -> Result<String, Refusal> {
    let mode: String = choice.need("mode")?;
    let path = choice.path("tools");
    let mut names = Vec::new();
    for (i, tool) in choice.list("tools")?.unwrap_or_default().into_iter().enumerate() {
        let mut tool = choice.part(tool, format!("{path}[{i}]"))?;
        tool.labels(&["type"]);
        let name = function_name(&mut tool)?;
        if !offered.iter().any(|offered| offered.name == name) {
            return Err(wrong(&path, format!("there is no tool called `{name}`")));
        }
        names.push(name);
        choice.close(tool)?;
    }
    offered.retain(|tool| names.contains(&tool.name));
    Ok(mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn formats_are_text_any_object_or_a_schema() {
        let read = |value| {
            let mut fields = Fields::of(json!({ "response_format": value }), "", false).unwrap();
            format(&mut fields, "response_format").map_err(|refusal| refusal.param.unwrap())
        };
        assert_eq!(read(json!({ "type": "text" })), Ok(None));
        assert_eq!(read(json!({ "type": "json_object" })), Ok(Some(Constraint::Json)));
        let named = json!({ "name": "a", "strict": true, "schema": { "type": "object" } });
        let expected = Ok(Some(Constraint::JsonSchema(r#"{"type":"object"}"#.to_string())));
        assert_eq!(read(json!({ "type": "json_schema", "json_schema": named })), expected);
        let flat = json!({ "type": "json_schema", "name": "a", "schema": { "type": "object" } });
        assert_eq!(read(flat), expected);
        assert_eq!(read(json!({ "type": "yaml" })), Err("response_format.type".to_string()));
        let nameless = json!({ "type": "json_schema", "json_schema": {} });
        assert_eq!(read(nameless), Err("response_format.json_schema.name".to_string()));
    }

    #[test]
    fn tools_are_chosen_by_word_by_name_or_by_a_shorter_list() {
        let tool =
            |name: &str| Tool { name: name.to_string(), description: None, parameters: "{}".to_string() };
        let read = |value| {
            let mut offered = vec![tool("a"), tool("b")];
            let mut fields = Fields::of(json!({ "tool_choice": value }), "", false).unwrap();
            let choice = tool_choice(&mut fields, &mut offered).map_err(|refusal| refusal.message)?;
            Ok::<_, String>((choice, offered.len()))
        };
        assert_eq!(read(json!(null)), Ok((ToolChoice::Auto, 2)));
        assert_eq!(read(json!("none")), Ok((ToolChoice::None, 2)));
        let named = json!({ "type": "function", "function": { "name": "b" } });
        assert_eq!(read(named), Ok((ToolChoice::Named("b".to_string()), 2)));
        assert_eq!(read(json!({ "type": "function", "name": "b" })).unwrap().1, 2);
        let listed = json!([{ "type": "function", "function": { "name": "a" } }]);
        let short =
            json!({ "type": "allowed_tools", "allowed_tools": { "mode": "required", "tools": listed } });
        assert_eq!(read(short), Ok((ToolChoice::Required, 1)));
        let unknown = read(json!({ "type": "function", "name": "c" })).unwrap_err();
        assert_eq!(unknown, "tool_choice: there is no tool called `c`");
        assert!(read(json!("always")).is_err());
    }
}
