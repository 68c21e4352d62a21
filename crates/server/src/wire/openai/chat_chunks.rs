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
            Heard::Prefill => {}
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

#[cfg(test)]
mod tests {
    use super::super::chat;
    use super::*;
    use rhetor_lm::{FinishReason, Usage};

    /// What is heard, as the chunks' text.
    fn written(more: Value, heard: Vec<Heard>) -> String {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "Hi" }], "stream": true, "seed": 7 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let envelope = Envelope {
            id: "chatcmpl-1".to_string(),
            object: "chat.completion.chunk",
            created: 5,
            model: "m".to_string(),
        };
        let mut chunks = Chunks::new(envelope, chat::read(body, false).unwrap());
        let mut out = Vec::new();
        heard.into_iter().for_each(|heard| chunks.write(heard, &mut out));
        String::from_utf8(out).unwrap()
    }

    fn choices(text: &str) -> Vec<Value> {
        let data =
            text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str::<Value>(data).unwrap()["choices"].clone()).collect()
    }

    fn text(text: &str) -> Heard {
        Heard::Text { index: 0, text: text.to_string(), logprobs: Vec::new() }
    }

    #[test]
    fn a_stream_is_this_to_the_byte() {
        let usage = Usage { prompt_tokens: 2, completion_tokens: 1, ..Usage::default() };
        let done = Completion {
            text: "a".to_string(),
            finish_reason: FinishReason::Stop,
            usage,
            ..Completion::default()
        };
        let told = written(json!({}), vec![Heard::Prefill, text("a"), Heard::Done(Ok(vec![done]))]);
        let head = format!(
            r#"data: {{"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m","system_fingerprint":"{}","choices":"#,
            reply::FINGERPRINT
        );
        let lines = [
            r#"[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}"#,
            r#"[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}]}"#,
            r#"[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"seed":7}"#,
        ];
        let expected: String = lines.iter().map(|line| format!("{head}{line}\n\n")).collect();
        assert_eq!(told, expected + "data: [DONE]\n\n");
    }

    #[test]
    fn a_call_is_named_once_and_its_arguments_follow() {
        let call = |id: &str| ToolCall {
            id: id.to_string(),
            name: "f".to_string(),
            arguments: r#"{"a":1}"#.to_string(),
        };
        let heard = ["x", "y"].map(|id| Heard::ToolCall { index: 0, call: call(id) });
        let done = Completion { finish_reason: FinishReason::ToolCalls, ..Completion::default() };
        let told = written(json!({}), heard.into_iter().chain([Heard::Done(Ok(vec![done]))]).collect());
        let told = choices(&told);
        let second = &told[3][0]["delta"]["tool_calls"][0];
        assert_eq!(
            *second,
            json!({ "id": "y", "type": "function", "index": 1,
            "function": { "name": "f", "arguments": "" } })
        );
        let follows = json!({ "index": 1, "function": { "arguments": r#"{"a":1}"# } });
        assert_eq!(told[4][0]["delta"]["tool_calls"][0], follows);
        assert_eq!(told[5][0]["finish_reason"], "tool_calls");
    }

    #[test]
    fn thoughts_come_apart_and_usage_comes_last_alone() {
        let thought = Heard::Thinking { index: 0, text: "hm".to_string() };
        let done = Heard::Done(Ok(vec![Completion::default()]));
        let told =
            written(json!({ "stream_options": { "include_usage": true } }), vec![thought, text("a"), done]);
        assert_eq!(choices(&told)[1][0]["delta"], json!({ "reasoning": "hm" }));
        assert_eq!(*choices(&told).last().unwrap(), json!([]));
        assert_eq!(told.matches("\"usage\":null").count(), 4);
    }

    #[test]
    fn an_error_in_the_midst_is_the_last_event() {
        let told = written(json!({}), vec![text("a"), Heard::Panicked]);
        let last = told.trim_end().lines().last().unwrap();
        assert!(last.starts_with(r#"data: {"error":{"message":"#), "{last}");
    }
}
