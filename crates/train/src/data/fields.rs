//! Named fields: what is at them, and what is wrong with it.

use super::transcript;
use rhetor_lm::{Message, Role};
use serde_json::{Map, Value};

/// The named fields of a row.
pub(crate) type Fields = Map<String, Value>;

/// What is wrong with an object.
#[derive(Debug, PartialEq)]
pub(crate) struct Wrong {
    pub expected: String,
    pub got: String,
}

/// What was expected and what is there.
pub(crate) fn wrong(expected: impl Into<String>, got: impl Into<String>) -> Wrong {
    Wrong { expected: expected.into(), got: got.into() }
}

/// A value as messages about it show it.
pub(crate) fn describe(value: Option<&Value>) -> String {
    let Some(value) = value else { return "nothing".to_string() };
    let kind = match value {
        Value::Null => return "null".to_string(),
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    let shown = value.to_string();
    let cut = shown.char_indices().nth(60).map_or(shown.len(), |(at, _)| at);
    format!("{kind}, {}{}", &shown[..cut], if cut < shown.len() { "..." } else { "" })
}

/// The first of the fields that is there.
pub(crate) fn field<'a>(fields: &'a Fields, keys: &str) -> Option<&'a Value> {
    keys.split('|').find_map(|key| fields.get(key))
}

pub(crate) fn text_at(fields: &Fields, keys: &str) -> Result<String, Wrong> {
    match field(fields, keys) {
        Some(Value::String(text)) => Ok(text.clone()),
        other => Err(wrong(format!("a text at `{keys}`"), describe(other))),
    }
}

/// A text that may be missing, null or empty.
pub(crate) fn optional_text(fields: &Fields, keys: &str) -> Result<Option<String>, Wrong> {
    match field(fields, keys) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        other => Err(wrong(format!("a text or nothing at `{keys}`"), describe(other))),
    }
}

pub(crate) fn list_at<'a>(fields: &'a Fields, keys: &str) -> Result<&'a [Value], Wrong> {
    match field(fields, keys) {
        Some(Value::Array(items)) => Ok(items),
        other => Err(wrong(format!("a list at `{keys}`"), describe(other))),
    }
}

/// A text, number or truth value as it is written.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

pub(crate) fn role(name: &str) -> Option<Role> {
    Some(match name {
        "system" | "developer" => Role::System,
        "user" | "human" => Role::User,
        "assistant" | "gpt" | "chatgpt" | "model" | "bing" | "bard" => Role::Assistant,
        "tool" | "function" | "function_response" | "observation" => Role::Tool,
        _ => return None,
    })
}

pub(crate) fn message_list(items: &[Value], role_key: &str, text_key: &str) -> Result<Vec<Message>, Wrong> {
    let message = |item: &Value| {
        let fields = item.as_object().ok_or_else(|| wrong("a message", describe(Some(item))))?;
        for unread in ["tool_calls", "function_call"] {
            if fields.get(unread).is_some_and(|calls| !calls.is_null()) {
                return Err(wrong("messages of text only", format!("a message with `{unread}`")));
            }
        }
        let name = text_at(fields, role_key)?;
        let role = role(&name).ok_or_else(|| {
            wrong(format!("a speaker that is known at `{role_key}`"), format!("the speaker {name:?}"))
        })?;
        Ok(Message::new(role, text_at(fields, text_key)?))
    };
    items.iter().map(message).collect()
}

/// A prompt as messages: a list of them, a transcript, or one text of the user.
pub(crate) fn prompt_at(fields: &Fields, key: &str) -> Result<Vec<Message>, Wrong> {
    match fields.get(key) {
        Some(Value::String(text)) if transcript::is_transcript(text) => Ok(transcript::turns(text)),
        Some(Value::String(text)) => Ok(vec![Message::user(text.as_str())]),
        Some(Value::Array(items)) => message_list(items, "role", "content"),
        other => Err(wrong(format!("a text or a list of messages at `{key}`"), describe(other))),
    }
}

/// An answer: a text, or a list that holds one message of the assistant.
pub(crate) fn answer_at(fields: &Fields, key: &str) -> Result<String, Wrong> {
    match fields.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(items)) => match message_list(items, "role", "content")?.as_slice() {
            [only] if only.role == Role::Assistant => Ok(only.content.clone()),
            turns => Err(wrong(
                format!("one message of the assistant at `{key}`"),
                format!("{} messages", turns.len()),
            )),
        },
        other => Err(wrong(format!("a text or a message at `{key}`"), describe(other))),
    }
}
