//! An answer taken apart as it grows: what the model thinks, what it says, which tools it calls.
//!
//! The pieces may be cut anywhere: what comes out, put together, is the same. Nothing is held back but what may be the
//! beginning of a tag or of a call.

use super::json::Scan;
use super::syntax::{ToolSyntax, Written};
use super::thinking::Thinking;
use crate::turns::LETTERS;
use rhetor_lm::ToolCall;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What an answer is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Said.
    Content(String),
    /// Thought.
    Thinking(String),
    /// A complete call.
    Call(ToolCall),
}

/// What is to be looked for in an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    /// How the model marks its thoughts, if it has any.
    pub thinking: Option<&'static Thinking>,
    /// Whether the prompt ends inside a thought.
    pub is_thinking: bool,
    /// How it calls tools, if it may.
    pub tools: Option<Callable>,
}

/// The tools that an answer may call.
#[derive(Debug, Clone)]
pub(crate) struct Callable {
    /// How calls look.
    pub syntax: &'static ToolSyntax,
    /// The names of the tools; a call of anything else is text.
    pub names: Arc<[String]>,
    /// Whether an answer may have several calls.
    pub parallel: bool,
    /// From this and the number of a call comes its id.
    pub seed: [u8; 32],
}

/// Takes one answer apart.
#[derive(Debug, Clone)]
pub(crate) struct Parser {
    reading: Reading,
    state: State,
    /// Text that is not given out yet.
    held: String,
    /// Whether white space is dropped until something else comes: after a tag or a call.
    trims: bool,
    /// Whether nothing was said yet.
    is_blank: bool,
    n_calls: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has come but white space.
    Start,
    Thinking,
    Content,
    /// The call that was allowed is made.
    Over,
}

impl Parser {
    pub fn new(reading: Reading) -> Parser {
        let state = match (&reading.thinking, reading.is_thinking) {
            (Some(_), true) => State::Thinking,
            (Some(_), false) => State::Start,
            (None, _) => State::Content,
        };
        let trims = state == State::Thinking;
        Parser { reading, state, held: String::new(), trims, is_blank: true, n_calls: 0 }
    }

    /// Whether what comes next belongs to a thought.
    pub fn is_thinking(&self) -> bool {
        self.state == State::Thinking
    }

