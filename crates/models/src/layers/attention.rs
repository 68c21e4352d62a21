//! Multi-head attention over the key-value cache, or over the batch alone.

use rhetor_kernels::gemm::Precision;
use rhetor_kernels::kv::KvPages;
use rhetor_kernels::rope::RopeTable;
use rhetor_tensor::ops::head_norm::HeadColumns;
use rhetor_tensor::ops::scored_attention::Scores;
use rhetor_tensor::{Tensor, ops};
use std::sync::Arc;

use super::{Attended, HeadNorm, Linear, Pass};
use crate::adapters::AttentionHook;

/// Attention, causal unless rows of a prefix see each other, with grouped key and value heads (arXiv:2305.13245), rotary positions if there are any, and a sliding window if there is one.
pub struct Attention {
    /// The number of the layer, from 0.
    pub layer: usize,
    /// Queries, keys and values side by side: [(H + 2K)·d, D]
    pub qkv: Linear,
    /// [D, H·d]
    pub output: Linear,
    /// H
    pub n_heads: usize,
    /// K
    pub n_kv_heads: usize,
    /// d
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Keys that a query sees, itself included.
    pub window: Option<usize>,
    /// Of the products of a recorded pass.
    pub precision: Precision,
    /// Norm of each head of the queries, before their positions turn them.
    pub q_norm: Option<HeadNorm>,
    /// Norm of each head of the keys.
    pub k_norm: Option<HeadNorm>,
    /// Rotary positions, shared by layers.
    pub rope: Option<Arc<RopeTable>>,
    /// What happens to the scores before softmax.
    pub scores: Scores,
    /// What adapters do here, each with its number.
    pub hooks: Vec<(usize, Box<dyn AttentionHook>)>,
}

impl Attention {
    /// x: [T, D] → [T, D]. Keys and values of the rows go to `cache`; without a cache each span is a whole sequence.
    pub fn forward(&self, x: &Tensor, pass: &Pass, cache: Option<&mut KvPages>) -> Tensor {
        self.forward_scored(x, pass, cache, &self.scores)
    }

    /// The same with other scores, such as biases that several layers share. x: [T, D] → [T, D]
    pub fn forward_scored(
        &self,
        x: &Tensor,
        pass: &Pass,
        cache: Option<&mut KvPages>,
        scores: &Scores,
    ) -> Tensor {
        let mut qkv = self.qkv.forward(x, pass); // [T, (H + 2K)·d]
        let head_dim = self.head_dim;
        if let Some(norm) = &self.q_norm {
            qkv = norm.forward(qkv, HeadColumns { start: 0, n_heads: self.n_heads, head_dim });
        }
        if let Some(norm) = &self.k_norm {
            let (start, n_heads) = (self.n_heads * head_dim, self.n_kv_heads);
            qkv = norm.forward(qkv, HeadColumns { start, n_heads, head_dim });
        }
        if let Some(table) = &self.rope {
            // Queries and keys are neighbours: one call turns H + K heads.
            qkv = ops::rope::rope(qkv, self.n_heads + self.n_kv_heads, self.head_dim, &pass.of_row, table);
        }
        let hooks = || self.hooks.iter().filter(|(adapter, _)| pass.adapters.has(*adapter));
        qkv = hooks().fold(qkv, |qkv, (_, hook)| hook.qkv(qkv, pass));
        let options = ops::attention::Heads {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            scale: self.scale,
            window: self.window,
            groups: hooks().find_map(|(_, hook)| hook.groups(pass)),
        };
        let mixed = match cache {
            Some(pages) => ops::attention::paged(&qkv, pages, &pass.spans, options, scores), // [T, H·d]
            None if !scores.is_plain() => {
                ops::scored_attention::within(&qkv, &pass.sequences(), options, scores, self.precision)
            }
            None => ops::attention::attention(&qkv, &pass.sequences(), options, self.precision),
        };
        let mixed = match &pass.probe {
            Some(probe) => {
                probe.attention(&Attended { attention: self, qkv: &qkv, heads: options, scores, pass }, mixed)
            }
            None => mixed,
        };
        self.output.forward(&mixed, pass)
    }
}
