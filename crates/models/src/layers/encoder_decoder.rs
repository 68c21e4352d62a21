//! What all encoder-decoders share: one table of embeddings, an encoder that reads a source, a decoder that writes.

use rhetor_tensor::{Tensor, ops};
use std::borrow::Cow;

use super::{Active, Embedding, Linear, Pass, Source, SourceTokens, Stack, Training};
use crate::kv_cache::KvCache;
use crate::model::Network;

/// Tokens become rows.
pub struct Entrance {
    /// [V, D]
    pub token_embd: Embedding,
    /// Factor of the embeddings.
    pub scale: f32,
    /// Whether positions are added as waves.
    pub has_waves: bool,
}

/// An encoder and a decoder.
pub struct EncoderDecoder {
    /// Of both.
    pub entrance: Entrance,
    /// Reads the source; its rows all see each other.
    pub encoder: Stack,
    /// Writes; every block attends to the source.
    pub decoder: Stack,
    /// Factor of what goes into the output layer.
    pub output_scale: f32,
    /// [V, D]
    pub output: Linear,
}

impl Entrance {
    /// tokens: [T], at the positions of `pass` → [T, D]
    pub fn forward(&self, tokens: &[u32], pass: &Pass) -> Tensor {
        let mut x = self.token_embd.forward(tokens, pass); // [T, D]
        if self.scale != 1.0 {
            x = ops::add::scale(x, self.scale);
        }
        if self.has_waves {
            let width = x.row_len();
            x = x + waves(&pass.of_row, width);
        }
        x
    }
}

/// Sines in even columns, cosines in odd ones: sin and cos of position / 10000^(2i/D). → [T, D]
///
/// Source: arXiv:1706.03762, section 3.5.
fn waves(positions: &[usize], width: usize) -> Tensor {
    Tensor::build([positions.len(), width], |out| {
        for (&position, row) in positions.iter().zip(out.chunks_exact_mut(width)) {
            for (i, pair) in row.chunks_mut(2).enumerate() {
                let angle = position as f64 / 10_000f64.powf((2 * i) as f64 / width as f64);
                pair[0] = angle.sin() as f32;
                if let Some(cos) = pair.get_mut(1) {
                    *cos = angle.cos() as f32;
                }
            }
        }
    })
}

impl EncoderDecoder {
    /// The rows of all passages. → [S, D]
    fn encode(&self, source: &SourceTokens, adapters: Active, training: Option<Training>) -> Tensor {
        let pass = source.pass(adapters, training);
        let x = self.entrance.forward(&source.tokens, &pass);
        self.encoder.normed(self.encoder.forward(x, &pass, None))
    }
}

impl Network for EncoderDecoder {
    fn blocks(&self, tokens: &[u32], pass: &Pass, cache: Option<&mut KvCache>) -> Tensor {
        let encoded;
        let pass = match &pass.source {
            Source::Tokens(source) => {
                let rows = self.encode(source, pass.adapters.clone(), pass.training);
                let source = Source::Rows { rows, lens: Cow::Owned(source.lens()) };
                encoded = Pass { source, ..pass.clone() };
                &encoded
            }
            _ => pass,
        };
        self.decoder.forward(self.entrance.forward(tokens, pass), pass, cache)
    }

    fn before_output(&self, x: &Tensor, _pass: &Pass) -> Tensor {
        let x = self.decoder.normed(x.clone());
        if self.output_scale == 1.0 { x } else { ops::add::scale(x, self.output_scale) }
    }

    fn output(&self) -> &Linear {
        &self.output
    }

    fn read(&self, source: &SourceTokens, tables: &[(&[u32], usize)], pass: &Pass, cache: &mut KvCache) {
        let rows = self.encode(source, pass.adapters.clone(), pass.training);
        for (i, block) in self.decoder.blocks.iter().enumerate() {
            let (cross, _) = block.cross.as_ref().expect("every block of a decoder attends to the source");
            cross.read(&rows, tables, pass, cache.source(i));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_are_sines_and_cosines_in_turn() {
        let waves = waves(&[0, 1], 4);
        assert_eq!(waves.row(0), [0.0, 1.0, 0.0, 1.0]);
        let expected = [1f64.sin(), 1f64.cos(), 0.01f64.sin(), 0.01f64.cos()].map(|x| x as f32);
        assert_eq!(waves.row(1), expected);
    }
}
