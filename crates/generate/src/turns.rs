//! Messages and tools as chat templates see them: Hugging Face's shape of OpenAI's objects.

use crate::jinja::from_json;
use minijinja::value::Value;
use rhetor_lm::{Message, Role, Tool, ToolCall};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// How a template wants the arguments of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// As an object.
    Object,
    /// As JSON text.
    Text,
}

/// The letters of ids of calls.
pub(crate) const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Each message with what it has; the name of a turn of a tool is found by the call that it answers.
///
/// Templates of Mistral refuse ids of calls that have not nine letters; `source` tells, and they get others.
pub(crate) fn turn_values(messages: &[Message], arguments: Arguments, source: &str) -> Vec<Value> {
    let is_short = source.contains("length != 9") || source.contains("length == 9");
    let id_of = |id: &str| if is_short { nine_letters(id) } else { id.to_string() };
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut values = Vec::with_capacity(messages.len());
    for message in messages {
        let mut value = Map::new();
        let mut set = |key: &str, item: Json| {
            value.insert(key.to_string(), item);
        };
        set("role", message.role.name().into());
        set("content", message.content.as_str().into());
        if let Some(thinking) = &message.thinking {
            set("reasoning_content", thinking.as_str().into());
            set("thinking", thinking.as_str().into());
        }
        if !message.tool_calls.is_empty() {
            let call = |call: &ToolCall| {
                let function = json!({"name": call.name, "arguments": arguments_value(call, arguments)});
                json!({"id": id_of(&call.id), "type": "function", "function": function})
            };
            set("tool_calls", message.tool_calls.iter().map(call).collect());
            names.extend(message.tool_calls.iter().map(|call| (call.id.as_str(), call.name.as_str())));
        }
        if let Some(id) = &message.tool_call_id {
            set("tool_call_id", id_of(id).into());
        }
        let answered = || message.tool_call_id.as_deref().and_then(|id| names.get(id).copied());
        if let Some(name) = message.name.as_deref().or_else(answered) {
            set("name", name.into());
        }
        values.push(from_json(&Json::Object(value)));
    }
    values
}

/// `messages` with one call in a turn, each followed by what it returned: some templates know no more.
pub(crate) fn one_by_one(messages: &[Message]) -> Vec<Message> {
    let mut turns = Vec::with_capacity(messages.len() + 4);
    let mut rest = messages;
    while let Some((message, after)) = rest.split_first() {
        rest = after;
        if message.tool_calls.len() < 2 {
            turns.push(message.clone());
            continue;
        }
        let n_results = rest.iter().take_while(|next| next.role == Role::Tool).count();
        let mut results: Vec<&Message> = rest[..n_results].iter().collect();
        rest = &rest[n_results..];
        for (i, call) in message.tool_calls.iter().enumerate() {
            let said = |text: &String| if i == 0 { text.clone() } else { String::new() };
            turns.push(Message {
                content: said(&message.content),
                thinking: message.thinking.as_ref().filter(|_| i == 0).cloned(),
                tool_calls: vec![call.clone()],
                ..message.clone()
            });
            let is_own = |result: &&Message| result.tool_call_id.as_deref().is_none_or(|id| id == call.id);
            if let Some(at) = results.iter().position(is_own) {
                turns.push(results.remove(at).clone());
            }
        }
        turns.extend(results.into_iter().cloned());
    }
    turns
}

/// The tools as OpenAI's objects. Parameters that are no JSON become text.
pub(crate) fn tool_values(tools: &[Tool]) -> Json {
    tools.iter().map(tool_value).collect()
}

/// One tool as OpenAI's object.
pub(crate) fn tool_value(tool: &Tool) -> Json {
    let mut function = Map::new();
    function.insert("name".to_string(), tool.name.as_str().into());
    if let Some(description) = &tool.description {
        function.insert("description".to_string(), description.as_str().into());
    }
    let parameters = serde_json::from_str(&tool.parameters);
    function.insert("parameters".to_string(), parameters.unwrap_or_else(|_| tool.parameters.as_str().into()));
    json!({"type": "function", "function": function})
}

/// The arguments of a call; what is no object stays the text that it is.
pub(crate) fn arguments_value(call: &ToolCall, arguments: Arguments) -> Json {
    match serde_json::from_str(&call.arguments) {
        Ok(value @ Json::Object(_)) if arguments == Arguments::Object => value,
        _ => call.arguments.as_str().into(),
    }
}

/// `id` if it has nine letters and digits, else nine that are its own.
fn nine_letters(id: &str) -> String {
    if id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return id.to_string();
    }
    Sha256::digest(id)[..9].iter().map(|&byte| char::from(LETTERS[usize::from(byte) % 62])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_of_a_tool_is_named_after_the_call_that_it_answers() {
        let call = |id: &str, name: &str| ToolCall {
            id: id.to_string(),
            name: name.to_string(),
            arguments: r#"{"z": 1, "a": [2.50]}"#.to_string(),
        };
        let asked = Message { tool_calls: vec![call("1", "f"), call("2", "g")], ..Message::assistant("") };
        let told = Message { tool_call_id: Some("2".to_string()), ..Message::new(Role::Tool, "R") };
        let values = turn_values(&[asked, told], Arguments::Object, "");
        let function = values[0].get_attr("tool_calls").unwrap().get_item_by_index(0).unwrap();
        let function = function.get_attr("function").unwrap();
        assert_eq!(function.get_attr("arguments").unwrap().to_string(), "{'z': 1, 'a': [2.5]}");
        assert_eq!(values[1].get_attr("name").unwrap().to_string(), "g");
        assert!(values[1].get_attr("tool_calls").unwrap().is_undefined());
    }

    #[test]
    fn calls_of_one_turn_may_stand_in_turns_of_their_own_with_their_results() {
        let call =
            |id: &str| ToolCall { id: id.to_string(), name: "f".to_string(), arguments: "{}".to_string() };
        let result =
            |id: &str| Message { tool_call_id: Some(id.to_string()), ..Message::new(Role::Tool, id) };
        let both = Message { tool_calls: vec![call("1"), call("2")], ..Message::assistant("Two.") };
        let turns = [Message::user("U"), both, result("2"), result("1"), Message::user("V")];
        let found: Vec<(String, usize)> =
            one_by_one(&turns).into_iter().map(|turn| (turn.content, turn.tool_calls.len())).collect();
        let expected = [("U", 0), ("Two.", 1), ("1", 0), ("", 1), ("2", 0), ("V", 0)];
        assert_eq!(found, expected.map(|(text, n)| (text.to_string(), n)));
    }

    #[test]
    fn templates_that_want_nine_letters_get_nine_that_agree() {
        let id = |text: &str| nine_letters(text);
        assert_eq!(id("abcDEF123"), "abcDEF123");
        assert_eq!(id("call_1"), id("call_1"));
        assert_ne!(id("call_1"), id("call_2"));
        assert!(id("").len() == 9 && id("a b").bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
