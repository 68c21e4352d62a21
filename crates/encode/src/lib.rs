//! What a model makes of a text that it reads: vectors, classes, tags, answers, hidden words.
//!
//! A [`Reader`] is a model with its tokenizer. It reads many texts in few passes: they lie one after another in a batch, the
//! longest first, and nothing is padded. On it stand the [`Embedder`], which follows the directories of sentence-transformers,
//! and what a head is for: [`Reader::classify`], [`Reader::tag`], [`Reader::answer`], [`Reader::fill_mask`].
//!
//! No loss, no sampling, no file but the model's.
#![forbid(unsafe_code)]

mod answer;
mod classify;
mod dense;
mod embedder;
mod error;
mod fill_mask;
mod modules;
mod pooling;
mod reader;
mod softmax;
mod sparse;
mod tag;

pub use answer::{Answer, AnswerOptions};
pub use classify::{Class, Normalization};
pub use dense::Dense;
pub use embedder::{Embedder, Embeddings};
pub use error::Error;
pub use fill_mask::Filling;
pub use modules::{Module, Modules};
pub use pooling::{Pooling, PoolingMode};
pub use reader::{Reader, ReaderOptions, Text};
pub use sparse::SparsePooling;
pub use tag::{Aggregation, Tag};
