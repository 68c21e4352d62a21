//! What goes on inside a model: attention maps, kinds of heads, circuits, the logit lens, activation patching.
//!
//! Everything is seen through a [`Probe`](crate::layers::Probe) of one pass without a cache, so it works for every decoder whose
//! blocks stand on the bricks, at any stored type. Sources: A Mathematical Framework for Transformer Circuits (Elhage et al.,
//! 2021); In-context Learning and Induction Heads, arXiv:2209.11895.
//!
//! What it does not do: attention to an encoder's source, and anything with gradients.

mod circuits;
mod eigenvalues;
mod error;
mod heads;
mod lens;
mod maps;
mod patching;

pub use circuits::{Circuits, Composed, Composition};
pub use error::AnalysisError;
pub use heads::{HeadKind, HeadReport, HeadScores, RandomTokens, score_heads};
pub use lens::{Guess, logit_lens};
pub use maps::{LayerMaps, attention_maps};
pub use patching::{Patched, Patching, patch_heads, patch_residual};

use crate::model::Model;

/// Refuses models without a decoder's attention.
fn check(model: &Model) -> Result<(), AnalysisError> {
    if model.generates() && !model.config().has_encoder() {
        return Ok(());
    }
    Err(AnalysisError::NotADecoder { family: model.config().family })
}
