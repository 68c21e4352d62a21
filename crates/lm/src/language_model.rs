//! What a language model is to everything above it.

use crate::{Cancel, Constraint, Message, Sampling, ToolCall, Tools};
use std::sync::Arc;
use std::time::Instant;

/// Text in, text out, how likely. Implemented by the engine, by wrappers that hold another model, and by fakes.
pub trait LanguageModel: Send + Sync {
    /// The model's name, as the user gave it.
    fn name(&self) -> &str;

    /// Continues `request.prompt`, calling `on_event` with each piece as it is found.
    ///
    /// Returns one completion for each of `request.n`. Stops early, with [`FinishReason::Cancelled`], when
    /// `on_event` returns [`std::ops::ControlFlow::Break`].
    fn generate(
        &self,
        request: &Request,
        on_event: &mut dyn FnMut(Event<'_>) -> std::ops::ControlFlow<()>,
    ) -> Result<Vec<Completion>, Error>;

    /// How likely `continuation` is after `context`, token by token. An empty context means: from the start.
    fn score(&self, context: &str, continuation: &str) -> Result<Score, Error>;
}

/// What a model is asked to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Text as it is; control tokens inside are parsed only by explicit wish of the caller.
    Text {
        /// The text.
        text: String,
        /// Whether `<|im_start|>` and its like become control tokens.
        parse_special: bool,
    },
    /// A conversation, rendered by the model's chat template.
    Chat(Vec<Message>),
    /// A text with a hole, which the answer fills.
    Infill {
        /// What stands before the hole.
        prefix: String,
        /// What stands after it.
        suffix: String,
    },
    /// Tokens of the model's vocabulary as callers learnt them from `tokenize`, as they are.
    Ids(Vec<u32>),
}

/// What happens when prompt and answer do not fit into the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The request is refused, with both numbers.
    #[default]
    Error,
    /// The oldest turns (of a chat; never the system turn) or the first tokens (of a text) are dropped, and the number of
    /// tokens dropped is reported in [`Usage::truncated_tokens`].
    TruncateOldest,
}

/// Where a picture stands in a prompt; models that see were trained with `<Img>` before it and `</Img>` after it.
pub const PICTURE_PLACE: &str = "<ImageHere>";

/// A request for completions.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What to continue.
    pub prompt: Prompt,
    /// Files of pictures (PNG, JPEG, WebP), in the order of their places in the prompt. A prompt without a
    /// [`PICTURE_PLACE`] has them at the beginning of its last message.
    pub pictures: Vec<Arc<[u8]>>,
    /// The most tokens to generate; `None` = until the model stops or the context is full.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The answer ends before the first of these strings.
    pub stop: Vec<String>,
    /// Seed of the random choices; the same seed gives the same bytes. Completion `i` of `n` uses `seed + i`.
    pub seed: u64,
    /// How many completions.
    pub n: usize,
    /// Report the log-probability of each token and of this many alternatives.
    pub logprobs: Option<usize>,
    /// What happens when the context is too short.
    pub overflow: Overflow,
    /// Beam search with that many beams instead of sampling; 1 = off.
    pub beams: usize,
    /// The adapters that are on for this request, by name; `None` = as the model was set up, empty = the base alone.
    pub adapters: Option<Vec<String>>,
    /// What the answer must look like. After thinking, where the model thinks.
    pub constraint: Option<Constraint>,
    /// What the model may call; needs a [`Prompt::Chat`].
    pub tools: Tools,
    /// Whether a model that can think before it speaks does; `None` = as its template has it.
    pub think: Option<bool>,
    /// Report the log-probability of each token of the prompt and of this many alternatives.
    pub prompt_logprobs: Option<usize>,
    /// The most tokens that are guessed ahead in a step by speculative decoding; `None` = as the engine was set up,
    /// 0 = none. It changes the speed, never the distribution of the answers.
    pub speculate: Option<usize>,
    /// When the answer ends, finished or not, with [`FinishReason::Deadline`].
    pub deadline: Option<Instant>,
    /// Raised by the caller to end the answer with [`FinishReason::Cancelled`], also while it waits in line.
    pub cancel: Cancel,
}

impl Request {
    /// A greedy request for one completion of `prompt`.
    pub fn new(prompt: Prompt) -> Request {
        Request {
            prompt,
            pictures: Vec::new(),
            max_tokens: None,
            sampling: Sampling::default(),
            stop: Vec::new(),
            seed: 0,
            n: 1,
            logprobs: None,
            overflow: Overflow::Error,
            beams: 1,
            adapters: None,
            constraint: None,
            tools: Tools::default(),
            think: None,
            prompt_logprobs: None,
            speculate: None,
            deadline: None,
            cancel: Cancel::default(),
        }
    }

    /// A greedy request for one completion of `text`, control tokens not parsed.
    pub fn text(text: impl Into<String>) -> Request {
        Request::new(Prompt::Text { text: text.into(), parse_special: false })
    }

    /// A greedy request for one answer to a conversation.
    pub fn chat(messages: impl Into<Vec<Message>>) -> Request {
        Request::new(Prompt::Chat(messages.into()))
    }
}

