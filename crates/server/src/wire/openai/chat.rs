//! `POST /v1/chat/completions`: the request, and the reply that comes in one piece.

use super::format::{format, tool_choice};
use super::logprobs;
use super::messages::messages;
use super::options::{Asked, constrain, options, streaming};
use super::reply::{self, Envelope};
use crate::refusal::Refusal;
use crate::wire::fields::Fields;
use crate::wire::keep_alive::keep_alive;
use crate::wire::request::{count, tools, wrong};
use rhetor_lm::{Completion, Prompt, Request, Role, Tools};
use serde_json::{Value, json};

/// Reads a request.
pub(crate) fn read(body: Value, lenient: bool) -> Result<Asked, Refusal> {
    let mut fields = Fields::of(body, "", lenient)?;
    let model = fields.need("model")?;
    let listed = fields.list("messages")?.ok_or_else(|| wrong("messages", "it is required"))?;
    let (turns, shown) = messages(&mut fields, listed, "messages")?;
    let last_role = turns.last().map(|turn| turn.role);
    let mut request = Request::new(Prompt::Chat(turns));
    options(&mut fields, &mut request)?;
    let max_tokens = count(&mut fields, "max_tokens")?;
    request.max_tokens = count(&mut fields, "max_completion_tokens")?.or(max_tokens);
    request.logprobs = logprobs(&mut fields)?;
    if let Some(constraint) = format(&mut fields, "response_format")? {
        constrain(&mut request, constraint, "response_format")?;
    }
    let mut offered = tools(&mut fields)?;
    let choice = tool_choice(&mut fields, &mut offered)?;
    let parallel = fields.take("parallel_tool_calls")?.unwrap_or(true);
    request.tools = Tools { offered, choice, parallel };
    let is_effort = thinking(&mut fields, &mut request)?;
    let (is_stream, with_usage) = streaming(&mut fields)?;
    continuing(&mut fields, last_role)?;
    refuse(&mut fields)?;
    let keep_alive = keep_alive(&mut fields)?;
    let warnings = fields.finish()?;
    Ok(Asked { model, request, keep_alive, shown, is_effort, is_stream, with_usage, warnings })
}

/// `logprobs` and `top_logprobs`: how many alternatives are reported, if any log-probability is.
fn logprobs(fields: &mut Fields) -> Result<Option<usize>, Refusal> {
    let is_on = fields.take("logprobs")?.unwrap_or(false);
    match count(fields, "top_logprobs")? {
        Some(n) if n > 20 => Err(wrong("top_logprobs", format!("{n} is outside 0 to 20"))),
        Some(_) if !is_on => Err(wrong("top_logprobs", "it needs `logprobs` to be true")),
        n => Ok(is_on.then(|| n.unwrap_or(0))),
    }
}

/// `think`, `reasoning_effort` and the template's own switches. Returns whether it is a wish only: an effort is the
/// caller's default for all models, also for those that cannot think.
fn thinking(fields: &mut Fields, request: &mut Request) -> Result<bool, Refusal> {
    request.think = fields.take("think")?;
    if let Some(mut switches) = fields.object("chat_template_kwargs")? {
        for name in ["enable_thinking", "thinking"] {
            request.think = switches.take(name)?.or(request.think);
        }
        fields.close(switches)?;
    }
    let effort = fields.take::<String>("reasoning_effort")?;
    effort_of(effort.as_deref(), "reasoning_effort", request)
}

/// Turns thinking on or off as an effort has it; returns whether it said so.
pub(crate) fn effort_of(effort: Option<&str>, path: &str, request: &mut Request) -> Result<bool, Refusal> {
    let thinks = match effort {
        None => return Ok(false),
        Some("none") => false,
        Some("minimal" | "low" | "medium" | "high" | "xhigh" | "max") => true,
        Some(other) => {
            let message = format!("{other:?} is none of none, minimal, low, medium, high, xhigh, max");
            return Err(wrong(path, message));
        }
    };
    match request.think {
        Some(said) if said != thinks => Err(wrong(path, "it contradicts `think`")),
        Some(_) => Ok(false),
        None => {
            request.think = Some(thinks);
            Ok(true)
        }
    }
}

/// A last turn of the assistant is always continued; `continue_final_message` may say so.
fn continuing(fields: &mut Fields, last_role: Option<Role>) -> Result<(), Refusal> {
    let is_open = last_role == Some(Role::Assistant);
    match fields.take::<bool>("continue_final_message")? {
        Some(true) if !is_open => {
            Err(wrong("continue_final_message", "the last message is not the assistant's"))
        }
        Some(false) if is_open => {
            fields.unsupported("continue_final_message", "a last message of the assistant is continued")
        }
        _ => Ok(()),
    }
}

