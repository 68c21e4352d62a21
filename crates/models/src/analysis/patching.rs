//! Activation patching: which part of a clean run, put into a corrupted one, brings its answer back.
//!
//! Two prompts of one length differ in what decides the answer. The logit difference between the clean prompt's answer and
//! the corrupted one's is measured in both; then the corrupted prompt is run with one activation replaced by the clean one.
//! Recovered is (patched − corrupted) / (clean − corrupted). Source: Locating and Editing Factual Associations in GPT,
//! arXiv:2202.05262, section 2; Interpretability in the Wild, arXiv:2211.00593, section 3.

use rhetor_tensor::Tensor;
use std::sync::Arc;

use super::AnalysisError;
use super::lens::residuals;
use super::maps::{attention_maps, batch, record};
use crate::layers::{Attended, Probe};
use crate::model::Model;

/// Two runs and what is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Patching {
    /// The clean prompt's most likely next token.
    pub answer: u32,
    /// The corrupted prompt's; where it is the same one, the corrupted prompt's second.
    pub wrong: u32,
    /// logit(answer) − logit(wrong) after the clean prompt.
    pub clean: f32,
    /// The same after the corrupted prompt.
    pub corrupt: f32,
    /// What each patch brings back.
    pub patched: Vec<Patched>,
}

/// One patch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patched {
    /// Depth of the residual stream (0 = embeddings, i + 1 = after block i), or layer of the head.
    pub layer: usize,
    /// The position, or the head.
    pub place: usize,
    /// 1 = the clean answer is back, 0 = nothing changed.
    pub recovered: f32,
}

/// Replaces the residual stream at each depth and position: (L + 1) · T patches.
///
/// Errors: as [`attention_maps`](super::attention_maps); prompts of different length; nothing to recover.
pub fn patch_residual(model: &Model, clean: &[u32], corrupt: &[u32]) -> Result<Patching, AnalysisError> {
    let mut patching = compare(model, clean, corrupt)?;
    let n = clean.len();
    let batch = batch(model, &vec![corrupt.to_vec(); n])?;
    for (depth, rows) in residuals(model, clean)?.into_iter().enumerate() {
        let logits = model.forward_probed(&batch, Arc::new(AtPositions { depth, rows }));
        let ends = (0..n).map(|place| (place, logits.row(place * n + n - 1)));
        let patched: Vec<Patched> = ends.map(|(place, row)| patching.patched(depth, place, row)).collect();
        patching.patched.extend(patched);
    }
    Ok(patching)
}

/// Replaces the output of each head at all positions: L · H patches.
///
/// Errors: as [`patch_residual`].
pub fn patch_heads(model: &Model, clean: &[u32], corrupt: &[u32]) -> Result<Patching, AnalysisError> {
    let mut patching = compare(model, clean, corrupt)?;
    let n = clean.len();
    for maps in attention_maps(model, &[clean.to_vec()])? {
        let n_heads = maps.n_heads();
        let batch = batch(model, &vec![corrupt.to_vec(); n_heads])?;
        let layer = maps.layer();
        let mixed = maps.all_mixed().clone();
        let logits = model.forward_probed(&batch, Arc::new(AtHeads { layer, n_heads, mixed }));
        let ends = (0..n_heads).map(|head| (head, logits.row(head * n + n - 1)));
        let patched: Vec<Patched> = ends.map(|(head, row)| patching.patched(layer, head, row)).collect();
        patching.patched.extend(patched);
    }
    Ok(patching)
}

/// Runs both prompts as they are.
fn compare(model: &Model, clean: &[u32], corrupt: &[u32]) -> Result<Patching, AnalysisError> {
    if clean.len() != corrupt.len() {
        return Err(AnalysisError::Lengths { clean: clean.len(), corrupt: corrupt.len() });
    }
    let (_, logits) = record(model, &[clean.to_vec(), corrupt.to_vec()])?;
    let (of_clean, of_corrupt) = (logits.row(clean.len() - 1), logits.row(2 * clean.len() - 1));
    let best = |logits: &[f32], but: Option<usize>| {
        let others = (0..logits.len()).filter(|&id| Some(id) != but);
        // Of equal logits the lowest id.
        others.max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a))).unwrap_or(0)
    };
    let answer = best(of_clean, None);
    let wrong = best(of_corrupt, Some(answer));
    let difference = |logits: &[f32]| logits[answer] - logits[wrong];
    let (of_clean, of_corrupt) = (difference(of_clean), difference(of_corrupt));
    if (of_clean - of_corrupt).abs() < 1e-6 {
        return Err(AnalysisError::NoDifference { difference: format!("{of_clean:.4}") });
    }
    let (answer, wrong) = (answer as u32, wrong as u32);
    Ok(Patching { answer, wrong, clean: of_clean, corrupt: of_corrupt, patched: Vec::new() })
}

impl Patching {
    fn patched(&self, layer: usize, place: usize, logits: &[f32]) -> Patched {
        let difference = logits[self.answer as usize] - logits[self.wrong as usize];
        Patched { layer, place, recovered: (difference - self.corrupt) / (self.clean - self.corrupt) }
    }
}

/// In sequence p of T sequences of T tokens, the clean row at position p.
struct AtPositions {
    depth: usize,
    rows: Tensor,
}

impl Probe for AtPositions {
    fn residual(&self, depth: usize, x: Tensor) -> Tensor {
        if depth != self.depth {
            return x;
        }
        let (n, width) = (self.rows.n_rows(), x.row_len());
        let mut values = x.data().to_vec();
        for place in 0..n {
            values[(place * n + place) * width..][..width].copy_from_slice(self.rows.row(place));
        }
        Tensor::from_vec(values, [n * n, width])
    }
}

/// In sequence h of H sequences, what head h made of the clean prompt.
struct AtHeads {
    layer: usize,
    n_heads: usize,
    mixed: Tensor,
}

impl Probe for AtHeads {
    fn attention(&self, seen: &Attended, mixed: Tensor) -> Tensor {
        if seen.attention.layer != self.layer {
            return mixed;
        }
        let (n, width, d) = (self.mixed.n_rows(), mixed.row_len(), seen.heads.head_dim);
        let mut values = mixed.data().to_vec();
        for head in 0..self.n_heads {
            for i in 0..n {
                let to = (head * n + i) * width + head * d;
                values[to..to + d].copy_from_slice(&self.mixed.row(i)[head * d..][..d]);
            }
        }
        Tensor::from_vec(values, [self.n_heads * n, width])
    }
}