/// What happens while a completion grows.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// Prompt tokens computed so far, of all.
    Prefill {
        /// Tokens computed, cached ones included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A piece of text of completion `index`: whole characters, and nothing that could belong to a stop string.
    Text {
        /// Which of the `n` completions.
        index: usize,
        /// The piece.
        text: &'a str,
        /// The tokens chosen since the last piece, if log-probabilities were asked for. The last of a completion may
        /// come with an empty text.
        logprobs: &'a [TokenLogprob],
    },
    /// A piece of what the model thinks before it speaks.
    Thinking {
        /// Which of the `n` completions.
        index: usize,
        /// The piece.
        text: &'a str,
    },
    /// A complete call of a tool.
    ToolCall {
        /// Which of the `n` completions.
        index: usize,
        /// The call.
        call: &'a ToolCall,
    },
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FinishReason {
    /// The model said so, or a stop string was found.
    Stop,
    /// `max_tokens` was reached or the context is full.
    Length,
    /// The model called tools and waits for what they return.
    ToolCalls,
    /// The request's deadline passed.
    Deadline,
    /// The caller broke off.
    #[default]
    Cancelled,
}

impl FinishReason {
    /// `stop`, `length`, `tool_calls`, `deadline` or `cancelled`.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::Deadline => "deadline",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

/// Tokens counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt after truncation.
    pub prompt_tokens: usize,
    /// Of those, tokens whose keys and values were still in the cache.
    pub cached_tokens: usize,
    /// Tokens dropped from the prompt by [`Overflow::TruncateOldest`].
    pub truncated_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Of those, tokens of what the model thought before it spoke.
    pub thinking_tokens: usize,
    /// Of those generated, tokens at which a constraint forbade at least one other.
    pub constrained_tokens: usize,
    /// Tokens guessed ahead by speculative decoding.
    pub drafted_tokens: usize,
    /// Of those, tokens that were right.
    pub accepted_tokens: usize,
}

/// Where the time went, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Timings {
    /// From the request to the first generated token.
    pub prefill_seconds: f64,
    /// From the first to the last generated token.
    pub decode_seconds: f64,
}

/// One token and how likely it was.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token's text; broken UTF-8 replaced.
    pub text: String,
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// The token's id in the model's vocabulary.
    pub id: u32,
    /// Natural logarithm of its probability before sampling methods change the distribution.
    pub logprob: f32,
    /// The most likely alternatives, most likely first: text, id, log-probability.
    pub top: Vec<(String, u32, f32)>,
}

/// A finished completion.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Completion {
    /// The text, stop string, thoughts and calls of tools excluded.
    pub text: String,
    /// What the model thought before it spoke.
    pub thinking: String,
    /// The tools that it calls.
    pub tool_calls: Vec<ToolCall>,
    /// The ids that were generated, for those who show them; no meaning above the waist.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens counted.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
    /// For each token, if asked for.
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// For each token of the prompt but the first, if asked for.
    pub prompt_logprobs: Option<Vec<TokenLogprob>>,
    /// The constraint that was in force, by [`Constraint::name`], or `tool_call` where a call was required.
    pub constraint: Option<&'static str>,
    /// Sum of the log-probabilities of the generated tokens.
    pub logprob_sum: f64,
    /// What the caller should know: a dropped turn, a full context.
    pub warnings: Vec<String>,
}

/// One token of a scored text.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenScore {
    /// The token's text.
    pub text: String,
    /// The token's id.
    pub id: u32,
    /// Natural logarithm of its probability given all before it.
    pub logprob: f32,
    /// Whether it was the most likely token.
    pub is_greedy: bool,
}

/// How likely a text is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Score {
    /// One entry for each token of the continuation.
    pub tokens: Vec<TokenScore>,
    /// Bytes of the continuation.
    pub n_bytes: usize,
}

impl Score {
    /// Sum of the log-probabilities, in nats.
    pub fn logprob_sum(&self) -> f64 {
        self.tokens.iter().map(|token| f64::from(token.logprob)).sum()
    }

    /// exp of the mean negative log-probability of a token.
    pub fn perplexity(&self) -> f64 {
        (-self.logprob_sum() / self.tokens.len().max(1) as f64).exp()
    }

    /// Negative log-probability in bits, per byte of text.
    pub fn bits_per_byte(&self) -> f64 {
        -self.logprob_sum() / std::f64::consts::LN_2 / self.n_bytes.max(1) as f64
    }
}

/// Why a model refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Prompt and wanted answer do not fit into the context.
    #[error(
        "the prompt has {prompt_tokens} tokens and the answer may have {max_tokens}; the context holds {context}"
    )]
    ContextOverflow {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// What the context holds.
        context: usize,
    },
    /// An option outside its range, or two that exclude each other.
    #[error("option `{option}`: {reason}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it, with the value given.
        reason: String,
    },
    /// The chat template refused or failed on these messages.
    #[error("the chat template refused the messages: {reason}")]
    Template {
        /// In the template's own words.
        reason: String,
    },
    /// The constraint is not understood, or too large.
    #[error("the {kind} constraint: {reason}")]
    Constraint {
        /// By [`Constraint::name`].
        kind: &'static str,
        /// What is wrong, and where.
        reason: String,
    },
    /// Too many requests wait already.
    #[error("{waiting} requests wait already, and no more than {limit} may")]
    Busy {
        /// Requests in line.
        waiting: usize,
        /// The most that may be.
        limit: usize,
    },
    /// The prompt is empty and the model has no token to begin with.
    #[error("the prompt is empty and the model names no token to begin with")]
    EmptyPrompt,
    /// The model cannot do this.
    #[error("{model} cannot {what}")]
    Unsupported {
        /// The model's name.
        model: String,
        /// What was asked.
        what: String,
    },
}