/// Known fields that this server cannot serve.
fn refuse(fields: &mut Fields) -> Result<(), Refusal> {
    match fields.take::<Vec<String>>("modalities")? {
        Some(modalities) if modalities != ["text"] => {
            fields.unsupported("modalities", "models here answer in text")?;
        }
        _ => {}
    }
    match fields.take::<String>("verbosity")?.as_deref() {
        None | Some("medium") => {}
        Some(_) => fields.unsupported("verbosity", "models here have no such switch")?,
    }
    // A guess at the answer, for speed only: what is guessed here comes from `speculate`.
    fields.labels(&["prediction"]);
    fields.refuse("audio", "models here answer in text")?;
    fields.refuse("web_search_options", "this server does not search the web")?;
    fields.refuse("moderation", "this server does not judge texts")?;
    fields.refuse("functions", "`tools` is its newer form")?;
    fields.refuse("function_call", "`tool_choice` is its newer form")
}

/// The reply in one piece.
pub(crate) fn write(envelope: &Envelope, asked: &Asked, completions: &[Completion]) -> Value {
    let choice = |(index, completion): (usize, &Completion)| {
        let logprobs = completion.logprobs.as_deref().map(logprobs::of_chat);
        json!({
            "index": index,
            "message": message(completion),
            "logprobs": logprobs,
            "finish_reason": reply::finish_reason(completion),
        })
    };
    let mut written = envelope.with(completions.iter().enumerate().map(choice).collect());
    written.insert("usage".to_string(), reply::usage(&reply::total(completions)));
    reply::ours(&mut written, &asked.request, completions, &asked.warnings);
    written.into()
}

fn message(completion: &Completion) -> Value {
    let has_calls = !completion.tool_calls.is_empty();
    let content = (!has_calls || !completion.text.is_empty()).then_some(&completion.text);
    let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
    if !completion.thinking.is_empty() {
        message["reasoning"] = completion.thinking.as_str().into();
    }
    if has_calls {
        message["tool_calls"] = completion.tool_calls.iter().map(reply::tool_call).collect();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_lm::{Constraint, Message, ToolCall, ToolChoice};

    fn body(more: Value) -> Value {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "Hi" }] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    #[test]
    fn a_request_says_everything_that_a_model_is_asked() {
        let tool = json!({ "type": "function", "function": { "name": "f" } });
        let asked = read(
            body(json!({
                "max_tokens": 5, "max_completion_tokens": 7, "logprobs": true, "top_logprobs": 3, "n": 2, "seed": 9,
                "tools": [tool], "tool_choice": "required", "parallel_tool_calls": false, "stop": "x",
                "response_format": { "type": "json_object" }, "reasoning_effort": "none",
                "stream": true, "stream_options": { "include_usage": true }, "user": "u", "modalities": ["text"],
            })),
            false,
        )
        .unwrap();
        let request = asked.request;
        assert_eq!(request.prompt, Prompt::Chat(vec![Message::user("Hi")]));
        assert_eq!((request.max_tokens, request.logprobs, request.n, request.seed), (Some(7), Some(3), 2, 9));
        assert_eq!((request.tools.choice, request.tools.parallel), (ToolChoice::Required, false));
        assert_eq!((request.constraint, request.think), (Some(Constraint::Json), Some(false)));
        assert!(asked.is_stream && asked.with_usage && asked.is_effort);
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_name_or_warned_of() {
        let refused = |more| {
            let refusal = read(body(more), false).unwrap_err();
            (refusal.param.unwrap(), refusal.code)
        };
        let unsupported = Some("unsupported_parameter");
        assert_eq!(
            refused(json!({ "modalities": ["text", "audio"] })),
            ("modalities".to_string(), unsupported)
        );
        assert_eq!(refused(json!({ "web_search_options": {} })).0, "web_search_options");
        assert_eq!(refused(json!({ "functions": [] })).0, "functions");
        assert_eq!(refused(json!({ "top_logprobs": 3 })).0, "top_logprobs");
        assert_eq!(refused(json!({ "stream_options": {} })).0, "stream_options");
        assert_eq!(refused(json!({ "reasoning_effort": "much" })).0, "reasoning_effort");
        let unknown = ("colour".to_string(), Some("unknown_parameter"));
        assert_eq!(refused(json!({ "colour": 1 })), unknown);
        let asked = read(body(json!({ "colour": 1, "audio": {} })), true).unwrap();
        assert_eq!(asked.warnings.len(), 2);
    }

    #[test]
    fn a_reply_has_null_content_where_tools_are_called() {
        let asked = read(body(json!({})), false).unwrap();
        let call = ToolCall { id: "call_1".to_string(), name: "f".to_string(), arguments: "{}".to_string() };
        let calling = Completion { tool_calls: vec![call], ..Completion::default() };
        let speaking =
            Completion { text: "a".to_string(), thinking: "b".to_string(), ..Completion::default() };
        let envelope = Envelope::new("chatcmpl-", "chat.completion", "m");
        let reply = write(&envelope, &asked, &[calling, speaking]);
        assert_eq!(reply["choices"][0]["message"]["content"], Value::Null);
        assert_eq!(reply["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"], "{}");
        assert_eq!(reply["choices"][1]["message"]["content"], "a");
        assert_eq!(reply["choices"][1]["message"]["reasoning"], "b");
        assert_eq!(reply["choices"][1]["message"]["refusal"], Value::Null);
    }
}
