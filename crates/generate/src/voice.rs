//! Completions as they are spoken: tokens become text, up to a stop string, and the caller hears of it.

use crate::answer::{Parser, Piece};
use crate::engine::Engine;
use crate::sequence::{Output, Pick};
use crate::steps::Ticket;
use crate::stop::StopFinder;
use rhetor_lm::{Completion, Event, FinishReason, Timings, TokenLogprob, ToolCall, Usage};
use rhetor_tokenizer::Detokenizer;
use std::ops::ControlFlow;
use std::time::Instant;

/// One completion as it is spoken.
pub(crate) struct Voice {
    stream: Detokenizer,
    stops: StopFinder,
    parser: Parser,
    text: String,
    thinking: String,
    tool_calls: Vec<ToolCall>,
    n_thinking: usize,
    ids: Vec<u32>,
    logprobs: Option<Vec<TokenLogprob>>,
    /// How many of them the caller has heard of.
    n_told: usize,
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
    pub fn new(stream: Detokenizer, stops: StopFinder, parser: Parser, with_logprobs: bool) -> Voice {
        Voice {
            stream,
            stops,
            parser,
            text: String::new(),
            thinking: String::new(),
            tool_calls: Vec::new(),
            n_thinking: 0,
            ids: Vec::new(),
            logprobs: with_logprobs.then(Vec::new),
            n_told: 0,
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
            thinking: self.thinking,
            finish_reason: match self.reason.unwrap_or(FinishReason::Cancelled) {
                FinishReason::Stop if !self.tool_calls.is_empty() => FinishReason::ToolCalls,
                reason => reason,
            },
            tool_calls: self.tool_calls,
            usage: Usage {
                completion_tokens: self.ids.len(),
                thinking_tokens: self.n_thinking,
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
    /// Control tokens that are heard: those that mark thoughts and calls.
    pub marks: Vec<(u32, String)>,
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
                hear(self.on_event, &mut self.is_cancelled, event);
            }
            Output::Token { index, pick } => {
                if self.voices[index].reason.is_none() && self.speak(index, &pick) {
                    self.end(index, FinishReason::Stop);
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

    /// Takes a token; true if the completion ends with it: a stop string or the only call is complete.
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
        let mut piece = voice.stream.push(pick.id);
        if let Some((_, spelling)) = self.marks.iter().find(|(id, _)| *id == pick.id) {
            piece.push_str(spelling);
        }
        let (text, is_stop) = voice.stops.push(&piece);
        let was_thinking = voice.parser.is_thinking();
        let pieces = voice.parser.push(&text);
        voice.n_thinking += usize::from(was_thinking || voice.parser.is_thinking());
        let is_over = is_stop || voice.parser.is_over();
        self.emit(index, pieces);
        is_over
    }

    /// Gives out what was held back: it is no part of a stop string any more.
    fn close(&mut self, index: usize, reason: FinishReason) {
        let voice = &mut self.voices[index];
        let rest = voice.stream.finish();
        let (mut text, is_stop) = voice.stops.push(&rest);
        if !is_stop {
            text.push_str(&voice.stops.finish());
        }
        let pieces = voice.parser.push(&text);
        self.emit(index, pieces);
        self.end(index, if is_stop { FinishReason::Stop } else { reason });
    }

    /// Nothing more is said: what may have become a tag or a call is what it is, and all log-probabilities are told.
    fn end(&mut self, index: usize, reason: FinishReason) {
        let voice = &mut self.voices[index];
        voice.reason = Some(reason);
        let pieces = voice.parser.finish();
        self.emit(index, pieces);
        let voice = &self.voices[index];
        if voice.logprobs.as_ref().is_some_and(|logprobs| logprobs.len() > voice.n_told) {
            self.tell(index, "");
        }
    }

    fn emit(&mut self, index: usize, pieces: Vec<Piece>) {
        for piece in pieces {
            let voice = &mut self.voices[index];
            match piece {
                Piece::Content(text) => {
                    voice.text.push_str(&text);
                    self.tell(index, &text);
                }
                Piece::Thinking(text) => {
                    voice.thinking.push_str(&text);
                    let event = Event::Thinking { index, text: &text };
                    hear(self.on_event, &mut self.is_cancelled, event);
                }
                Piece::Call(call) => {
                    let event = Event::ToolCall { index, call: &call };
                    hear(self.on_event, &mut self.is_cancelled, event);
                    voice.tool_calls.push(call);
                }
            }
        }
    }

    /// Tells a piece of text, with the log-probabilities that were not told yet.
    fn tell(&mut self, index: usize, text: &str) {
        let voice = &mut self.voices[index];
        let logprobs = voice.logprobs.as_deref().unwrap_or_default();
        let event = Event::Text { index, text, logprobs: &logprobs[voice.n_told..] };
        hear(self.on_event, &mut self.is_cancelled, event);
        voice.n_told = logprobs.len();
    }
}

/// Tells a caller who has not broken off.
fn hear(on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>, is_cancelled: &mut bool, event: Event<'_>) {
    if !*is_cancelled {
        *is_cancelled = on_event(event).is_break();
    }
}
