//! The bricks that families are built of. Each holds its weights and has one `forward`.

mod alibi;
mod attention;
mod cross_attention;
mod decoder;
mod embedding;
mod encoder;
mod encoder_decoder;
mod feed_forward;
mod linear;
mod mixture;
mod norm;
mod pass;
mod patches;
mod pre_norm_block;
mod probe;
mod relative;
mod stack;

pub use alibi::slopes as alibi_slopes;
pub use attention::Attention;
pub use cross_attention::CrossAttention;
pub use decoder::{Block, Decoder};
pub use embedding::Embedding;
pub use encoder::{Encoder, PostNormBlock, Transform};
pub use encoder_decoder::{EncoderDecoder, Entrance};
pub use feed_forward::{FeedForward, GatedFeedForward, Sublayer};
pub use linear::{Attached, Linear};
pub use mixture::Mixture;
pub use norm::{HeadNorm, LayerNorm, Norm, RmsNorm};
pub use pass::{Active, Embedded, Keep, Pass, Source, SourceTokens, Training};
pub use patches::Patches;
pub use pre_norm_block::PreNormBlock;
pub use probe::{Attended, Probe};
pub use relative::{RelativePositions, Sees};
pub use stack::{NormPlace, Stack, StackBlock, StackOptions};
