//! The waist: text in, text out, how likely.
//!
//! Everything above this crate sees a language model through [`LanguageModel`] and never meets a tensor or a token
//! id; everything below implements it. [`Scripted`] is the fake that tests above the waist use.
#![forbid(unsafe_code)]

mod cancel;
mod constraint;
mod language_model;
mod message;
mod sampling;
mod scripted;
mod tool;

pub use cancel::Cancel;
pub use constraint::Constraint;
pub use language_model::{
    Completion, Error, Event, FinishReason, LanguageModel, Overflow, PICTURE_PLACE, Prompt, Request, Score,
    Timings, TokenLogprob, TokenScore, Usage,
};
pub use message::{Message, Role};
pub use sampling::Sampling;
pub use scripted::Scripted;
pub use tool::{Tool, ToolCall, ToolChoice, Tools};
