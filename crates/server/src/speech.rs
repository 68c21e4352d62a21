//! From the blocking waist to a stream: a request speaks on a thread of its own, and what it says is heard here.

use crate::residents::{Lease, RunningRequest};
use rhetor_lm::{Cancel, Completion, Error, Event, LanguageModel, Request, TokenLogprob, ToolCall};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;

/// [`Event`], owned, and the end.
#[derive(Debug)]
pub enum Heard {
    /// A part of the prompt was computed.
    Prefill,
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

impl Heard {
    /// The event, of a request whose completions are numbered from `first`.
    fn of(event: Event<'_>, first: usize) -> Heard {
        match event {
            Event::Prefill { .. } => Heard::Prefill,
            Event::Text { index, text, logprobs } => {
                Heard::Text { index: first + index, text: text.to_string(), logprobs: logprobs.to_vec() }
            }
            Event::Thinking { index, text } => {
                Heard::Thinking { index: first + index, text: text.to_string() }
            }
            Event::ToolCall { index, call } => Heard::ToolCall { index: first + index, call: call.clone() },
        }
    }
}

/// How many requests of one caller are put to a model at once.
const MAX_AT_ONCE: usize = 16;

/// A request that speaks. Dropping it breaks the request off, wherever it is.
pub struct Speech {
    heard: mpsc::UnboundedReceiver<Heard>,
    cancel: Cancel,
}

impl Speech {
    /// Puts `request` to the model, which stays in memory until it is through with it.
    pub fn begin(lease: Lease, request: Request) -> Speech {
        Speech::begin_all(lease, vec![request])
    }

    /// Puts several requests to the model, which want the same number `n` of completions each. Completion `j` of request
    /// `i` is heard as number `i * n + j`, and the first error ends them all.
    ///
    /// They end when the server's time for a request is over, if they do not say an earlier time themselves.
    pub fn begin_all(lease: Lease, mut requests: Vec<Request>) -> Speech {
        let (tell, heard) = mpsc::unbounded_channel();
        let cancel = Cancel::default();
        for request in &mut requests {
            request.cancel = cancel.clone();
            request.deadline = request.deadline.into_iter().chain(lease.deadline()).min();
        }
        let n_threads = requests.len().min(MAX_AT_ONCE);
        let chorus = Arc::new(Chorus {
            said: Mutex::new(requests.iter().map(|_| None).collect()),
            next: AtomicUsize::new(0),
            requests,
            _running: lease.running(cancel.clone()),
            lease,
            cancel: cancel.clone(),
        });
        for _ in 0..n_threads {
            let (chorus, tell) = (chorus.clone(), tell.clone());
            tokio::task::spawn_blocking(move || chorus.sing(&tell));
        }
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

/// Requests to one model that are told as one.
struct Chorus {
    lease: Lease,
    requests: Vec<Request>,
    _running: RunningRequest,
    cancel: Cancel,
    /// The number of the request that is begun next.
    next: AtomicUsize,
    /// What each request ended with.
    said: Mutex<Vec<Option<Vec<Completion>>>>,
}

impl Chorus {
    /// Speaks one request after another until none is left; who ends the last tells the end.
    fn sing(&self, tell: &mpsc::UnboundedSender<Heard>) {
        let Ok(engine) = self.lease.engine() else { return };
        while let Some((i, request)) = self.take() {
            let (began, mut is_first) = (Instant::now(), true);
            let on_event = &mut |event: Event<'_>| {
                if !matches!(event, Event::Prefill { .. }) && std::mem::take(&mut is_first) {
                    self.lease.metrics().first_token(began.elapsed());
                }
                let sent = tell.send(Heard::of(event, i * request.n));
                if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            match engine.generate(request, on_event) {
                Ok(completions) => {
                    self.lease.metrics().complete(&completions);
                    let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
                    said[i] = Some(completions);
                    if said.iter().all(Option::is_some) {
                        let all = said.drain(..).flatten().flatten().collect();
                        // Nobody may be listening any more.
                        let _ = tell.send(Heard::Done(Ok(all)));
                    }
                }
                Err(error) => {
                    self.cancel.cancel();
                    let _ = tell.send(Heard::Done(Err(error)));
                    return;
                }
            }
        }
    }

    fn take(&self) -> Option<(usize, &Request)> {
        let i = self.next.fetch_add(1, Ordering::Relaxed);
        self.requests.get(i).map(|request| (i, request))
    }
}

impl Drop for Speech {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
