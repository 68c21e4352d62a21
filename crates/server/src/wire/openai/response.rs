//! `POST /v1/responses`: the request, and the object that a response is.

use super::chat::effort_of;
use super::format::{format, tool_choice};
use super::options::{Asked, constrain, options};
use super::reply;
use super::response_items::Turns;
use crate::refusal::Refusal;
use crate::response_store::Kept;
use crate::wire::fields::Fields;
use crate::wire::keep_alive::keep_alive;
use crate::wire::request::{check_tools, count, tool, wrong};
use rhetor_lm::{Message, Overflow, Prompt, Request, Tools, Usage};
use serde_json::{Map, Value, json};

/// A request for a response.
#[derive(Debug)]
pub(crate) struct AskedResponse {
    /// What the model is asked.
    pub asked: Asked,
    /// The turns so far without the instructions, which hold for this response alone.
    pub turns: Vec<Message>,
    /// Whether the response can be asked for again, and continued.
    pub store: bool,
    /// What the response says again: the request's settings.
    pub said: Map<String, Value>,
}

/// The id of the response that `body` continues.
pub(crate) fn previous(body: &Value) -> Option<&str> {
    body.get("previous_response_id").and_then(Value::as_str)
}

/// Reads a request, which continues `before` where it is given.
pub(crate) fn read(body: Value, before: Option<&Kept>, lenient: bool) -> Result<AskedResponse, Refusal> {
    // Settings are said again as they were given.
    let given = body.clone();
    let mut fields = Fields::of(body, "", lenient)?;
    let model: String = fields.need("model")?;
    let mut turns = Turns::after(before.map_or(Vec::new(), |kept| kept.turns.clone()));
    let input = fields.value("input");
    turns.add(&mut fields, input)?;
    let instructions: Option<String> = fields.take("instructions")?;
    let system = instructions.iter().map(Message::system);
    let mut request = Request::new(Prompt::Chat(system.chain(turns.messages.iter().cloned()).collect()));
    let store = fields.take("store")?.unwrap_or(true);
    let previous: Option<String> = fields.take("previous_response_id")?;
    options(&mut fields, &mut request)?;
    if request.n != 1 {
        return Err(wrong("n", "a response is one answer"));
    }
    request.max_tokens = count(&mut fields, "max_output_tokens")?;
    if request.max_tokens == Some(0) {
        return Err(wrong("max_output_tokens", "0 is below 1"));
    }
    match fields.take::<String>("truncation")?.as_deref() {
        None | Some("disabled") => {}
        Some("auto") => request.overflow = Overflow::TruncateOldest,
        Some(other) => {
            return Err(wrong("truncation", format!("{other:?} is neither auto nor disabled")));
        }
    }
    if let Some(mut text) = fields.object("text")? {
        if let Some(constraint) = format(&mut text, "format")? {
            constrain(&mut request, constraint, "text.format")?;
        }
        match text.take::<String>("verbosity")?.as_deref() {
            None | Some("medium") => {}
            Some(_) => text.unsupported("verbosity", "models here have no such switch")?,
        }
        fields.close(text)?;
    }
    let effort = reasoning(&mut fields)?;
    request.think = fields.take("think")?;
    let is_effort = effort_of(effort.as_deref(), "reasoning.effort", &mut request)?;
    let mut offered = Vec::new();
    for (i, listed) in fields.list("tools")?.unwrap_or_default().into_iter().enumerate() {
        let mut entry = fields.part(listed, format!("tools[{i}]"))?;
        if entry.need::<String>("type")? != "function" {
            let refusal = wrong(&entry.path("type"), "only tools of the type `function` can be called");
            return Err(refusal.code("unsupported_parameter"));
        }
        offered.push(tool(&mut entry)?);
        fields.close(entry)?;
    }
    let mut offered = check_tools(offered, "tools")?;
    let choice = tool_choice(&mut fields, &mut offered)?;
    let parallel = fields.take("parallel_tool_calls")?.unwrap_or(true);
    request.tools = Tools { offered, choice, parallel };
    request.logprobs = logprobs(&mut fields)?;
    let is_stream = fields.take("stream")?.unwrap_or(false);
    refuse(&mut fields)?;
    let keep_alive = keep_alive(&mut fields)?;
    let warnings = fields.finish()?;
    let said = said(&given, &request, instructions, previous, store, effort);
    let (turns, shown) = (turns.messages, turns.shown);
    let with_usage = true;
    let asked = Asked { model, request, keep_alive, shown, is_effort, is_stream, with_usage, warnings };
    Ok(AskedResponse { asked, turns, store, said })
}

/// `reasoning`: the effort. Thoughts are told as they are, whatever summary is wished for.
fn reasoning(fields: &mut Fields) -> Result<Option<String>, Refusal> {
    let Some(mut reasoning) = fields.object("reasoning")? else { return Ok(None) };
    let effort = reasoning.take("effort")?;
    reasoning.labels(&["summary", "generate_summary"]);
    fields.close(reasoning)?;
    Ok(effort)
}

/// `top_logprobs`, or `include` with `message.output_text.logprobs`.
fn logprobs(fields: &mut Fields) -> Result<Option<usize>, Refusal> {
    let mut n = count(fields, "top_logprobs")?;
    if let Some(n) = n.filter(|n| *n > 20) {
        return Err(wrong("top_logprobs", format!("{n} is outside 0 to 20")));
    }
    for include in fields.take::<Vec<String>>("include")?.unwrap_or_default() {
        match include.as_str() {
            "message.output_text.logprobs" => n = n.or(Some(0)),
            other => fields.unsupported("include", &format!("a response has no {other:?}"))?,
        }
    }
    Ok(n)
}

