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
/// Tokens in a page of the key-value cache.
pub const PAGE_LEN: usize = 32;
