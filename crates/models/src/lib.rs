//! Token ids in, logits out: families, their layers, and the key-value cache.
//!
//! [`Model::load`] finds the family of a checkpoint in [`FAMILIES`], checks every tensor's name and shape, and packs
//! the weights for the kernels of this CPU; [`Model::forward`] is then free of errors. A family has no code path for
//! quantization, training or serving: those are properties of its bricks in [`layers`].
//!
//! No text, no sampling, no loss.
#![forbid(unsafe_code)]

pub mod adapters;
pub mod analysis;
mod config;
pub mod convert;
pub mod eagle;
pub mod estimate;
pub mod export;
pub mod families;
mod four_bit;
pub mod head;
pub mod init;
mod kv_cache;
pub mod layers;
mod load;
mod misfits;
mod model;
mod names;
mod places;
pub mod presets;
pub mod quant_mix;
mod row_order;
pub mod timeline;
pub mod transfer;
mod tree;

pub use config::{Key, Keys, ModelConfig, Part};
pub use families::{FAMILIES, Family, Licence, Published};
pub use four_bit::Nf4;
pub use head::{Head, Labelled, NewHead, Task, labels_of};
pub use kv_cache::KvCache;
pub use layers::{Active, Embedded, Keep, SourceTokens, Training};
pub use load::{LoadError, Weights};
pub use misfits::{Misfits, Misshapen};
pub use model::{AttachedAdapter, Batch, LoadOptions, Model, Network, SequenceSpan, Sight};
pub use names::TensorName;
pub use places::{Piece, Place, Stack};
pub use tree::TokenTree;
