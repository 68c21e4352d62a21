//! `POST /v1/completions`: the reply that comes in chunks.

use super::completions::{AskedTexts, Echo};
use super::logprobs::Tokens;
use super::reply::{self, Envelope};
use crate::refusal::{Dialect, Refusal};
use crate::speech::Heard;
use crate::wire::sse;
use rhetor_lm::{Completion, Usage};
use serde_json::{Value, json};

/// Writes what is heard as chunks.
pub(crate) struct Chunks {
    envelope: Envelope,
    texts: AskedTexts,
    echoes: Vec<Echo>,
    /// For each completion, its tokens so far, and whether anything was told.
    told: Vec<(Tokens, bool)>,
}

impl Chunks {
    /// Chunks of a reply to `texts`.
    pub fn new(envelope: Envelope, texts: AskedTexts, echoes: Vec<Echo>) -> Chunks {
        let told = vec![(Tokens::default(), false); texts.prompts.len() * texts.asked.request.n];
        Chunks { envelope, texts, echoes, told }
    }

    /// Appends the events of what was heard.
    pub fn write(&mut self, heard: Heard, out: &mut Vec<u8>) {
        match heard {
            Heard::Prefill | Heard::ToolCall { .. } => {}
            Heard::Text { index, text, logprobs } => {
                self.open(index, out);
                let logprobs = (!logprobs.is_empty()).then(|| self.told[index].0.write(&logprobs));
                self.chunk(index, &text, logprobs, out);
            }
            // A raw text has no place for thoughts: they are a part of it.
            Heard::Thinking { index, text } => {
                self.open(index, out);
                self.chunk(index, &text, None, out);
            }
            Heard::Done(Ok(completions)) => self.finish(&completions, out),
            Heard::Done(Err(error)) => sse::data(out, &Refusal::from(error).body(Dialect::OpenAi)),
            Heard::Panicked => sse::data(out, &Refusal::panicked().body(Dialect::OpenAi)),
        }
    }

    /// The prompt comes first where it is told again.
    fn open(&mut self, index: usize, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.told[index].1, true) {
            return;
        }
        if let Some(echo) =
            self.echoes.get(index / self.texts.asked.request.n).filter(|echo| !echo.text.is_empty())
        {
            self.chunk(index, &echo.text, None, out);
        }
    }

    fn chunk(&self, index: usize, text: &str, logprobs: Option<Value>, out: &mut Vec<u8>) {
        let choice = json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": null });
        let mut chunk = self.envelope.with(vec![choice]);
        if self.texts.asked.with_usage {
            chunk.insert("usage".to_string(), Value::Null);
        }
        sse::data(out, &chunk.into());
    }

    fn finish(&mut self, completions: &[Completion], out: &mut Vec<u8>) {
        let asked = &self.texts.asked;
        let (n, with_usage) = (asked.request.n, asked.with_usage);
        for (index, completion) in completions.iter().enumerate() {
            self.open(index, out);
            let reason = reply::finish_reason(completion);
            let choice = json!({ "index": index, "text": "", "logprobs": null, "finish_reason": reason });
            let mut chunk = self.envelope.with(vec![choice]);
            if with_usage {
                chunk.insert("usage".to_string(), Value::Null);
            }
            let asked = &self.texts.asked;
            reply::ours(&mut chunk, &asked.request, completions, &asked.warnings);
            sse::data(out, &chunk.into());
        }
        if with_usage {
            let mut usage = Usage::default();
            completions.chunks(n).for_each(|of_prompt| reply::add(&mut usage, reply::total(of_prompt)));
            let mut chunk = self.envelope.with(Vec::new());
            chunk.insert("usage".to_string(), reply::usage(&usage));
            sse::data(out, &chunk.into());
        }
        sse::done(out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::completions;
    use super::*;
    use rhetor_lm::FinishReason;

    #[test]
    fn an_echo_comes_first_and_choices_are_numbered_through_all_prompts() {
        let body = json!({ "model": "m", "prompt": ["P", "Q"], "n": 2, "echo": true, "stream": true, "seed": 7,
            "stream_options": { "include_usage": true } });
        let envelope = Envelope::new("cmpl-", "text_completion", "m");
        let echo = |text: &str| Echo { text: text.to_string(), first: None };
        let texts = completions::read(body, false).unwrap();
        let mut chunks = Chunks::new(envelope, texts, vec![echo("P"), echo("Q")]);
        let mut out = Vec::new();
        for index in [3, 0, 3] {
            chunks.write(Heard::Text { index, text: index.to_string(), logprobs: Vec::new() }, &mut out);
        }
        let usage = Usage { prompt_tokens: 1, completion_tokens: 1, ..Usage::default() };
        let done = Completion { finish_reason: FinishReason::Stop, usage, ..Completion::default() };
        chunks.write(Heard::Done(Ok(vec![done; 4])), &mut out);
        let text = String::from_utf8(out).unwrap();
        let mut told = vec![String::new(); 4];
        let mut last = Value::Null;
        for data in
            text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]")
        {
            last = serde_json::from_str(data).unwrap();
            for choice in last["choices"].as_array().unwrap() {
                told[choice["index"].as_u64().unwrap() as usize].push_str(choice["text"].as_str().unwrap());
            }
        }
        assert_eq!(told, ["P0", "P", "Q", "Q33"]);
        // Each prompt is counted once, each completion too.
        assert_eq!(
            (&last["usage"]["prompt_tokens"], &last["usage"]["completion_tokens"]),
            (&json!(2), &json!(4))
        );
        assert!(text.ends_with("data: [DONE]\n\n"));
    }
}