/// Known fields that this server cannot serve.
fn refuse(fields: &mut Fields) -> Result<(), Refusal> {
    if fields.take("background")?.unwrap_or(false) {
        fields.unsupported("background", "responses are made while the caller waits")?;
    }
    if let Some(mut options) = fields.object("stream_options")? {
        if options.take("include_obfuscation")?.unwrap_or(false) {
            options.unsupported("include_obfuscation", "no padding is sent")?;
        }
        fields.close(options)?;
    }
    // It counts calls of tools that the server itself would call.
    fields.labels(&["max_tool_calls"]);
    fields.refuse("conversation", "`previous_response_id` continues a response")?;
    fields.refuse("prompt", "there are no stored prompts on this server")?;
    fields.refuse("context_management", "`truncation` says what happens when the context is full")
}

/// What the response says again of its request.
fn said(
    given: &Value,
    request: &Request,
    instructions: Option<String>,
    previous: Option<String>,
    store: bool,
    effort: Option<String>,
) -> Map<String, Value> {
    let or = |name: &str, default: Value| match given.get(name) {
        None | Some(Value::Null) => default,
        Some(value) => value.clone(),
    };
    let truncation = match request.overflow {
        Overflow::Error => "disabled",
        Overflow::TruncateOldest => "auto",
    };
    let Value::Object(said) = json!({
        "instructions": instructions,
        "max_output_tokens": request.max_tokens,
        "parallel_tool_calls": request.tools.parallel,
        "previous_response_id": previous,
        "reasoning": { "effort": effort, "summary": null },
        "store": store,
        "temperature": request.sampling.temperature,
        "text": or("text", json!({ "format": { "type": "text" } })),
        "tool_choice": or("tool_choice", "auto".into()),
        "tools": or("tools", json!([])),
        "top_logprobs": request.logprobs,
        "top_p": request.sampling.top_p,
        "truncation": truncation,
        "metadata": or("metadata", json!({})),
        "user": or("user", Value::Null),
        "background": false,
        "service_tier": "default",
        "seed": request.seed as i64,
    }) else {
        unreachable!("it is written as an object")
    };
    said
}

/// `usage` of a response: OpenAI's counts and our own.
pub(crate) fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": { "cached_tokens": usage.cached_tokens },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": { "reasoning_tokens": usage.thinking_tokens },
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "truncated_tokens": usage.truncated_tokens,
        "constrained_tokens": usage.constrained_tokens,
        "drafted_tokens": usage.drafted_tokens,
        "accepted_tokens": usage.accepted_tokens,
    })
}

/// A response that has begun.
pub(crate) fn begun(asked: &AskedResponse) -> Map<String, Value> {
    let mut response = Map::new();
    for (name, value) in [
        ("id", reply::new_id("resp_").into()),
        ("object", "response".into()),
        ("created_at", reply::now().into()),
        ("completed_at", Value::Null),
        ("status", "in_progress".into()),
        ("error", Value::Null),
        ("incomplete_details", Value::Null),
        ("model", asked.asked.model.as_str().into()),
        ("output", json!([])),
        ("usage", Value::Null),
    ] {
        response.insert(name.to_string(), value);
    }
    response.extend(asked.said.clone());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_lm::{Constraint, ToolChoice};

    #[test]
    fn a_request_says_everything_that_a_model_is_asked() {
        let tool =
            json!({ "type": "function", "name": "f", "parameters": { "type": "object" }, "strict": true });
        let format =
            json!({ "type": "json_schema", "name": "s", "schema": { "type": "object" }, "strict": true });
        let body = json!({
            "model": "m", "instructions": "Be brief.", "input": "Hi", "max_output_tokens": 20, "temperature": 0.5,
            "tools": [tool], "tool_choice": { "type": "function", "name": "f" }, "text": { "format": format },
            "reasoning": { "effort": "none" }, "include": ["message.output_text.logprobs"], "metadata": { "a": "b" },
            "truncation": "auto", "stream": true,
        });
        let asked = read(body, None, false).unwrap();
        let request = &asked.asked.request;
        let Prompt::Chat(messages) = &request.prompt else { panic!("a response is a turn") };
        assert_eq!(messages[..], [Message::system("Be brief."), Message::user("Hi")]);
        assert_eq!(asked.turns, [Message::user("Hi")]);
        assert_eq!(request.tools.choice, ToolChoice::Named("f".to_string()));
        assert_eq!(request.constraint, Some(Constraint::JsonSchema(r#"{"type":"object"}"#.to_string())));
        assert_eq!((request.logprobs, request.think, request.max_tokens), (Some(0), Some(false), Some(20)));
        let response = begun(&asked);
        assert_eq!((&response["truncation"], &response["metadata"]), (&json!("auto"), &json!({ "a": "b" })));
        assert!(asked.store && asked.asked.is_stream);
    }

    #[test]
    fn a_response_continues_the_turns_of_another_but_not_its_instructions() {
        let before = Kept { turns: vec![Message::user("A"), Message::assistant("B")], ..Kept::default() };
        let body = json!({ "model": "m", "input": "C", "previous_response_id": "resp_1" });
        assert_eq!(previous(&body), Some("resp_1"));
        let asked = read(body, Some(&before), false).unwrap();
        assert_eq!(asked.turns, [Message::user("A"), Message::assistant("B"), Message::user("C")]);
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_name() {
        let refused = |name: &str, value: Value| {
            let body = json!({ "model": "m", "input": "Hi", name: value });
            assert_eq!(read(body, None, false).unwrap_err().param.as_deref(), Some(name));
        };
        refused("background", json!(true));
        refused("conversation", json!("conv_1"));
        refused("include", json!(["reasoning.encrypted_content"]));
        refused("prompt", json!({ "id": "x" }));
        refused("n", json!(2));
        refused("max_output_tokens", json!(0));
        refused("colour", json!(1));
    }
}
