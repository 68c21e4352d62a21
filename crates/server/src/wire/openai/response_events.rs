//! `POST /v1/responses`: what is heard, as events of a stream and as the response that they build up.

use super::logprobs;
use super::options::Asked;
use super::reply::{self, new_id};
use super::response::{self, AskedResponse};
use crate::refusal::Refusal;
use crate::response_store::Kept;
use crate::speech::Heard;
use crate::wire::sse;
use rhetor_lm::{Completion, FinishReason, Message, ToolCall};
use serde_json::{Map, Value, json};

/// A response that grows.
pub(crate) struct Events {
    asked: AskedResponse,
    response: Map<String, Value>,
    /// Items that are complete.
    output: Vec<Value>,
    /// The item that grows.
    open: Option<Open>,
    /// The number of the next event.
    number: u64,
    /// What is to be kept, once it is over.
    kept: Option<Kept>,
}

/// An item that grows.
struct Open {
    id: String,
    is_thought: bool,
    text: String,
    logprobs: Vec<Value>,
}

impl Open {
    fn part(&self) -> Value {
        match self.is_thought {
            true => json!({ "type": "summary_text", "text": self.text }),
            false => {
                json!({ "type": "output_text", "text": self.text, "annotations": [], "logprobs": self.logprobs })
            }
        }
    }

    fn item(&self, status: &str, parts: Vec<Value>) -> Value {
        match self.is_thought {
            true => json!({ "type": "reasoning", "id": self.id, "summary": parts, "status": status }),
            false => json!({
                "type": "message", "id": self.id, "status": status, "role": "assistant", "content": parts,
            }),
        }
    }
}

impl Events {
    /// A response to `asked` that says nothing yet.
    pub fn new(asked: AskedResponse) -> Events {
        let response = response::begun(&asked);
        Events { asked, response, output: Vec::new(), open: None, number: 0, kept: None }
    }

