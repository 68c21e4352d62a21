//! The bricks that families are built of. Each holds its weights and has one `forward`.

mod attention;
mod decoder;
mod embedding;
mod feed_forward;
mod linear;
mod norm;

pub use attention::{Attention, Positions};
pub use decoder::{Block, Decoder};
pub use embedding::Embedding;
pub use feed_forward::{FeedForward, GatedFeedForward};
pub use linear::Linear;
pub use norm::{LayerNorm, Norm, RmsNorm};
