//! Attention over pages of cached keys and values, or over the batch alone.

use rhetor_kernels::attention::training::{self, Groups, TrainShape};
use rhetor_kernels::attention::{self, Span};
use rhetor_kernels::gemm::Precision;
use rhetor_kernels::kv::KvPages;

use super::scored_attention::Scores;
use crate::{Tensor, tape};

pub use rhetor_kernels::attention::training::TrainSequence;

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
    /// Shifted sparse attention, in training (arXiv:2309.12307, section 3.2); never with a cache.
    pub groups: Option<Groups>,
}

impl Heads {
    /// Checks a row of queries, keys and values; returns the offsets of keys and values.
    #[track_caller]
    pub(super) fn split(&self, qkv: &Tensor) -> (usize, usize) {
        let (q, kv) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        assert_eq!(qkv.row_len(), q + 2 * kv, "a row of queries, keys and values for {self:?}");
        (q, q + kv)
    }
}

/// Causal attention; keys and values of the rows are added to `pages` first. qkv: [T, (H + 2K)·d] → [T, H·d]
#[track_caller]
pub fn paged(qkv: &Tensor, pages: &mut KvPages, spans: &[Span], heads: Heads, scores: &Scores) -> Tensor {
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
        attention::paged(data, stride, spans, pages, &scores.options(&heads), out);
    })
}

/// Attention of queries to keys and values that stand in `pages` already, all of the first `n_keys` of each span's table.
/// q: [T, H·d] → [T, H·d]
///
/// `tables`: for each sequence its rows of `q`, its pages, and its keys. A sequence without keys gives zeros.
#[track_caller]
pub fn paged_cross(q: &Tensor, pages: &KvPages, tables: &[(usize, &[u32], usize)], heads: Heads) -> Tensor {
    // The last position sees all that stand before it, so each row is a span of its own there.
    let mut rows: Vec<(&[u32], usize)> = Vec::with_capacity(q.n_rows());
    tables.iter().for_each(|&(len, table, n_keys)| rows.extend(std::iter::repeat_n((table, n_keys), len)));
    assert_eq!(rows.len(), q.n_rows(), "rows of the sequences");
    let width = heads.n_heads * heads.head_dim;
    Tensor::build([q.n_rows(), width], |out| {
        let options = Scores::default();
        let options = options.options(&heads);
        if rows.iter().all(|&(_, n_keys)| n_keys > 0) {
            let spans: Vec<Span> = rows
                .iter()
                .map(|&(table, n_keys)| Span { table, start: n_keys - 1, len: 1, tree: None })
                .collect();
            attention::paged(q.strided_data(), q.row_stride(), &spans, pages, &options, out);
            return;
        }
        out.fill(0.0);
        for (i, &(table, n_keys)) in rows.iter().enumerate().filter(|(_, (_, n_keys))| *n_keys > 0) {
            let span = Span { table, start: n_keys - 1, len: 1, tree: None };
            attention::paged(q.row(i), width, &[span], pages, &options, &mut out[i * width..(i + 1) * width]);
        }
    })
}

/// Attention inside each sequence: causal, but for its first rows if they see each other (see [`TrainSequence`]).
/// qkv: [T, (H + 2K)·d] → [T, H·d]
///
/// Computed in `precision` by the same kernel whether it is recorded or not, so that training and evaluation agree. Source of
/// the gradients: FlashAttention, arXiv:2205.14135, algorithm 4.
#[track_caller]
pub fn attention(qkv: &Tensor, sequences: &[TrainSequence], heads: Heads, precision: Precision) -> Tensor {
    let (k_offset, v_offset) = heads.split(qkv);
    let shape = TrainShape {
        n_heads: heads.n_heads,
        n_kv_heads: heads.n_kv_heads,
        head_dim: heads.head_dim,
        stride: qkv.row_len(),
        k_offset,
        v_offset,
        scale: heads.scale,
        window: heads.window,
        groups: heads.groups,
    };
    let mut lse = vec![0.0; qkv.n_rows() * heads.n_heads];
    let out = Tensor::build([qkv.n_rows(), heads.n_heads * heads.head_dim], |out| {
        training::forward(precision, qkv.data(), &shape, sequences, None, out, &mut lse);
    });
    if !qkv.is_tracked() {
        return out;
    }
    let sequences = sequences.to_vec();
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
                &sequences,
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

    const HEADS: Heads =
        Heads { n_heads: 4, n_kv_heads: 2, head_dim: 3, scale: 0.6, window: None, groups: None };

    #[test]
    fn gradients_equal_central_differences() {
        let causal = TrainSequence::causal;
        let some = TrainSequence { len: 5, prefix_len: 3 };
        for (sequences, window) in [
            (vec![causal(3), causal(1), causal(5)], None),
            (vec![causal(6)], Some(3)),
            (vec![TrainSequence::full(4), some], None),
        ] {
            let heads = Heads { window, ..HEADS };
            let qkv = noise(&[sequences.iter().map(|s| s.len).sum(), 24], 1);
            check(&[qkv], &[], |x| attention(&x[0], &sequences, heads, Precision::F32));
        }
        let heads = Heads { groups: Some(Groups { len: 2, shift: Default::default() }), ..HEADS };
        for sequences in [vec![causal(3), causal(5)], vec![causal(6)]] {
            let qkv = noise(&[sequences.iter().map(|s| s.len).sum(), 24], 1);
            check(&[qkv], &[], |x| attention(&x[0], &sequences, heads, Precision::F32));
        }
    }

    #[test]
    fn a_later_row_is_seen_from_inside_the_prefix_and_not_from_outside() {
        let sequences = [TrainSequence { len: 6, prefix_len: 4 }];
        let run = |qkv: &Tensor| attention(qkv, &sequences, HEADS, Precision::F32);
        let qkv = noise(&[6, 24], 1);
        let changed = |row: usize| {
            let mut values = qkv.data().to_vec();
            values[row * 24 + 12..(row + 1) * 24].iter_mut().for_each(|x| *x += 1.0);
            run(&Tensor::from_vec(values, [6, 24]))
        };
        let before = run(&qkv);
        let differs = |after: &Tensor| (0..6).map(|i| before.row(i) != after.row(i)).collect::<Vec<_>>();
        assert_eq!(differs(&changed(3)), [true; 6]);
        assert_eq!(differs(&changed(4)), [false, false, false, false, true, true]);
    }
}
