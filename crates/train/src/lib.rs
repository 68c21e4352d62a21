//! Training: data becomes examples, examples become batches, batches become better weights.
//!
//! The data's way: [`data`] reads files of many formats into [`data::Row`]s, tokenizes texts once into a
//! [`data::TokenFile`], and says in which order items come; [`examples`] turns rows into [`Example`]s, one
//! file for each objective. Everything random is keyed by (seed, epoch, item), see [`random`], so that a
//! resumed run sees what the uninterrupted one would have seen.
//!
//! No sampling, no HTTP; the environment is not read and nothing is fetched.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod data;
mod error;
mod example;
pub mod examples;
mod layer_groups;
pub mod metrics;
pub mod objectives;
pub mod optimizers;
mod policy;
pub mod random;
mod recipe;
mod run;
pub mod scaling;
pub mod schedules;
mod source;
mod train;
pub mod vocabulary;
mod writer;

pub use error::Error;
pub use example::{Example, IGNORE, Label, Sequence, Skip, Tally};
pub use layer_groups::LayerGroups;
pub use policy::{Loss, Policy, batch_of};
pub use recipe::{Data, Options, Recipe};
pub use run::{Bytes, Description, Resolved, Run, show};
pub use source::{Packing, Pick, Rows, Text};
pub use train::{
    Alone, Event, Occasion, Progress, Source, State, StepReport, Team, TrainOptions, Validation, Wish,
    loss_of, train,
};
