//! What all replies have alike.

use crate::wire::request::random_seed;
use rhetor_lm::{Completion, FinishReason, Request, ToolCall, Usage};
use serde_json::{Map, Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// What every reply to one request says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    /// `chatcmpl-...`
    pub id: String,
    /// `chat.completion`, `chat.completion.chunk`, `text_completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name as the request gave it.
    pub model: String,
}

impl Envelope {
    /// A new one, whose id begins with `prefix`.
    pub fn new(prefix: &str, object: &'static str, model: &str) -> Envelope {
        Envelope { id: new_id(prefix), object, created: now(), model: model.to_string() }
    }

    /// The reply with these choices.
    pub fn with(&self, choices: Vec<Value>) -> Map<String, Value> {
        let Value::Object(reply) = json!({
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
        }) else {
            unreachable!("it is written as an object")
        };
        reply
    }
}

/// Which program answered: the same seed gives the same answer as long as this stays.
pub(crate) const FINGERPRINT: &str = concat!("rhetor-", env!("CARGO_PKG_VERSION"));

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// A new id.
pub(crate) fn new_id(prefix: &str) -> String {
    format!("{prefix}{:08x}{:08x}{:08x}", random_seed(), random_seed(), random_seed())
}

/// OpenAI's word for an end. It has none for a deadline: that is `length`, and a warning says more.
pub(crate) fn finish_reason(completion: &Completion) -> &'static str {
    match completion.finish_reason {
        FinishReason::Stop => "stop",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::Length | FinishReason::Deadline | FinishReason::Cancelled => "length",
    }
}

/// What several completions of one prompt used together.
pub(crate) fn total(completions: &[Completion]) -> Usage {
    let mut sum = completions.first().map(|first| first.usage).unwrap_or_default();
    for Completion { usage, .. } in completions.iter().skip(1) {
        sum.completion_tokens += usage.completion_tokens;
        sum.thinking_tokens += usage.thinking_tokens;
        sum.constrained_tokens += usage.constrained_tokens;
        sum.drafted_tokens += usage.drafted_tokens;
        sum.accepted_tokens += usage.accepted_tokens;
    }
    sum
}

/// Adds what the prompt and the completions of another prompt used.
pub(crate) fn add(sum: &mut Usage, other: Usage) {
    sum.prompt_tokens += other.prompt_tokens;
    sum.cached_tokens += other.cached_tokens;
    sum.truncated_tokens += other.truncated_tokens;
    sum.completion_tokens += other.completion_tokens;
    sum.thinking_tokens += other.thinking_tokens;
    sum.constrained_tokens += other.constrained_tokens;
    sum.drafted_tokens += other.drafted_tokens;
    sum.accepted_tokens += other.accepted_tokens;
}

/// `usage` of chat and completions: OpenAI's counts and our own.
pub(crate) fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": { "cached_tokens": usage.cached_tokens },
        "completion_tokens_details": { "reasoning_tokens": usage.thinking_tokens },
        "truncated_tokens": usage.truncated_tokens,
        "constrained_tokens": usage.constrained_tokens,
        "drafted_tokens": usage.drafted_tokens,
        "accepted_tokens": usage.accepted_tokens,
    })
}

/// Calls of tools; `index` numbers them where they come in a stream.
pub(crate) fn tool_call(call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": { "name": call.name, "arguments": call.arguments },
    })
}

/// What a reply says beside OpenAI's fields: the constraint in force, the seed, and warnings, if there are any.
pub(crate) fn ours(
    reply: &mut Map<String, Value>,
    request: &Request,
    completions: &[Completion],
    warned: &[String],
) {
    reply.insert("seed".to_string(), (request.seed as i64).into());
    if let Some(constraint) = completions.iter().find_map(|completion| completion.constraint) {
        reply.insert("constraint".to_string(), constraint.into());
    }
    let mut warnings = warned.to_vec();
    for warning in completions.iter().flat_map(warnings_of) {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    if !warnings.is_empty() {
        reply.insert("warnings".to_string(), warnings.into());
    }
}

/// What the caller should know about a completion.
pub(crate) fn warnings_of(completion: &Completion) -> Vec<String> {
    let mut warnings = completion.warnings.clone();
    match completion.finish_reason {
        FinishReason::Deadline => warnings.push("the time for this request was over".to_string()),
        FinishReason::Cancelled => warnings.push("the answer was broken off".to_string()),
        FinishReason::Stop | FinishReason::Length | FinishReason::ToolCalls => {}
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_lm::Prompt;

    #[test]
    fn a_prompt_is_counted_once_and_every_completion() {
        let usage = Usage { prompt_tokens: 7, cached_tokens: 2, completion_tokens: 3, ..Usage::default() };
        let completion = Completion { usage, ..Completion::default() };
        let sum = total(&[completion.clone(), completion]);
        assert_eq!((sum.prompt_tokens, sum.cached_tokens, sum.completion_tokens), (7, 2, 6));
        assert_eq!(super::usage(&sum)["total_tokens"], 13);
    }

    #[test]
    fn the_constraint_the_seed_and_warnings_are_said() {
        let request = Request { seed: u64::MAX, ..Request::new(Prompt::Ids(Vec::new())) };
        let late = Completion {
            finish_reason: FinishReason::Deadline,
            constraint: Some("regex"),
            ..Completion::default()
        };
        let mut reply = Map::new();
        ours(&mut reply, &request, &[late.clone(), late], &["unknown field x".to_string()]);
        let expected = json!({ "seed": -1, "constraint": "regex",
            "warnings": ["unknown field x", "the time for this request was over"] });
        assert_eq!(Value::Object(reply), expected);
    }

    #[test]
    fn ids_differ() {
        assert_ne!(new_id("a-"), new_id("a-"));
        assert_eq!(new_id("a-").len(), 26);
    }
}
