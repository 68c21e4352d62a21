//! What models say, as lines of JSON.

use super::clock;
use crate::refusal::{Dialect, Refusal};
use crate::speech::Heard;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use rhetor_lm::{Completion, FinishReason, TokenLogprob, ToolCall};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// Which of the two shapes a reply has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `{"response": "..."}`.
    Generate,
    /// `{"message": {"role": "assistant", "content": "..."}}`.
    Chat,
}

/// What all lines of a reply share.
#[derive(Debug)]
pub(crate) struct Teller {
    pub shape: Shape,
    /// The model's name, as the request wrote it.
    pub model: String,
    pub began: Instant,
    pub load_time: Duration,
    /// The tokens of the prompt, where the reply tells how to go on from it.
    pub context: Option<Vec<u32>>,
    /// What was passed over in the request.
    pub warnings: Vec<String>,
    /// Calls of tools told so far.
    pub n_calls: usize,
}

/// A piece of what a model says.
#[derive(Debug, Default)]
struct Piece<'a> {
    text: &'a str,
    thinking: &'a str,
    calls: Vec<Value>,
    logprobs: &'a [TokenLogprob],
}

impl Teller {
    /// A reply that says only why it ends: `load` or `unload`.
    pub fn nothing(&self, done_reason: &str) -> Value {
        let mut line = self.line(&Piece::default());
        line.insert("done".to_string(), json!(true));
        line.insert("done_reason".to_string(), json!(done_reason));
        Value::Object(line)
    }

    /// A reply that shows the prompt.
    pub fn rendered(&self, prompt: &str, n_pictures: usize) -> Value {
        let mut line = self.line(&Piece::default());
        line.insert("done".to_string(), json!(false));
        let mut info = json!({ "rendered_template": prompt });
        if n_pictures > 0 {
            info["image_count"] = json!(n_pictures);
        }
        line.insert("_debug_info".to_string(), info);
        Value::Object(line)
    }

    /// Writes a line for what was heard, if it is worth one.
    pub fn write(&mut self, heard: Heard, out: &mut Vec<u8>) {
        let calls;
        let piece = match &heard {
            Heard::Prefill => return,
            Heard::Text { text, logprobs, .. } if text.is_empty() && logprobs.is_empty() => return,
            Heard::Text { text, logprobs, .. } => Piece { text, logprobs, ..Piece::default() },
            Heard::Thinking { text, .. } => Piece { thinking: text, ..Piece::default() },
            Heard::ToolCall { call, .. } => {
                calls = vec![tool_call(call, self.n_calls)];
                self.n_calls += 1;
                Piece { calls, ..Piece::default() }
            }
            Heard::Done(Ok(completions)) => {
                let last = completions.first().map(|completion| self.last(completion, &Piece::default()));
                return write_line(&last.unwrap_or_default(), out);
            }
            Heard::Done(Err(error)) => return write_line(&json!({ "error": error.to_string() }), out),
            Heard::Panicked => return write_line(&Refusal::panicked().body(Dialect::Ollama), out),
        };
        let mut line = self.line(&piece);
        line.insert("done".to_string(), json!(false));
        write_line(&Value::Object(line), out);
    }

    /// The whole reply in one object.
    pub fn whole(&self, completion: &Completion) -> Value {
        let calls = completion.tool_calls.iter().enumerate().map(|(i, call)| tool_call(call, i)).collect();
        let piece = Piece {
            text: &completion.text,
            thinking: &completion.thinking,
            calls,
            logprobs: completion.logprobs.as_deref().unwrap_or_default(),
        };
        self.last(completion, &piece)
    }

    fn line(&self, piece: &Piece<'_>) -> Map<String, Value> {
        let mut line = Map::new();
        let mut set = |key: &str, value: Value| {
            line.insert(key.to_string(), value);
        };
        set("model", json!(self.model));
        set("created_at", json!(clock::now()));
        match self.shape {
            Shape::Generate => {
                set("response", json!(piece.text));
                if !piece.thinking.is_empty() {
                    set("thinking", json!(piece.thinking));
                }
                if !piece.calls.is_empty() {
                    set("tool_calls", json!(piece.calls));
                }
            }
            Shape::Chat => {
                let mut message = json!({ "role": "assistant", "content": piece.text });
                if !piece.thinking.is_empty() {
                    message["thinking"] = json!(piece.thinking);
                }
                if !piece.calls.is_empty() {
                    message["tool_calls"] = json!(piece.calls);
                }
                set("message", message);
            }
        }
        if !piece.logprobs.is_empty() {
            set("logprobs", piece.logprobs.iter().map(logprob).collect());
        }
        line
    }

