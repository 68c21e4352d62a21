//! The bricks that families are built of. Each holds its weights and has one `forward`.

mod attention;
mod cross_attention;
mod decoder;
mod embedding;
mod feed_forward;
mod linear;
mod mixture;
mod norm;
mod pass;

pub use attention::Attention;
pub use cross_attention::CrossAttention;
pub use decoder::{Block, Decoder};
pub use embedding::Embedding;
pub use feed_forward::{FeedForward, GatedFeedForward};
pub use linear::{Attached, Linear};
pub use mixture::Mixture;
pub use norm::{LayerNorm, Norm, RmsNorm};
pub use pass::{Active, Keep, Pass, Source, SourceTokens, Training};
