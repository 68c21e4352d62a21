//! `POST /v1/chat/completions`: the reply that comes in chunks.

use super::logprobs;
use super::options::Asked;
use super::reply::{self, Envelope};
use crate::refusal::{Dialect, Refusal};
use crate::speech::Heard;
use crate::wire::sse;
use rhetor_lm::{Completion, TokenLogprob, ToolCall};
use serde_json::{Value, json};

/// Writes what is heard as chunks.
pub(crate) struct Chunks {
    envelope: Envelope,
    asked: Asked,
    /// For each completion, how many calls of tools were told, and whether anything was.
    told: Vec<(usize, bool)>,
}

impl Chunks {
    /// Chunks of a reply to `asked`.
    pub fn new(envelope: Envelope, asked: Asked) -> Chunks {
        let told = vec![(0, false); asked.request.n];
        Chunks { envelope, asked, told }
    }

    /// Appends the events of what was heard.
    pub fn write(&mut self, heard: Heard, out: &mut Vec<u8>) {
        match heard {
            Heard::Prefill { .. } => {}
            Heard::Text { index, text, logprobs } => {
                self.open(index, out);
                self.chunk(index, json!({ "content": text }), &logprobs, out);
            }
            Heard::Thinking { index, text } => {
                self.open(index, out);
                self.chunk(index, json!({ "reasoning": text }), &[], out);
            }
            Heard::ToolCall { index, call } => {
                self.open(index, out);
                self.call(index, &call, out);
            }
            Heard::Done(Ok(completions)) => self.finish(&completions, out),
            Heard::Done(Err(error)) => sse::data(out, &Refusal::from(error).body(Dialect::OpenAi)),
            Heard::Panicked => sse::data(out, &Refusal::panicked().body(Dialect::OpenAi)),
        }
    }

    /// The first chunk of a choice says who speaks.
    fn open(&mut self, index: usize, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.told[index].1, true) {
            self.chunk(index, json!({ "role": "assistant", "content": "" }), &[], out);
        }
    }

    /// A call comes in two chunks: its name, then its arguments.
    fn call(&mut self, index: usize, call: &ToolCall, out: &mut Vec<u8>) {
        let number = self.told[index].0;
        self.told[index].0 += 1;
        let mut named = reply::tool_call(call);
        named["index"] = number.into();
        named["function"]["arguments"] = "".into();
        self.chunk(index, json!({ "tool_calls": [named] }), &[], out);
        let arguments = json!({ "index": number, "function": { "arguments": call.arguments } });
        self.chunk(index, json!({ "tool_calls": [arguments] }), &[], out);
    }

    fn chunk(&self, index: usize, delta: Value, logprobs: &[TokenLogprob], out: &mut Vec<u8>) {
        let logprobs = (!logprobs.is_empty()).then(|| logprobs::of_chat(logprobs));
        self.send(
            json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null }),
            out,
        );
    }

    fn send(&self, choice: Value, out: &mut Vec<u8>) {
        let mut chunk = self.envelope.with(vec![choice]);
        if self.asked.with_usage {
            chunk.insert("usage".to_string(), Value::Null);
        }
        sse::data(out, &chunk.into());
    }

    fn finish(&mut self, completions: &[Completion], out: &mut Vec<u8>) {
        for (index, completion) in completions.iter().enumerate() {
            self.open(index, out);
            let reason = reply::finish_reason(completion);
            let choice = json!({ "index": index, "delta": {}, "logprobs": null, "finish_reason": reason });
            let mut chunk = self.envelope.with(vec![choice]);
            if self.asked.with_usage {
                chunk.insert("usage".to_string(), Value::Null);
            }
            reply::ours(&mut chunk, &self.asked.request, completions, &self.asked.warnings);
            sse::data(out, &chunk.into());
        }
        if self.asked.with_usage {
            let mut chunk = self.envelope.with(Vec::new());
            chunk.insert("usage".to_string(), reply::usage(&reply::total(completions)));
            sse::data(out, &chunk.into());
        }
        sse::done(out);
    }
}
