//! Attention over pages of cached keys and values, or over the batch alone.

use rhetor_kernels::attention::training::{self, TrainShape};
use rhetor_kernels::attention::{self, AttentionOptions, DenseSequence, DenseShape, Mask, Span};
use rhetor_kernels::gemm::Precision;
use rhetor_kernels::kv::KvPages;

use crate::{Tensor, tape};

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
///
/// A recorded pass computes in `precision`.
#[track_caller]
pub fn causal(qkv: &Tensor, spans: &[Span], heads: Heads, precision: Precision) -> Tensor {
    if qkv.is_tracked() {
        return recorded(qkv, spans, heads, precision);
    }
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

/// As [`causal`], for a tape. Source of the gradients: FlashAttention, arXiv:2205.14135, algorithm 4.
fn recorded(qkv: &Tensor, spans: &[Span], heads: Heads, precision: Precision) -> Tensor {
    let (k_offset, v_offset) = heads.split(qkv);
    let shape = TrainShape {
        n_heads: heads.n_heads,
        n_kv_heads: heads.n_kv_heads,
        head_dim: heads.head_dim,
        stride: qkv.row_len(),
        k_offset,
        v_offset,
        scale: heads.scale,
        mask: Mask::Causal,
        window: heads.window,
        groups: None,
    };
    let lengths: Vec<usize> = spans.iter().map(|span| span.len).collect();
    let mut lse = vec![0.0; qkv.n_rows() * heads.n_heads];
    let out = Tensor::build([qkv.n_rows(), heads.n_heads * heads.head_dim], |out| {
        training::forward(precision, qkv.data(), &shape, &lengths, None, out, &mut lse);
    });
    let (to, qkv, mixed) = (qkv.tracked(), qkv.detached(), out.clone());
    tape::push(out, move |d_out, gradients| {
        let d_qkv = Tensor::build([qkv.n_rows(), qkv.row_len()], |d_qkv| {
            rhetor_kernels::add::fill(d_qkv, 0.0);
            training::backward(
                precision,
                qkv.data(),
                mixed.data(),
                d_out.data(),
                &lse,
                &shape,
                &lengths,
                None,
                d_qkv,
                None,
            );
        });
        gradients.add(&to, d_qkv);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise};

    #[test]
    fn gradients_equal_central_differences_and_the_recorded_pass_equals_the_other() {
        let heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 3, scale: 0.6, window: None };
        let span = |len| Span { table: &[], start: 0, len };
        for (spans, window) in [(vec![span(3), span(1), span(5)], None), (vec![span(6)], Some(3))] {
            let heads = Heads { window, ..heads };
            let qkv = noise(&[spans.iter().map(|span| span.len).sum(), 24], 1);
            check(&[qkv], &[], |x| causal(&x[0], &spans, heads, Precision::F32));
        }
    }
}
