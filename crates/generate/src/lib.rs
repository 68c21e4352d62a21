//! The engine: schedules, runs and samples; implements the waist.
//!
//! [`Engine`] makes a voice of a model and its tokenizer. A request's way through it: `prompt` renders and encodes it,
//! `steps` puts it in line, `scheduler` says which tokens make up the next step and which pages of the cache they use
//! (`kv_blocks`), `runner` computes them, [`sampling`] or `search` chooses the next tokens among those that a `constraint`
//! allows, and `voice` turns those into text up to a stop string (`stop`).
//!
//! No HTTP, no training. The loop of `steps` is the one thread of an engine.
#![forbid(unsafe_code)]

pub mod answer;
mod capabilities;
mod chat_template;
mod choices;
mod constraint;
mod engine;
#[cfg(test)]
mod engine_tests;
mod error;
#[cfg(test)]
mod fake;
mod go_template;
pub mod infill;
mod jinja;
mod kv_blocks;
mod line;
#[cfg(test)]
mod load_tests;
mod logprob;
pub mod open;
pub mod pictures;
mod prefix_store;
mod prompt;
mod rng;
mod runner;
pub mod sampling;
mod scheduler;
mod search;
mod sequence;
#[cfg(test)]
mod source_tests;
#[cfg(test)]
mod speculation_tests;
mod steps;
mod stop;
mod templates;
mod turns;
mod voice;

pub use capabilities::{Capabilities, ToolSupport};
pub use chat_template::{ChatTemplate, GenerationPrompt, RenderOptions};
pub use engine::{Engine, EngineOptions};
pub use error::Error;
pub use prefix_store::PrefixStoreOptions;
pub use prompt::{Controls, Guarded};
pub use rng::Rng;
pub use sampling::SAMPLING;
pub use scheduler::Stats;
pub use search::speculative::{DRAFT_TOKENS, DRAFTERS, DrafterOptions, Method as DraftMethod};
pub use templates::{NamedTemplate, TEMPLATES};
