//! Messages as Ollama's clients send them.

use crate::refusal::Refusal;
use crate::wire::fields::Fields;
use crate::wire::pictures::{PLACE, of_base64};
use crate::wire::request::wrong;
use rhetor_lm::{Message, Role, ToolCall};
use rhetor_store::{Settings, Turn};
use serde_json::{Value, json};
use std::sync::Arc;

/// Messages and the pictures that they show.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    pub messages: Vec<Message>,
    pub pictures: Vec<Arc<[u8]>>,
}

/// Reads `messages`.
pub(crate) fn messages(fields: &mut Fields) -> Result<Talk, Refusal> {
    let path = fields.path("messages");
    let mut talk = Talk::default();
    for (i, value) in fields.list("messages")?.unwrap_or_default().into_iter().enumerate() {
        let mut entry = fields.part(value, format!("{path}[{i}]"))?;
        let message = message(&mut entry, &mut talk)?;
        talk.messages.push(message);
        fields.close(entry)?;
    }
    Ok(talk)
}

fn message(entry: &mut Fields, talk: &mut Talk) -> Result<Message, Refusal> {
    let path = entry.path("role");
    let role: String = entry.need("role")?;
    let role = match role.to_lowercase().as_str() {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        _ => return Err(wrong(&path, format!("{role:?} is none of system, user, assistant and tool"))),
    };
    let mut content: String = entry.take("content")?.unwrap_or_default();
    let pictures = pictures(entry, "images")?;
    content.insert_str(0, &PLACE.repeat(pictures.len()));
    talk.pictures.extend(pictures);
    let path = entry.path("tool_calls");
    let mut tool_calls = Vec::new();
    for (i, value) in entry.list("tool_calls")?.unwrap_or_default().into_iter().enumerate() {
        let mut call = entry.part(value, format!("{path}[{i}]"))?;
        tool_calls.push(tool_call(&mut call, i)?);
        entry.close(call)?;
    }
    Ok(Message {
        thinking: entry.take("thinking")?,
        tool_calls,
        tool_call_id: entry.take("tool_call_id")?,
        name: entry.take("tool_name")?,
        ..Message::new(role, content)
    })
}

fn tool_call(call: &mut Fields, i: usize) -> Result<ToolCall, Refusal> {
    let id = call.take("id")?.unwrap_or_else(|| format!("call_{i}"));
    call.labels(&["type"]);
    let path = call.path("function");
    let mut function = call.object("function")?.ok_or_else(|| wrong(&path, "it is required"))?;
    function.labels(&["index"]);
    let name = function.need("name")?;
    let path = function.path("arguments");
    let arguments = match function.value("arguments") {
        None => json!({}),
        Some(arguments @ Value::Object(_)) => arguments,
        Some(_) => return Err(wrong(&path, "expected an object")),
    };
    call.close(function)?;
    Ok(ToolCall { id, name, arguments: arguments.to_string() })
}

/// Reads pictures in base64.
pub(crate) fn pictures(fields: &mut Fields, name: &str) -> Result<Vec<Arc<[u8]>>, Refusal> {
    let path = fields.path(name);
    let files: Vec<String> = fields.take(name)?.unwrap_or_default();
    files.iter().enumerate().map(|(i, file)| of_base64(file, &format!("{path}[{i}]"))).collect()
}

/// A conversation behind what the model brings along: its own turns, and its system turn unless the conversation begins
/// with one.
pub(crate) fn behind(settings: &Settings, messages: Vec<Message>) -> Vec<Message> {
    let mut all = turns(&settings.messages);
    if let Some(system) = &settings.system
        && messages.first().is_none_or(|first| first.role != Role::System)
    {
        all.insert(0, Message::system(system.as_str()));
    }
    all.extend(messages);
    all
}

/// Turns of a model's own, as they stand before a conversation.
pub(crate) fn turns(turns: &[Turn]) -> Vec<Message> {
    let role = |role: &str| match role {
        "system" => Role::System,
        "assistant" => Role::Assistant,
        _ => Role::User,
    };
    turns.iter().map(|turn| Message::new(role(&turn.role), turn.content.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Talk, Refusal> {
        let mut fields = Fields::of(json!({ "messages": value }), "", false)?;
        let talk = messages(&mut fields)?;
        fields.finish()?;
        Ok(talk)
    }

    #[test]
    fn calls_and_what_they_return_are_read() {
        let talk = read(json!([
            { "role": "USER", "content": "Warm?", "images": ["aGk="] },
            { "role": "assistant", "tool_calls": [
                { "function": { "index": 0, "name": "weather", "arguments": { "z": 1, "a": 2 } } },
            ] },
            { "role": "tool", "content": "7", "tool_name": "weather", "images": null },
        ]))
        .unwrap();
        assert_eq!(talk.messages[0].content, format!("{PLACE}Warm?"));
        assert_eq!(*talk.pictures[0], *b"hi");
        assert_eq!(talk.messages[1].tool_calls[0].arguments, r#"{"z":1,"a":2}"#);
        assert_eq!(talk.messages[2].name.as_deref(), Some("weather"));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        for (value, path) in [
            (json!([{ "role": "boss" }]), "messages[0].role"),
            (json!([{ "content": "x" }]), "messages[0].role"),
            (json!([{ "role": "user", "colour": 1 }]), "messages[0].colour"),
            (json!([{ "role": "user", "images": ["?"] }]), "messages[0].images[0]"),
            (
                json!([{ "role": "assistant", "tool_calls": [{ "function": { "name": "f", "arguments": "{}" } }] }]),
                "messages[0].tool_calls[0].function.arguments",
            ),
        ] {
            assert_eq!(read(value).unwrap_err().param.as_deref(), Some(path));
        }
    }
}
