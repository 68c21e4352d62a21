//! Training: data becomes examples, examples become batches, batches become better weights.
//!
//! The data's way: [`data`] reads files of many formats into [`data::Row`]s, tokenizes texts once into a
//! [`data::TokenFile`], and says in which order items come; [`examples`] turns rows into [`Example`]s, one
//! file for each objective. Everything random is keyed by (seed, epoch, item), see [`random`], so that a
//! resumed run sees what the uninterrupted one would have seen.
//!
//! No sampling, no HTTP; the environment is not read and nothing is fetched.
#![forbid(unsafe_code)]

pub mod data;
mod error;
mod example;
pub mod examples;

pub mod random;

pub use error::Error;
pub use example::{Example, IGNORE, Label, Sequence, Skip, Tally};