    /// The events before all others.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        for name in ["response.created", "response.in_progress"] {
            let response = Value::Object(self.response.clone());
            self.send(out, name, json!({ "response": response }));
        }
    }

    /// Appends the events of what was heard.
    pub fn write(&mut self, heard: Heard, out: &mut Vec<u8>) {
        match heard {
            Heard::Prefill => {}
            Heard::Text { text, logprobs, .. } => self.grow(false, &text, logprobs::items(&logprobs), out),
            Heard::Thinking { text, .. } => self.grow(true, &text, Vec::new(), out),
            Heard::ToolCall { call, .. } => self.call(&call, out),
            Heard::Done(Ok(completions)) => match completions.into_iter().next() {
                Some(completion) => self.finish(completion, out),
                None => self.fail(&Refusal::panicked(), out),
            },
            Heard::Done(Err(error)) => self.fail(&Refusal::from(error), out),
            Heard::Panicked => self.fail(&Refusal::panicked(), out),
        }
    }

    /// The response as it is now.
    pub fn response(&self) -> Value {
        self.response.clone().into()
    }

    /// The response's id, and what is to be kept of it, if it is over and the request wants it kept.
    pub fn take_kept(&mut self) -> Option<(String, Kept)> {
        let id = self.response["id"].as_str().unwrap_or_default().to_string();
        self.kept.take().map(|kept| (id, kept))
    }

    fn send(&mut self, out: &mut Vec<u8>, name: &str, mut event: Value) {
        event["type"] = name.into();
        event["sequence_number"] = self.number.into();
        self.number += 1;
        sse::event(out, name, &event);
    }

    fn grow(&mut self, is_thought: bool, text: &str, logprobs: Vec<Value>, out: &mut Vec<u8>) {
        if self.open.as_ref().is_some_and(|open| open.is_thought != is_thought) {
            self.close("completed", out);
        }
        if self.open.is_none() {
            self.open(is_thought, out);
        }
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        open.logprobs.extend(logprobs.iter().cloned());
        let (id, index) = (open.id.clone(), self.output.len());
        match is_thought {
            true => self.send(
                out,
                "response.reasoning_summary_text.delta",
                json!({ "item_id": id, "output_index": index, "summary_index": 0, "delta": text }),
            ),
            false => self.send(
                out,
                "response.output_text.delta",
                json!({
                    "item_id": id, "output_index": index, "content_index": 0, "delta": text, "logprobs": logprobs,
                }),
            ),
        }
    }

    fn open(&mut self, is_thought: bool, out: &mut Vec<u8>) {
        let prefix = if is_thought { "rs_" } else { "msg_" };
        let open = Open { id: new_id(prefix), is_thought, text: String::new(), logprobs: Vec::new() };
        let (index, part, id) = (self.output.len(), open.part(), open.id.clone());
        let item = open.item("in_progress", Vec::new());
        self.open = Some(open);
        self.send(out, "response.output_item.added", json!({ "output_index": index, "item": item }));
        let (name, place) = match is_thought {
            true => ("response.reasoning_summary_part.added", "summary_index"),
            false => ("response.content_part.added", "content_index"),
        };
        self.send(out, name, json!({ "item_id": id, "output_index": index, place: 0, "part": part }));
    }

    /// Completes the item that grows, if there is one.
    fn close(&mut self, status: &str, out: &mut Vec<u8>) {
        let Some(open) = self.open.take() else { return };
        let (index, part) = (self.output.len(), open.part());
        let (text, id) = (&open.text, &open.id);
        if open.is_thought {
            let place = json!({ "item_id": id, "output_index": index, "summary_index": 0 });
            self.send(out, "response.reasoning_summary_text.done", with(&place, json!({ "text": text })));
            self.send(out, "response.reasoning_summary_part.done", with(&place, json!({ "part": part })));
        } else {
            let place = json!({ "item_id": id, "output_index": index, "content_index": 0 });
            let done = json!({ "text": text, "logprobs": open.logprobs });
            self.send(out, "response.output_text.done", with(&place, done));
            self.send(out, "response.content_part.done", with(&place, json!({ "part": part })));
        }
        self.complete(open.item(status, vec![part]), out);
    }

    fn call(&mut self, call: &ToolCall, out: &mut Vec<u8>) {
        self.close("completed", out);
        let (id, index) = (new_id("fc_"), self.output.len());
        let item = |arguments: &str, status: &str| {
            json!({
                "type": "function_call", "id": id, "call_id": call.id, "name": call.name, "arguments": arguments,
                "status": status,
            })
        };
        let place = json!({ "item_id": id, "output_index": index });
        let added = json!({ "output_index": index, "item": item("", "in_progress") });
        self.send(out, "response.output_item.added", added);
        let (delta, done) =
            (json!({ "delta": call.arguments }), json!({ "name": call.name, "arguments": call.arguments }));
        self.send(out, "response.function_call_arguments.delta", with(&place, delta));
        self.send(out, "response.function_call_arguments.done", with(&place, done));
        self.complete(item(&call.arguments, "completed"), out);
    }

    fn complete(&mut self, item: Value, out: &mut Vec<u8>) {
        let index = self.output.len();
        self.output.push(item.clone());
        self.send(out, "response.output_item.done", json!({ "output_index": index, "item": item }));
    }

    fn finish(&mut self, completion: Completion, out: &mut Vec<u8>) {
        let (status, name, reason) = match completion.finish_reason {
            FinishReason::Stop | FinishReason::ToolCalls => ("completed", "response.completed", None),
            FinishReason::Length => ("incomplete", "response.incomplete", Some("max_output_tokens")),
            FinishReason::Deadline => ("incomplete", "response.incomplete", Some("deadline")),
            FinishReason::Cancelled => {
                return self.fail(&Refusal::wrong("the answer was broken off"), out);
            }
        };
        if self.output.is_empty() && self.open.is_none() {
            self.open(false, out);
        }
        self.close(status, out);
        let ends = [
            ("status", status.into()),
            ("completed_at", if reason.is_none() { reply::now().into() } else { Value::Null }),
            ("incomplete_details", reason.map_or(Value::Null, |reason| json!({ "reason": reason }))),
            ("output", std::mem::take(&mut self.output).into()),
            ("usage", response::usage(&completion.usage)),
        ];
        self.response.extend(ends.map(|(name, value)| (name.to_string(), value)));
        let Asked { request, warnings, .. } = &self.asked.asked;
        reply::ours(&mut self.response, request, std::slice::from_ref(&completion), warnings);
        let response = self.response();
        if self.asked.store {
            let mut turns = std::mem::take(&mut self.asked.turns);
            let Completion { text, thinking, tool_calls, .. } = completion;
            let thinking = Some(thinking).filter(|thinking| !thinking.is_empty());
            turns.push(Message { thinking, tool_calls, ..Message::assistant(text) });
            let pictures = request.pictures.clone();
            self.kept = Some(Kept { response: response.clone(), turns, pictures });
        }
        self.send(out, name, json!({ "response": response }));
    }

    fn fail(&mut self, refusal: &Refusal, out: &mut Vec<u8>) {
        let error = json!({ "code": "server_error", "message": refusal.message });
        self.response.extend([
            ("status".to_string(), "failed".into()),
            ("error".to_string(), error),
            ("output".to_string(), std::mem::take(&mut self.output).into()),
        ]);
        let response = self.response();
        self.send(out, "response.failed", json!({ "response": response }));
    }
}

