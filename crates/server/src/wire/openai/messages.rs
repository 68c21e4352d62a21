//! Turns of a conversation as chat has them.

use crate::refusal::Refusal;
use crate::wire::fields::Fields;
use crate::wire::pictures::{PLACE, Shown};
use crate::wire::request::wrong;
use rhetor_lm::{Message, Role, ToolCall};
use serde_json::Value;

/// The turns in `listed`, which stands at `path`, and the pictures that they show.
pub(crate) fn messages(
    fields: &mut Fields,
    listed: Vec<Value>,
    path: &str,
) -> Result<(Vec<Message>, Vec<Shown>), Refusal> {
    if listed.is_empty() {
        return Err(wrong(path, "there is no message"));
    }
    let (mut messages, mut shown) = (Vec::with_capacity(listed.len()), Vec::new());
    for (i, listed) in listed.into_iter().enumerate() {
        let mut entry = fields.part(listed, format!("{path}[{i}]"))?;
        let message = message(&mut entry, &messages, &mut shown)?;
        messages.push(message);
        fields.close(entry)?;
    }
    Ok((messages, shown))
}

fn message(entry: &mut Fields, before: &[Message], shown: &mut Vec<Shown>) -> Result<Message, Refusal> {
    let role = match entry.need::<String>("role")?.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => {
            let message = format!("{other:?} is none of system, developer, user, assistant, tool");
            return Err(wrong(&entry.path("role"), message));
        }
    };
    let path = entry.path("content");
    let content = entry.value("content");
    let is_there = content.is_some();
    let mut message = Message::new(role, text(entry, content, &path, role, shown)?);
    // Who among several of one role speaks: no template asks.
    entry.labels(&["name"]);
    if role == Role::Assistant {
        message.thinking = thinking(entry)?;
        message.tool_calls = tool_calls(entry)?;
        // What replies carry and clients send back.
        entry.labels(&["refusal", "annotations", "audio", "function_call", "parsed"]);
    }
    if role == Role::Tool {
        let id: String = entry.need("tool_call_id")?;
        let calls = before.iter().rev().flat_map(|message| &message.tool_calls);
        let call = calls.into_iter().find(|call| call.id == id).ok_or_else(|| {
            wrong(&entry.path("tool_call_id"), format!("no message before has a call of the id {id:?}"))
        })?;
        message.name = Some(call.name.clone());
        message.tool_call_id = Some(id);
    }
    if !is_there && message.tool_calls.is_empty() && message.thinking.is_none() {
        return Err(Refusal::field(&path, format!("{path} is required")));
    }
    Ok(message)
}

/// Content: a text, or parts of text and pictures, which become one text.
pub(crate) fn text(
    entry: &mut Fields,
    content: Option<Value>,
    path: &str,
    role: Role,
    shown: &mut Vec<Shown>,
) -> Result<String, Refusal> {
    let parts = match content {
        None => return Ok(String::new()),
        Some(Value::String(text)) => return Ok(text),
        Some(Value::Array(parts)) => parts,
        Some(_) => return Err(wrong(path, "expected a string or a list of parts")),
    };
    let mut text = String::new();
    for (i, part) in parts.into_iter().enumerate() {
        let mut part = entry.part(part, format!("{path}[{i}]"))?;
        match part.need::<String>("type")?.as_str() {
            "text" | "input_text" | "output_text" => text.push_str(&part.need::<String>("text")?),
            "refusal" if role == Role::Assistant => text.push_str(&part.need::<String>("refusal")?),
            "image_url" | "input_image" if role == Role::User => {
                shown.push(picture(&mut part)?);
                text.push_str(PLACE);
            }
            other => {
                let message =
                    format!("a part of type {other:?} cannot be read in a turn of the {}", role.name());
                return Err(wrong(&part.path("type"), message).code("unsupported_parameter"));
            }
        }
        part.labels(&["annotations", "logprobs"]);
        entry.close(part)?;
    }
    Ok(text)
}

/// `{"image_url": {"url", "detail"}}` of chat, or `{"image_url": "...", "detail"}` of responses. Models here look at one
/// size only, so `detail` must leave them the choice.
fn picture(part: &mut Fields) -> Result<Shown, Refusal> {
    let path = part.path("image_url");
    let shown = match part.value("image_url") {
        Some(Value::String(url)) => Shown { url, path },
        Some(value) => {
            let mut inner = part.part(value, &path)?;
            let shown = Shown { url: inner.need("url")?, path: inner.path("url") };
            detail(&mut inner)?;
            part.close(inner)?;
            shown
        }
        None => return Err(Refusal::field(&path, format!("{path} is required"))),
    };
    detail(part)?;
    part.refuse("file_id", "there are no files on this server")?;
    Ok(shown)
}

