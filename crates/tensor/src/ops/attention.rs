//! Attention over pages of cached keys and values, or over the batch alone.

use rhetor_kernels::attention::{self, AttentionOptions, DenseSequence, DenseShape, Mask, Span};
use rhetor_kernels::kv::KvPages;

use crate::Tensor;

/// How a row of queries, keys and values is divided, and what a query sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// H
    pub n_heads: usize,
    /// K
    pub n_kv_heads: usize,
    /// d
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Keys that a query sees, itself included; `None` = all before it.
    pub window: Option<usize>,
}

impl Heads {
    fn options(&self) -> AttentionOptions<'static> {
        let Heads { n_heads, scale, window, .. } = *self;
        AttentionOptions { n_heads, scale, window, ..AttentionOptions::default() }
    }

    /// Checks a row of queries, keys and values; returns the offsets of keys and values.
    #[track_caller]
    fn split(&self, qkv: &Tensor) -> (usize, usize) {
        let (q, kv) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        assert_eq!(qkv.row_len(), q + 2 * kv, "a row of queries, keys and values for {self:?}");
        (q, q + kv)
    }
}

/// Causal attention; keys and values of the rows are added to `pages` first. qkv: [T, (H + 2K)·d] → [T, H·d]
#[track_caller]
pub fn paged(qkv: &Tensor, pages: &mut KvPages, spans: &[Span], heads: Heads) -> Tensor {
    let (k, v) = heads.split(qkv);
    let (data, stride) = (qkv.data(), qkv.row_stride());
    let mut row = 0;
    for span in spans {
        let start = row * stride;
        if span.len > 0 {
            pages.write(span.table, span.start, &data[start + k..], &data[start + v..], stride, span.len);
        }
        row += span.len;
    }
    Tensor::build([qkv.n_rows(), heads.n_heads * heads.head_dim], |out| {
        attention::paged(data, stride, spans, pages, &heads.options(), out);
    })
}

/// Causal attention inside each span, which is a whole sequence. qkv: [T, (H + 2K)·d] → [T, H·d]
#[track_caller]
pub fn causal(qkv: &Tensor, spans: &[Span], heads: Heads) -> Tensor {
    let (k, v) = heads.split(qkv);
    let (data, stride) = (qkv.data(), qkv.row_stride());
    let shape = DenseShape {
        n_kv_heads: heads.n_kv_heads,
        head_dim: heads.head_dim,
        q_stride: stride,
        kv_stride: stride,
    };
    let sequence = |span: &Span| {
        assert_eq!(span.start, 0, "without a cache a span is a whole sequence");
        DenseSequence { n_queries: span.len, n_keys: span.len }
    };
    let sequences: Vec<DenseSequence> = spans.iter().map(sequence).collect();
    Tensor::build([qkv.n_rows(), heads.n_heads * heads.head_dim], |out| {
        let (k, v) = if data.is_empty() { (data, data) } else { (&data[k..], &data[v..]) };
        attention::dense(data, k, v, shape, &sequences, Mask::Causal, &heads.options(), out);
    })
}
