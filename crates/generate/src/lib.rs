//! The engine: schedules, runs and samples; implements the waist.
#![forbid(unsafe_code)]

mod chat_template;
mod engine;
mod error;
mod kv_blocks;
mod logprob;
mod prompt;
mod rng;
mod runner;
pub mod sampling;
mod scheduler;
mod search;
mod sequence;
mod steps;
mod stop;
mod templates;
pub use chat_template::{ChatTemplate, GenerationPrompt};
pub use engine::{Engine, EngineOptions};
pub use error::Error;
pub use scheduler::Stats;
pub use templates::{NamedTemplate, TEMPLATES};
/// Tokens in a page of the key-value cache.
pub const PAGE_LEN: usize = 32;
