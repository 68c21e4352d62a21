//! Attention: softmax(q kᵀ · scale + bias) v over the visible keys.

use crate::kv::{KvPages, PAGE_LEN};

/// What all queries of a call share.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttentionOptions<'a> {
    /// Query heads; a multiple of the kv heads. Head h reads kv head h · K / H.
    pub n_heads: usize,
    /// Factor on q kᵀ, usually 1 / sqrt(d).
    pub scale: f32,
    /// A query at i sees only keys at j > i − window. Source: arXiv:2310.06825, section 2.
    pub window: Option<usize>,
    /// Slope of each head `[H]`: slope · (position of the key) is added to the scaled score. Equal, after softmax,
    /// to the −slope · distance of arXiv:2108.12409, section 3.
    pub alibi: Option<&'a [f32]>,
    /// c · tanh(score / c) of the scaled score, before biases. Source: arXiv:2408.00118, section 2.
    pub soft_cap: Option<f32>,
    /// A bias by distance, as T5 has it.
    pub relative: Option<RelativeBias<'a>>,
}

/// A learnt bias for each head and distance. Source: arXiv:1910.10683, section 2.1.
#[derive(Debug, Clone, Copy)]
pub struct RelativeBias<'a> {
    /// `[H, n]`: number `zero` + (position of the key − position of the query), the nearest end beyond the ends.
    pub table: &'a [f32],
    /// Which number of a head's n belongs to distance 0.
    pub zero: usize,
}

/// Neighbouring queries of one sequence, and where its keys are.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    /// The sequence's pages, page i holding positions 32i..32i+32.
    pub table: &'a [u32],
    /// Absolute position of the first query.
    pub start: usize,
    /// Number of queries.
    pub len: usize,
}

/// Which keys a query sees in [`dense`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// All of its sequence.
    Full,
    /// Query i sees keys j <= i + (S − T): the last query sees all.
    Causal,
}

/// One sequence of a call of [`dense`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenseSequence {
    /// Rows of `q` and `out`, T.
    pub n_queries: usize,
    /// Rows of `k` and `v`, S.
    pub n_keys: usize,
}

/// Shape of the rows of a call of [`dense`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenseShape {
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Numbers from one row of `q` to the next.
    pub q_stride: usize,
    /// Numbers from one row of `k` or `v` to the next.
    pub kv_stride: usize,
}

/// Causal attention of the spans' queries to the pages' keys and values, which must have been written before.
///
/// `q`: rows `[ΣT, q_stride]`, each beginning with `[H, d]`, spans one after another; `out: [ΣT, H · d]`.
/// The query at position i sees keys 0..=i, less what `window` hides. A row's result is bit-identical whatever the
/// spans around it, their lengths and the number of threads. Panics if the lengths do not fit.
#[track_caller]
pub fn paged(
    q: &[f32],
    q_stride: usize,
    spans: &[Span],
    kv: &KvPages,
    options: &AttentionOptions,
    out: &mut [f32],
) {
    let (d, h) = (kv.head_dim(), options.n_heads);
    let mut row = 0;
    let group = h / kv.n_kv_heads();
    for span in spans {
        for t in 0..span.len {
            let i = span.start + t;
            let first = options.window.map_or(0, |w| (i + 1).saturating_sub(w));
            for head in 0..h {
                let q = &q[row * q_stride + head * d..][..d];
                let keys = (first..=i).map(|j| {
                    let (mut k, mut v) = (vec![0.0; d], vec![0.0; d]);
                    kv.read(span.table[j / PAGE_LEN], j % PAGE_LEN, head / group, &mut k, &mut v);
                    (j, k, v)
                });
                reference_row(q, keys, i, head, options, &mut out[(row * h + head) * d..][..d]);
            }
            row += 1;
        }
    }
}

/// Attention without a cache: encoders, cross attention, training.
///
/// `q`: rows `[ΣT, q_stride]`, each beginning with `[H, d]`; `k`, `v`: rows `[ΣS, kv_stride]`, each beginning with
/// `[K, d]`; `out: [ΣT, H · d]`; the sequences one after another. Positions, for biases and windows, count the
/// sequence's keys from 0, and the last query stands at the last key. A query that sees no key gives zeros.
/// Panics if the lengths do not fit.
#[track_caller]
#[allow(clippy::too_many_arguments)]
pub fn dense(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    shape: DenseShape,
    sequences: &[DenseSequence],
    mask: Mask,
    options: &AttentionOptions,
    out: &mut [f32],
) {
    let (d, h) = (shape.head_dim, options.n_heads);
    let group = h / shape.n_kv_heads;
    let (mut first_query, mut first_key) = (0, 0);
    for s in sequences {
        for t in 0..s.n_queries {
            let i = s.n_keys as isize - s.n_queries as isize + t as isize;
            let end = if mask == Mask::Full { s.n_keys } else { (i + 1).max(0) as usize };
            let first = options.window.map_or(0, |w| (i + 1 - w as isize).max(0) as usize);
            for head in 0..h {
                let at = |j: usize| (first_key + j) * shape.kv_stride + head / group * d;
                let keys = (first..end).map(|j| (j, &k[at(j)..][..d], &v[at(j)..][..d]));
                let q = &q[(first_query + t) * shape.q_stride + head * d..][..d];
                let out = &mut out[((first_query + t) * h + head) * d..][..d];
                reference_row(q, keys, i.max(0) as usize, head, options, out);
            }
        }
        first_query += s.n_queries;
        first_key += s.n_keys;
    }
}

fn reference_row<T: AsRef<[f32]>>(
    q: &[f32],
    keys: impl Iterator<Item = (usize, T, T)>,
    position: usize,
    head: usize,
    options: &AttentionOptions,
    out: &mut [f32],
) {
    let scored: Vec<(f32, T)> = keys
        .map(|(j, k, v)| {
            let mut s = q.iter().zip(k.as_ref()).map(|(q, k)| q * k).sum::<f32>() * options.scale;
            if let Some(c) = options.soft_cap {
                s = c * (s / c).tanh();
            }
            if let Some(slopes) = options.alibi {
                s += slopes[head] * j as f32;
            }
            if let Some(bias) = options.relative {
                let n = bias.table.len() / options.n_heads;
                let at = (bias.zero + j).saturating_sub(position).min(n - 1);
                s += bias.table[head * n + at];
            }
            (s, v)
        })
        .collect();
    let max = scored.iter().fold(f32::MIN, |max, (s, _)| max.max(*s));
    let sum: f32 = scored.iter().map(|(s, _)| (s - max).exp()).sum();
    out.fill(0.0);
    if sum > 0.0 {
        for (s, v) in &scored {
            let p = (s - max).exp() / sum;
            out.iter_mut().zip(v.as_ref()).for_each(|(out, v)| *out += p * v);
        }
    }
}
