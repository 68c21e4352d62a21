//! From the blocking waist to a stream: a request speaks on a thread of its own, and what it says is heard here.

use crate::residents::Lease;
use rhetor_lm::{Cancel, Completion, Error, Event, LanguageModel, Request, TokenLogprob, ToolCall};
use std::ops::ControlFlow;
use std::time::Instant;
use tokio::sync::mpsc;

/// [`Event`], owned, and the end.
#[derive(Debug)]
pub enum Heard {
    /// Prompt tokens computed so far, of all.
    Prefill { done: usize, total: usize },
    /// A piece of text.
    Text { index: usize, text: String, logprobs: Vec<TokenLogprob> },
    /// A piece of thought.
    Thinking { index: usize, text: String },
    /// A complete call of a tool.
    ToolCall { index: usize, call: ToolCall },
    /// Nothing follows.
    Done(Result<Vec<Completion>, Error>),
    /// The model panicked; nothing follows.
    Panicked,
}

/// A request that speaks. Dropping it breaks the request off, wherever it is.
pub struct Speech {
    heard: mpsc::UnboundedReceiver<Heard>,
    cancel: Cancel,
}

impl Speech {
    /// Puts `request` to the model, which stays in memory until it is through with it.
    /// It ends when the server's time for a request is over, if it does not say an earlier time itself.
    pub fn begin(lease: Lease, mut request: Request) -> Speech {
        let (tell, heard) = mpsc::unbounded_channel();
        let cancel = request.cancel.clone();
        request.deadline = request.deadline.into_iter().chain(lease.deadline()).min();
        let running = lease.running(cancel.clone());
        tokio::task::spawn_blocking(move || {
            let (_running, began, mut is_first) = (running, Instant::now(), true);
            let Ok(engine) = lease.engine() else { return };
            let mut on_event = |event: Event<'_>| {
                let heard = match event {
                    Event::Prefill { done, total } => Heard::Prefill { done, total },
                    Event::Text { index, text, logprobs } => {
                        Heard::Text { index, text: text.to_string(), logprobs: logprobs.to_vec() }
                    }
                    Event::Thinking { index, text } => Heard::Thinking { index, text: text.to_string() },
                    Event::ToolCall { index, call } => Heard::ToolCall { index, call: call.clone() },
                };
                let is_said = !matches!(heard, Heard::Prefill { .. });
                if is_said && std::mem::take(&mut is_first) {
                    lease.metrics().first_token(began.elapsed());
                }
                if tell.send(heard).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let said = engine.generate(&request, &mut on_event);
            if let Ok(completions) = &said {
                lease.metrics().complete(completions);
            }
            // Nobody may be listening any more.
            let _ = tell.send(Heard::Done(said));
        });
        Speech { heard, cancel }
    }

    /// What is heard next; [`Heard::Panicked`] if the thread ended without a word.
    pub async fn next(&mut self) -> Heard {
        self.heard.recv().await.unwrap_or(Heard::Panicked)
    }

    /// Waits for the end.
    pub async fn completions(mut self) -> Result<Vec<Completion>, crate::Refusal> {
        loop {
            match self.next().await {
                Heard::Done(said) => return Ok(said?),
                Heard::Panicked => return Err(crate::Refusal::panicked()),
                _ => {}
            }
        }
    }
}

impl Drop for Speech {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
