//! The engine: schedules, runs and samples; implements the waist.
#![forbid(unsafe_code)]

mod kv_blocks;
mod logprob;
mod rng;
mod runner;
pub mod sampling;
mod scheduler;
mod search;
mod sequence;
mod steps;
mod stop;
mod templates;
mod chat_template;
mod error;
pub use error::Error;
pub use chat_template::{ChatTemplate, GenerationPrompt};
pub use templates::{NamedTemplate, TEMPLATES};
/// Tokens in a page of the key-value cache.
pub const PAGE_LEN: usize = 32;