    /// The last line, with what was counted and measured.
    fn last(&self, completion: &Completion, piece: &Piece<'_>) -> Value {
        let mut line = self.line(piece);
        line.insert("done".to_string(), json!(true));
        let reason = match completion.finish_reason {
            FinishReason::Stop | FinishReason::ToolCalls => "stop",
            other => other.name(),
        };
        line.insert("done_reason".to_string(), json!(reason));
        let usage = &completion.usage;
        if let Some(context) = &self.context {
            line.insert("context".to_string(), json!(context));
        }
        let numbers = [
            ("total_duration", clock::nanos(self.began.elapsed())),
            ("load_duration", clock::nanos(self.load_time)),
            ("prompt_eval_count", usage.prompt_tokens as u64),
            ("prompt_eval_duration", clock::nanos_of(completion.timings.prefill_seconds)),
            ("eval_count", usage.completion_tokens as u64),
            ("eval_duration", clock::nanos_of(completion.timings.decode_seconds)),
            ("cached_tokens", usage.cached_tokens as u64),
            ("truncated_tokens", usage.truncated_tokens as u64),
            ("constrained_tokens", usage.constrained_tokens as u64),
            ("thinking_tokens", usage.thinking_tokens as u64),
        ];
        for (name, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
            line.insert(name.to_string(), json!(number));
        }
        if let Some(constraint) = completion.constraint {
            line.insert("constraint".to_string(), json!(constraint));
        }
        let warnings: Vec<&String> = self.warnings.iter().chain(&completion.warnings).collect();
        if !warnings.is_empty() {
            line.insert("warnings".to_string(), json!(warnings));
        }
        Value::Object(line)
    }
}

fn tool_call(call: &ToolCall, index: usize) -> Value {
    let arguments = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
    json!({ "id": call.id, "function": { "index": index, "name": call.name, "arguments": arguments } })
}

fn logprob(token: &TokenLogprob) -> Value {
    let top: Vec<Value> = token
        .top
        .iter()
        .map(|(text, _, logprob)| json!({ "token": text, "logprob": logprob, "bytes": text.as_bytes() }))
        .collect();
    let mut value = json!({ "token": token.text, "logprob": token.logprob, "bytes": token.bytes });
    if !top.is_empty() {
        value["top_logprobs"] = json!(top);
    }
    value
}

/// Adds a line of JSON.
pub(crate) fn write_line(value: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(value.to_string().as_bytes());
    out.push(b'\n');
}

/// A reply of lines of JSON.
pub(crate) fn lines(body: Body) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

/// A reply of one object.
pub(crate) fn object(value: &Value) -> Response {
    let mut response = Body::from(value.to_string()).into_response();
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_lm::Usage;

    fn teller(shape: Shape) -> Teller {
        Teller {
            shape,
            model: "m".to_string(),
            began: Instant::now(),
            load_time: Duration::ZERO,
            context: None,
            warnings: vec!["w".to_string()],
            n_calls: 0,
        }
    }

    #[test]
    fn every_line_says_whether_it_is_the_last_and_has_its_text_even_if_empty() {
        let mut out = Vec::new();
        let mut teller = teller(Shape::Chat);
        teller.write(Heard::Prefill, &mut out);
        teller.write(Heard::Text { index: 0, text: "Hi".to_string(), logprobs: Vec::new() }, &mut out);
        teller.write(Heard::Thinking { index: 0, text: "hm".to_string() }, &mut out);
        let call = ToolCall {
            id: "c".to_string(),
            name: "f".to_string(),
            arguments: r#"{"z":1,"a":2}"#.to_string(),
        };
        teller.write(Heard::ToolCall { index: 0, call }, &mut out);
        let usage = Usage { prompt_tokens: 3, completion_tokens: 1, truncated_tokens: 5, ..Usage::default() };
        let said = Completion { usage, finish_reason: FinishReason::Stop, ..Completion::default() };
        teller.write(Heard::Done(Ok(vec![said])), &mut out);
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0]["message"], json!({ "role": "assistant", "content": "Hi" }));
        assert_eq!(lines[1]["message"], json!({ "role": "assistant", "content": "", "thinking": "hm" }));
        assert!(lines[2].to_string().contains(r#""arguments":{"z":1,"a":2}"#));
        assert_eq!((&lines[0]["done"], &lines[3]["done"]), (&json!(false), &json!(true)));
        assert_eq!(lines[3]["message"], json!({ "role": "assistant", "content": "" }));
        assert_eq!((&lines[3]["done_reason"], &lines[3]["eval_count"]), (&json!("stop"), &json!(1)));
        assert_eq!((&lines[3]["truncated_tokens"], &lines[3]["warnings"]), (&json!(5), &json!(["w"])));
        assert!(lines[3].get("load_duration").is_none());
    }

    #[test]
    fn a_stream_that_breaks_ends_with_an_error() {
        let mut out = Vec::new();
        teller(Shape::Generate).write(Heard::Panicked, &mut out);
        let line: Value = serde_json::from_slice(&out).unwrap();
        assert!(line["error"].is_string() && out.ends_with(b"\n"));
    }
}
