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
            Heard::Prefill { .. } | Heard::ToolCall { .. } => {}
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