    /// Whether the answer may be ended: it has the one call that it may have.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        self.take(false)
    }

    /// The text is over: gives out what was held back.
    pub fn finish(&mut self) -> Vec<Piece> {
        self.take(true)
    }

    fn take(&mut self, is_over: bool) -> Vec<Piece> {
        let mut pieces = Vec::new();
        loop {
            let is_settled = match self.state {
                State::Start => self.begin(is_over),
                State::Thinking => self.think(is_over, &mut pieces),
                State::Content => self.say(is_over, &mut pieces),
                State::Over => {
                    self.held.clear();
                    true
                }
            };
            if is_settled {
                return pieces;
            }
        }
    }

    /// Finds out whether the answer begins with a thought. True if more text is needed.
    fn begin(&mut self, is_over: bool) -> bool {
        let open = self.reading.thinking.expect("only models that think begin so").open.trim();
        let first = self.held.trim_start();
        if let Some(rest) = first.strip_prefix(open) {
            self.held = rest.to_string();
            (self.state, self.trims) = (State::Thinking, true);
            return false;
        }
        if open.starts_with(first) && !is_over {
            return true;
        }
        self.state = State::Content;
        false
    }

    /// True if more text is needed.
    fn think(&mut self, is_over: bool, pieces: &mut Vec<Piece>) -> bool {
        let close = self.reading.thinking.expect("only models that think are here").close.trim();
        if let Some(at) = self.held.find(close) {
            let rest = self.held.split_off(at + close.len());
            self.held.truncate(at);
            self.held.truncate(self.held.trim_end().len());
            let thought = self.let_go(self.held.len());
            push(pieces, Piece::Thinking(thought));
            self.held = rest;
            (self.state, self.trims) = (State::Content, true);
            return false;
        }
        // White space before the closing tag is none of the thought.
        let n_safe = match is_over {
            true => self.held.len(),
            false => self.held[..self.held.len() - overlap(&self.held, close)].trim_end().len(),
        };
        let thought = self.let_go(n_safe);
        push(pieces, Piece::Thinking(thought));
        true
    }

    /// True if more text is needed.
    fn say(&mut self, is_over: bool, pieces: &mut Vec<Piece>) -> bool {
        let Some(tools) = self.reading.tools.clone() else {
            let text = self.let_go(self.held.len());
            push(pieces, Piece::Content(text));
            return true;
        };
        let Some((at, n_bytes)) = tools.syntax.opening(&self.held, self.is_blank) else {
            let n_safe = match is_over {
                true => self.held.len(),
                false => {
                    self.held[..self.held.len() - overlap(&self.held, tools.syntax.marker())].trim_end().len()
                }
            };
            self.speak(n_safe, pieces);
            return true;
        };
        match tools.syntax.calls(&self.held[at..], is_over) {
            Scan::Partial if !is_over => {
                let n_safe = self.held[..at].trim_end().len();
                self.speak(n_safe, pieces);
                true
            }
            Scan::Done(written, len) if tools.knows(&written) => {
                let rest = self.held.split_off(at + len);
                // White space between what is said and a call is neither's.
                self.held.truncate(self.held[..at].trim_end().len());
                self.speak(self.held.len(), pieces);
                self.held = rest;
                self.trims = true;
                let n_allowed = if tools.parallel { usize::MAX } else { 1 };
                for call in written.into_iter().take(n_allowed - self.n_calls) {
                    pieces.push(Piece::Call(tools.call(call, self.n_calls)));
                    self.n_calls += 1;
                }
                if self.n_calls >= n_allowed {
                    self.state = State::Over;
                }
                false
            }
            // What looked like a call is text; what follows its first letters may be one.
            Scan::Done(..) | Scan::Broken | Scan::Partial => {
                self.speak(at + n_bytes, pieces);
                false
            }
        }
    }

    fn speak(&mut self, n_bytes: usize, pieces: &mut Vec<Piece>) {
        let text = self.let_go(n_bytes);
        self.is_blank &= text.trim().is_empty();
        push(pieces, Piece::Content(text));
    }

    /// The first `n_bytes` of what is held; without white space if that is to be dropped.
    fn let_go(&mut self, n_bytes: usize) -> String {
        let rest = self.held.split_off(n_bytes);
        let text = std::mem::replace(&mut self.held, rest);
        if !self.trims {
            return text;
        }
        let text = text.trim_start();
        self.trims = text.is_empty();
        text.to_string()
    }
}

impl Callable {
    fn knows(&self, written: &[Written]) -> bool {
        !written.is_empty() && written.iter().all(|call| self.names.contains(&call.name))
    }

    /// Call number `n` of an answer.
    fn call(&self, written: Written, n: usize) -> ToolCall {
        let digest = Sha256::new().chain_update(self.seed).chain_update((n as u64).to_le_bytes()).finalize();
        let letters = digest.iter().take(24).map(|&byte| char::from(LETTERS[usize::from(byte) % 62]));
        let id = format!("call_{}", letters.collect::<String>());
        ToolCall { id, name: written.name, arguments: written.arguments }
    }
}

/// Adds a piece that says something.
fn push(pieces: &mut Vec<Piece>, piece: Piece) {
    if !matches!(&piece, Piece::Content(text) | Piece::Thinking(text) if text.is_empty()) {
        pieces.push(piece);
    }
}

/// Length of the longest end of `text` that is a beginning of `marker`, but not all of it.
fn overlap(text: &str, marker: &str) -> usize {
    let longest = text.len().min(marker.len().saturating_sub(1));
    (1..=longest).rev().find(|&n| marker.is_char_boundary(n) && text.ends_with(&marker[..n])).unwrap_or(0)
}