/// The fields of both objects.
fn with(place: &Value, more: Value) -> Value {
    let mut all = place.clone();
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_lm::Usage;

    fn events(heard: Vec<Heard>) -> (Vec<Value>, Events) {
        let asked = response::read(json!({ "model": "m", "input": "Hi" }), None, false).unwrap();
        let (mut events, mut out) = (Events::new(asked), Vec::new());
        events.begin(&mut out);
        heard.into_iter().for_each(|heard| events.write(heard, &mut out));
        let text = String::from_utf8(out).unwrap();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        (data.map(|data| serde_json::from_str(data).unwrap()).collect(), events)
    }

    fn done(finish_reason: FinishReason) -> Heard {
        let usage = Usage { prompt_tokens: 2, completion_tokens: 3, ..Usage::default() };
        Heard::Done(Ok(vec![Completion {
            text: "ab".to_string(),
            finish_reason,
            usage,
            ..Completion::default()
        }]))
    }

    #[test]
    fn events_come_in_order_and_are_numbered_without_gaps() {
        let text = |text: &str| Heard::Text { index: 0, text: text.to_string(), logprobs: Vec::new() };
        let thought = Heard::Thinking { index: 0, text: "hm".to_string() };
        let call = ToolCall { id: "call_1".to_string(), name: "f".to_string(), arguments: "{}".to_string() };
        let call = Heard::ToolCall { index: 0, call };
        let (told, mut events) =
            events(vec![thought, text("a"), text("b"), call, done(FinishReason::ToolCalls)]);
        let names: Vec<&str> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
        let expected = [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ];
        assert_eq!(names, expected);
        assert!(told.iter().enumerate().all(|(i, event)| event["sequence_number"] == i));
        let response = &told.last().unwrap()["response"];
        assert_eq!(response["output"][0]["summary"][0]["text"], "hm");
        assert_eq!(response["output"][1]["content"][0]["text"], "ab");
        assert_eq!(response["output"][2]["call_id"], "call_1");
        assert_eq!(response["usage"]["total_tokens"], 5);
        let (id, kept) = events.take_kept().unwrap();
        assert_eq!((id.as_str(), kept.turns.len()), (response["id"].as_str().unwrap(), 2));
    }

    #[test]
    fn an_answer_that_was_cut_is_incomplete_and_an_error_fails() {
        let (told, _) = events(vec![done(FinishReason::Length)]);
        let response = &told.last().unwrap()["response"];
        assert_eq!(response["status"], "incomplete");
        assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
        assert_eq!(response["output"][0]["status"], "incomplete");
        let (told, mut events) = events(vec![Heard::Panicked]);
        assert_eq!(told.last().unwrap()["type"], "response.failed");
        assert!(events.take_kept().is_none());
    }
}
