//! Completions as they are spoken: tokens become text, up to a stop string, and the caller hears of it.

use crate::engine::Engine;
use crate::sequence::{Output, Pick};
use crate::steps::Ticket;
use crate::stop::StopFinder;
use rhetor_lm::{Completion, Event, FinishReason, Timings, TokenLogprob, Usage};
use rhetor_tokenizer::Detokenizer;
use std::ops::ControlFlow;
use std::time::Instant;

/// One completion as it is spoken.
pub(crate) struct Voice {
    stream: Detokenizer,
    stops: StopFinder,
    text: String,
    ids: Vec<u32>,
    logprobs: Option<Vec<TokenLogprob>>,
    logprob_sum: f64,
    n_constrained: usize,
    n_drafted: usize,
    n_accepted: usize,
    first: Option<Instant>,
    last: Option<Instant>,
    /// Why it ended; `None` while it grows.
    pub reason: Option<FinishReason>,
}

impl Voice {
    /// A voice that has said nothing yet.
    pub fn new(stream: Detokenizer, stops: StopFinder, with_logprobs: bool) -> Voice {
        Voice {
            stream,
            stops,
            text: String::new(),
            ids: Vec::new(),
            logprobs: with_logprobs.then(Vec::new),
            logprob_sum: 0.0,
            n_constrained: 0,
            n_drafted: 0,
            n_accepted: 0,
            first: None,
            last: None,
            reason: None,
        }
    }

    /// What it said; the request began at `began`.
    pub fn into_completion(self, usage: Usage, warnings: Vec<String>, began: Instant) -> Completion {
        let seconds = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64();
        let first = self.first.unwrap_or(began);
        Completion {
            text: self.text,
            finish_reason: self.reason.unwrap_or(FinishReason::Cancelled),
            usage: Usage {
                completion_tokens: self.ids.len(),
                constrained_tokens: self.n_constrained,
                drafted_tokens: self.n_drafted,
                // Guesses behind a stop string may have been right, but were not wanted.
                accepted_tokens: self.n_accepted.min(self.ids.len()),
                ..usage
            },
            token_ids: self.ids,
            timings: Timings {
                prefill_seconds: seconds(began, first),
                decode_seconds: seconds(first, self.last.unwrap_or(first)),
            },
            logprobs: self.logprobs,
            logprob_sum: self.logprob_sum,
            warnings,
            ..Completion::default()
        }
    }
}

/// A caller that listens to its completions.
pub(crate) struct Listening<'a> {
    pub engine: &'a Engine,
    /// One for each completion.
    pub voices: Vec<Voice>,
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Of these, tokens that were found in the cache.
    pub n_cached: usize,
    /// Tokens that end an answer beside the model's own.
    pub ends: Vec<u32>,
    pub on_event: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    /// Whether the caller broke off.
    pub is_cancelled: bool,
}

impl Listening<'_> {
    /// Takes outputs until all completions are complete or the caller breaks off.
    pub fn listen(&mut self, ticket: &Ticket<'_>) -> Result<(), rhetor_lm::Error> {
        loop {
            let outputs = ticket.next();
            if outputs.is_empty() {
                return Ok(());
            }
            for output in outputs {
                self.take(output, ticket)?;
                if self.is_cancelled {
                    for voice in self.voices.iter_mut().filter(|voice| voice.reason.is_none()) {
                        voice.reason = Some(FinishReason::Cancelled);
                    }
                    return Ok(());
                }
            }
        }
    }

    fn take(&mut self, output: Output, ticket: &Ticket<'_>) -> Result<(), rhetor_lm::Error> {
        match output {
            Output::Prefill { done, cached } => {
                self.n_cached = cached;
                // With a source, what is computed before the answer is that and one token more.
                let done = if self.engine.decoder_start().is_some() { done * self.n_prompt } else { done };
                let event = Event::Prefill { done, total: self.n_prompt };
                self.is_cancelled |= (self.on_event)(event).is_break();
            }
            Output::Token { index, pick } => {
                if self.voices[index].reason.is_none() && self.speak(index, &pick) {
                    self.voices[index].reason = Some(FinishReason::Stop);
                    ticket.finish(index);
                }
            }
            Output::Guessed { index, drafted, accepted } => {
                self.voices[index].n_drafted += drafted;
                self.voices[index].n_accepted += accepted;
            }
            Output::Finished { index, reason } => {
                if self.voices[index].reason.is_none() {
                    self.close(index, reason);
                }
            }
            Output::Scores(_) => {}
            Output::Failed(reason) => {
                return Err(self.engine.unsupported(format!("finish this request: {reason}")));
            }
        }
        Ok(())
    }

    /// Takes a token; true if a stop string is complete.
    fn speak(&mut self, index: usize, pick: &Pick) -> bool {
        let voice = &mut self.voices[index];
        let now = Instant::now();
        voice.first.get_or_insert(now);
        voice.last = Some(now);
        voice.ids.push(pick.id);
        voice.logprob_sum += f64::from(pick.logprob);
        voice.n_constrained += usize::from(pick.is_constrained);
        if let Some(logprobs) = &mut voice.logprobs {
            logprobs.push(self.engine.token_logprob(pick));
        }
        if self.engine.tokenizer().stops().contains(&pick.id) || self.ends.contains(&pick.id) {
            return false;
        }
        let piece = voice.stream.push(pick.id);
        let (text, is_stop) = voice.stops.push(&piece);
        self.emit(index, &text);
        is_stop
    }

    /// Gives out what was held back: it is no part of a stop string any more.
    fn close(&mut self, index: usize, reason: FinishReason) {
        let voice = &mut self.voices[index];
        let rest = voice.stream.finish();
        let (mut text, is_stop) = voice.stops.push(&rest);
        if !is_stop {
            text.push_str(&voice.stops.finish());
        }
        voice.reason = Some(if is_stop { FinishReason::Stop } else { reason });
        self.emit(index, &text);
    }

    fn emit(&mut self, index: usize, text: &str) {
        if !text.is_empty() {
            self.voices[index].text.push_str(text);
            self.is_cancelled |= (self.on_event)(Event::Text { index, text, logprobs: &[] }).is_break();
        }
    }
}
