//! What a response is asked with, item by item, as turns of a conversation.

use super::messages::{arguments, text};
use crate::refusal::Refusal;
use crate::wire::fields::Fields;
use crate::wire::pictures::Shown;
use crate::wire::request::wrong;
use rhetor_lm::{Message, Role, ToolCall};
use serde_json::Value;

/// Turns, while items are added to them.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The turns so far.
    pub messages: Vec<Message>,
    /// The pictures that they show.
    pub shown: Vec<Shown>,
    /// What the model thought before the turn that follows.
    thought: Option<String>,
    /// Whether the last turn is one of the assistant to which calls may be added.
    is_open: bool,
}

impl Turns {
    /// Turns that go on after `messages`.
    pub fn after(messages: Vec<Message>) -> Turns {
        Turns { messages, ..Turns::default() }
    }

    /// Adds `input`: a text of the user, or a list of items.
    pub fn add(&mut self, fields: &mut Fields, input: Option<Value>) -> Result<(), Refusal> {
        match input {
            None => Err(Refusal::field("input", "input is required")),
            Some(Value::String(text)) => {
                self.messages.push(Message::user(text));
                Ok(())
            }
            Some(Value::Array(items)) if items.is_empty() => Err(wrong("input", "the list is empty")),
            Some(Value::Array(items)) => {
                for (i, item) in items.into_iter().enumerate() {
                    let mut item = fields.part(item, format!("input[{i}]"))?;
                    self.item(&mut item)?;
                    // What replies carry and clients send back.
                    item.labels(&["id", "status"]);
                    fields.close(item)?;
                }
                Ok(())
            }
            Some(_) => Err(wrong("input", "expected a text or a list of items")),
        }
    }

    fn item(&mut self, item: &mut Fields) -> Result<(), Refusal> {
        let kind = item.take::<String>("type")?;
        match kind.as_deref().unwrap_or("message") {
            "message" => self.message(item),
            "function_call" => self.call(item),
            "function_call_output" => self.output(item),
            "reasoning" => self.reasoning(item),
            other => {
                let message = format!("items of type {other:?} are not read here");
                Err(wrong(&item.path("type"), message).code("unsupported_parameter"))
            }
        }
    }

    fn message(&mut self, item: &mut Fields) -> Result<(), Refusal> {
        let role = match item.need::<String>("role")?.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => {
                let message = format!("{other:?} is none of system, developer, user, assistant");
                return Err(wrong(&item.path("role"), message));
            }
        };
        let path = item.path("content");
        let content = item.value("content");
        if content.is_none() {
            return Err(Refusal::field(&path, format!("{path} is required")));
        }
        let content = text(item, content, &path, role, &mut self.shown)?;
        self.push(Message::new(role, content));
        Ok(())
    }

    /// Calls that follow each other, or what the assistant said, are one turn.
    fn call(&mut self, item: &mut Fields) -> Result<(), Refusal> {
        let (id, name) = (item.need("call_id")?, item.need("name")?);
        let path = item.path("arguments");
        let arguments = arguments(item.need("arguments")?, &path)?;
        if !self.is_open || self.thought.is_some() {
            self.push(Message::assistant(""));
        }
        if let Some(last) = self.messages.last_mut() {
            last.tool_calls.push(ToolCall { id, name, arguments });
        }
        Ok(())
    }

    fn output(&mut self, item: &mut Fields) -> Result<(), Refusal> {
        let id: String = item.need("call_id")?;
        let path = item.path("output");
        let output =
            item.value("output").ok_or_else(|| Refusal::field(&path, format!("{path} is required")))?;
        let content = text(item, Some(output), &path, Role::Tool, &mut self.shown)?;
        let mut calls = self.messages.iter().rev().flat_map(|message| &message.tool_calls);
        let name = calls.find(|call| call.id == id).map(|call| call.name.clone()).ok_or_else(|| {
            wrong(&item.path("call_id"), format!("no item before is a call of the id {id:?}"))
        })?;
        let message =
            Message { name: Some(name), tool_call_id: Some(id), ..Message::new(Role::Tool, content) };
        self.push(message);
        Ok(())
    }

    /// Thoughts belong to the turn that follows.
    fn reasoning(&mut self, item: &mut Fields) -> Result<(), Refusal> {
        let mut thought = String::new();
        for name in ["summary", "content"] {
            let path = item.path(name);
            for (i, part) in item.list(name)?.unwrap_or_default().into_iter().enumerate() {
                let mut part = item.part(part, format!("{path}[{i}]"))?;
                part.labels(&["type"]);
                thought.push_str(&part.need::<String>("text")?);
                item.close(part)?;
            }
        }
        item.refuse("encrypted_content", "thoughts are not encrypted here")?;
        self.thought = Some(thought).filter(|thought| !thought.is_empty());
        Ok(())
    }

    fn push(&mut self, mut message: Message) {
        let thought = self.thought.take();
        self.is_open = message.role == Role::Assistant;
        if self.is_open {
            message.thinking = thought;
        }
        self.messages.push(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(input: Value) -> Result<Vec<Message>, String> {
        let mut fields = Fields::of(json!({}), "", false).unwrap();
        let mut turns = Turns::default();
        turns.add(&mut fields, Some(input)).map_err(|refusal| refusal.param.unwrap())?;
        Ok(turns.messages)
    }

    #[test]
    fn calls_and_thoughts_become_parts_of_the_assistants_turn() {
        let call = |id: &str| json!({ "type": "function_call", "id": "fc_1", "call_id": id, "name": "f", "arguments": "{}" });
        let said = json!([{ "type": "output_text", "text": "Well.", "annotations": [], "logprobs": [] }]);
        let messages = read(json!([
            { "role": "user", "content": [{ "type": "input_text", "text": "?" }] },
            { "type": "reasoning", "id": "rs_1", "summary": [{ "type": "summary_text", "text": "hm" }] },
            { "type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": said },
            call("a"),
            call("b"),
            { "type": "function_call_output", "call_id": "b", "output": "2" },
        ]))
        .unwrap();
        assert_eq!(messages.len(), 3);
        assert_eq!((messages[1].content.as_str(), messages[1].thinking.as_deref()), ("Well.", Some("hm")));
        assert_eq!(messages[1].tool_calls.len(), 2);
        assert_eq!((messages[2].role, messages[2].name.as_deref()), (Role::Tool, Some("f")));
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_path() {
        assert_eq!(read(json!([])), Err("input".to_string()));
        assert_eq!(read(json!([{ "type": "item_reference", "id": "x" }])), Err("input[0].type".to_string()));
        let stray = json!([{ "type": "function_call_output", "call_id": "x", "output": "" }]);
        assert_eq!(read(stray), Err("input[0].call_id".to_string()));
        assert_eq!(read(json!([{ "role": "user" }])), Err("input[0].content".to_string()));
        let extra = json!([{ "role": "user", "content": "", "mood": 1 }]);
        assert_eq!(read(extra), Err("input[0].mood".to_string()));
    }
}