fn detail(fields: &mut Fields) -> Result<(), Refusal> {
    match fields.take::<String>("detail")?.as_deref() {
        None | Some("auto") => Ok(()),
        Some(_) => fields.unsupported("detail", "a model looks at one size only; leave it or say auto"),
    }
}

/// What the model thought before it spoke, under either name.
fn thinking(entry: &mut Fields) -> Result<Option<String>, Refusal> {
    let thought: Option<String> = entry.take("reasoning")?;
    let thinking = entry.take("reasoning_content")?;
    Ok(thought.or(thinking).filter(|text: &String| !text.is_empty()))
}

fn tool_calls(entry: &mut Fields) -> Result<Vec<ToolCall>, Refusal> {
    let path = entry.path("tool_calls");
    let mut calls = Vec::new();
    for (i, listed) in entry.list("tool_calls")?.unwrap_or_default().into_iter().enumerate() {
        let mut call = entry.part(listed, format!("{path}[{i}]"))?;
        let id = call.need("id")?;
        call.labels(&["type", "index"]);
        let at = call.path("function");
        let mut function = call.object("function")?.ok_or_else(|| wrong(&at, "it is required"))?;
        let name = function.need("name")?;
        let at = function.path("arguments");
        let arguments = arguments(function.need("arguments")?, &at)?;
        function.labels(&["parsed_arguments"]);
        call.close(function)?;
        entry.close(call)?;
        calls.push(ToolCall { id, name, arguments });
    }
    Ok(calls)
}

/// Arguments of a call: a JSON object as text; nothing at all stands for no arguments.
pub(crate) fn arguments(text: String, path: &str) -> Result<String, Refusal> {
    if text.trim().is_empty() {
        return Ok("{}".to_string());
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(_)) => Ok(text),
        _ => Err(wrong(path, "expected the text of a JSON object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(listed: Value) -> Result<(Vec<Message>, Vec<Shown>), String> {
        let mut fields = Fields::of(json!({ "messages": listed }), "", false).unwrap();
        let listed = fields.list("messages").unwrap().unwrap();
        messages(&mut fields, listed, "messages").map_err(|refusal| refusal.param.unwrap())
    }

    #[test]
    fn parts_become_one_text_with_places_for_pictures() {
        let parts = json!([
            { "type": "text", "text": "a " },
            { "type": "image_url", "image_url": { "url": "data:,x", "detail": "auto" } },
            { "type": "text", "text": "b" },
        ]);
        let (messages, shown) = read(json!([
            { "role": "developer", "content": "S" },
            { "role": "user", "content": parts, "name": "me" },
        ]))
        .unwrap();
        assert_eq!(messages[0], Message::system("S"));
        assert_eq!(messages[1], Message::user("a <Img><ImageHere></Img> b"));
        assert_eq!(shown[0].path, "messages[1].content[1].image_url.url");
    }

    #[test]
    fn a_turn_of_a_tool_is_named_after_the_call_that_it_answers() {
        let call = json!({ "id": "call_1", "type": "function", "function": { "name": "add", "arguments": "{\"b\":1,\"a\":2}" } });
        let listed = json!([
            { "role": "user", "content": "?" },
            { "role": "assistant", "content": null, "refusal": null, "tool_calls": [call] },
            { "role": "tool", "tool_call_id": "call_1", "content": "3" },
        ]);
        let (messages, _) = read(listed.clone()).unwrap();
        assert_eq!(messages[1].tool_calls[0].arguments, "{\"b\":1,\"a\":2}");
        assert_eq!(messages[2].name.as_deref(), Some("add"));
        let mut stray = listed;
        stray[2]["tool_call_id"] = json!("call_2");
        assert_eq!(read(stray).unwrap_err(), "messages[2].tool_call_id");
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_path() {
        let refused = |message: Value| read(json!([message])).unwrap_err();
        assert_eq!(read(json!([])).unwrap_err(), "messages");
        assert_eq!(refused(json!({ "role": "narrator", "content": "" })), "messages[0].role");
        assert_eq!(refused(json!({ "role": "user" })), "messages[0].content");
        assert_eq!(refused(json!({ "role": "user", "content": "", "mood": 1 })), "messages[0].mood");
        let sound = json!({ "role": "user", "content": [{ "type": "input_audio", "input_audio": {} }] });
        assert_eq!(refused(sound), "messages[0].content[0].type");
        assert_eq!(refused(json!("hello")), "messages[0]");
    }
}
