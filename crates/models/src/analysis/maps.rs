//! Attention maps: how much each token looks at each other, head by head.

use rhetor_tensor::Tensor;
use rhetor_tensor::ops::attention::{Heads, TrainSequence};
use rhetor_tensor::ops::scored_attention::Scores;
use std::sync::{Arc, Mutex};

use super::{AnalysisError, check};
use crate::layers::{Attended, Probe};
use crate::model::{Batch, Model, SequenceSpan};

/// What the attention of one layer saw in one pass, from which its maps are computed.
#[derive(Clone)]
pub struct LayerMaps {
    layer: usize,
    heads: Heads,
    scores: Scores,
    sequences: Vec<TrainSequence>,
    /// [T, (H + 2K)·d], after the rotation.
    qkv: Tensor,
    /// What the kernel made of it, [T, H·d].
    mixed: Tensor,
}

/// The attention of every layer for the sequences of one batch without a cache, first layer first.
///
/// Errors: the model is no decoder; a sequence is empty or longer than the context.
pub fn attention_maps(model: &Model, sequences: &[Vec<u32>]) -> Result<Vec<LayerMaps>, AnalysisError> {
    Ok(record(model, sequences)?.0)
}

/// As [`attention_maps`], and the logits of all rows, [ΣT, V].
pub(super) fn record(
    model: &Model,
    sequences: &[Vec<u32>],
) -> Result<(Vec<LayerMaps>, Tensor), AnalysisError> {
    let batch = batch(model, sequences)?;
    let recorder = Arc::new(Recorder::default());
    let logits = model.forward_probed(&batch, recorder.clone());
    let layers = std::mem::take(&mut *recorder.0.lock().expect("no probe panics"));
    if layers.is_empty() {
        return Err(AnalysisError::NotADecoder { family: model.config().family });
    }
    Ok((layers, logits))
}

/// Whole sequences side by side, with the logits of all rows.
pub(super) fn batch(model: &Model, sequences: &[Vec<u32>]) -> Result<Batch, AnalysisError> {
    check(model)?;
    let context = model.config().context_len;
    for sequence in sequences {
        match sequence.len() {
            0 => return Err(AnalysisError::NoTokens),
            got if got > context => return Err(AnalysisError::ContextTooShort { got, context }),
            _ => {}
        }
    }
    let tokens: Vec<u32> = sequences.iter().flatten().copied().collect();
    let spans = sequences.iter();
    let spans = spans.map(|s| SequenceSpan { len: s.len(), ..SequenceSpan::default() }).collect();
    Ok(Batch { outputs: (0..tokens.len()).collect(), tokens, spans, ..Batch::default() })
}

#[derive(Default)]
struct Recorder(Mutex<Vec<LayerMaps>>);

impl Probe for Recorder {
    fn attention(&self, seen: &Attended, mixed: Tensor) -> Tensor {
        self.0.lock().expect("no probe panics").push(LayerMaps {
            layer: seen.attention.layer,
            heads: seen.heads,
            scores: seen.scores.clone(),
            sequences: seen.pass.sequences(),
            qkv: seen.qkv.detached(),
            mixed: mixed.detached(),
        });
        mixed
    }
}

impl LayerMaps {
    /// The number of the layer, from 0.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// H
    pub fn n_heads(&self) -> usize {
        self.heads.n_heads
    }

    /// How much each token of a sequence looks at each: rows are queries and sum to 1, columns are keys. → [T, T]
    ///
    /// Scale, soft cap, biases and window are the layer's own; grouped heads share their keys.
    pub fn map(&self, sequence: usize, head: usize) -> Vec<f32> {
        let (first, TrainSequence { len, prefix_len }) = self.rows_of(sequence);
        let Heads { n_heads, n_kv_heads, head_dim: d, scale, window, .. } = self.heads;
        let k_column = (n_heads + head / (n_heads / n_kv_heads)) * d;
        let mut map = vec![0.0; len * len];
        for (i, row) in map.chunks_exact_mut(len).enumerate() {
            let q = &self.qkv.row(first + i)[head * d..][..d];
            let n_seen = (i + 1).max(if i < prefix_len { prefix_len } else { 0 });
            let from = window.map_or(0, |window| (i + 1).saturating_sub(window));
            for (j, score) in row.iter_mut().enumerate().take(n_seen).skip(from) {
                let k = &self.qkv.row(first + j)[k_column..][..d];
                let product: f32 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                *score = self.scores.of(product * scale, head, i, j);
            }
            let seen = &mut row[from..n_seen];
            let highest = seen.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
            seen.iter_mut().for_each(|score| *score = (*score - highest).exp());
            let sum: f32 = seen.iter().sum();
            seen.iter_mut().for_each(|score| *score /= sum);
        }
        map
    }

    /// The values of a head for one sequence, which a map is to be multiplied with. → [T, d]
    pub fn values(&self, sequence: usize, head: usize) -> Vec<f32> {
        let (first, TrainSequence { len, .. }) = self.rows_of(sequence);
        let Heads { n_heads, n_kv_heads, head_dim: d, .. } = self.heads;
        let column = (n_heads + n_kv_heads + head / (n_heads / n_kv_heads)) * d;
        (first..first + len).flat_map(|row| self.qkv.row(row)[column..][..d].to_vec()).collect()
    }

    /// What the kernel made of a head for one sequence, before the output projection. → [T, d]
    pub fn mixed(&self, sequence: usize, head: usize) -> Vec<f32> {
        let (first, TrainSequence { len, .. }) = self.rows_of(sequence);
        let d = self.heads.head_dim;
        (first..first + len).flat_map(|row| self.mixed.row(row)[head * d..][..d].to_vec()).collect()
    }

    /// The mixed values of all heads, as the kernel gave them. [T, H·d]
    pub(super) fn all_mixed(&self) -> &Tensor {
        &self.mixed
    }

    fn rows_of(&self, sequence: usize) -> (usize, TrainSequence) {
        let first = self.sequences[..sequence].iter().map(|s| s.len).sum();
        (first, self.sequences[sequence])
    }
}
