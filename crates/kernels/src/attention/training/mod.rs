//! Attention over whole sequences with its gradients, for training.
//!
//! The scores exist for a block of queries and a chunk of keys at a time; what the backward pass needs of
//! them again it computes from the log-sum-exp of each query. Source: FlashAttention, arXiv:2205.14135,
//! sections 3.1 and algorithm 4; FlashAttention-2, arXiv:2307.08691, section 3.1, for keeping the log-sum-exp
//! alone.
//!
//! Queries, keys and values are columns of one buffer, as one projection makes them, and so are their
//! gradients. A sequence sees itself alone, after an optional prefix of keys and values that all sequences
//! see (prefix tuning, arXiv:2101.00190, section 4).
//!
//! What it does not do: keys of other sequences (cross attention), biases of scores.

mod head;
mod rows;
mod segments;

use crate::gemm::{Precision, tiles::Tiles};
use crate::isa::{self, Isa};
use crate::rows::Start;
use crate::threads;
use head::{Copies, Head, HeadRows, Inputs, Memory, Outputs};
use segments::Segment;
use std::cell::RefCell;

pub use segments::{Groups, Shift};

/// Shape of a call and which keys a query sees.
#[derive(Debug, Clone, Copy)]
pub struct TrainShape {
    /// Query heads; a multiple of the kv heads. Head h reads kv head h · K / H.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Numbers from one row of the buffer to the next; a row begins with the queries `[H, d]`.
    pub stride: usize,
    /// Where in a row the keys `[K, d]` begin.
    pub k_offset: usize,
    /// Where in a row the values `[K, d]` begin.
    pub v_offset: usize,
    /// Factor on q kᵀ, usually 1 / sqrt(d).
    pub scale: f32,
    /// A query at i sees only keys at j > i − window. Source: arXiv:2310.06825, section 2.
    pub window: Option<usize>,
    /// Shifted sparse attention. Source: LongLoRA, arXiv:2309.12307, section 3.2.
    pub groups: Option<Groups>,
}

/// One sequence of a call: which rows are its own, and which of them see each other in both directions.
///
/// Its query i sees the keys j <= max(i, `prefix_len` − 1), less what a window hides: prefix language models,
/// arXiv:1910.10683, section 3.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainSequence {
    /// Rows.
    pub len: usize,
    /// The first rows that see each other in both directions: 0 = causal, `len` = an encoder.
    pub prefix_len: usize,
}

impl TrainSequence {
    /// A sequence whose rows see what came before them.
    pub fn causal(len: usize) -> TrainSequence {
        TrainSequence { len, prefix_len: 0 }
    }

    /// A sequence whose rows all see each other.
    pub fn full(len: usize) -> TrainSequence {
        TrainSequence { len, prefix_len: len }
    }
}

/// Keys and values that every sequence sees in full before its own: `[P, K · d]` each.
#[derive(Debug, Clone, Copy)]
pub struct Prefix<'a> {
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
}

/// Where the gradients of a [`Prefix`] are added: `[P, K · d]` each.
#[derive(Debug)]
pub struct PrefixGradient<'a> {
    /// Of the keys.
    pub k: &'a mut [f32],
    /// Of the values.
    pub v: &'a mut [f32],
}

thread_local! {
    /// What a thread computes with, kept from call to call.
    static MEMORY: RefCell<(Memory, Copies)> = RefCell::default();
    /// Gradients of the prefix, of each sequence, in the caller.
    static PREFIXES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Products below which other threads are not asked to help; some microseconds.
const PARALLEL_LEN: usize = 1 << 18;

/// softmax(q kᵀ · scale) v over the visible keys.
///
/// `qkv: [T, stride]`, the `sequences` one after another, ΣT rows; `out: [T, H · d]`;
/// `lse: [T, H]`, the natural logarithm of the sum of the exponentials of a query's scaled scores, which
/// [`backward`] wants. A query that sees no key gives zeros and −∞. Panics if the lengths do not fit.
#[track_caller]
pub fn forward(
    precision: Precision,
    qkv: &[f32],
    shape: &TrainShape,
    sequences: &[TrainSequence],
    prefix: Option<Prefix>,
    out: &mut [f32],
    lse: &mut [f32],
) {
    forward_on(isa::active(), precision, qkv, shape, sequences, prefix, out, lse)
}

#[track_caller]
#[allow(clippy::too_many_arguments)]
fn forward_on(
    isa: Isa,
    precision: Precision,
    qkv: &[f32],
    shape: &TrainShape,
    sequences: &[TrainSequence],
    prefix: Option<Prefix>,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let starts = shape.check(qkv.len(), sequences, prefix);
    let (h, d) = (shape.n_heads, shape.head_dim);
    let n_rows: usize = sequences.iter().map(|sequence| sequence.len).sum();
    assert_eq!(out.len(), n_rows * h * d, "outputs of {n_rows} rows of {h} heads of {d}");
    assert_eq!(lse.len(), n_rows * h, "log-sum-exps of {n_rows} rows of {h} heads");
    let tiles = Tiles::of(isa, precision);
    let (to_out, to_lse) = (Start(out.as_mut_ptr()), Start(lse.as_mut_ptr()));
    run(shape, sequences, sequences.len() * h, |part| {
        let (sequence, head) = (part / h, part % h);
        let (first, sequence) = (starts[sequence], sequences[sequence]);
        MEMORY.with_borrow_mut(|(memory, copies)| {
            for segment in shape.segments(head, sequence) {
                let [q, k, v, ..] = &mut copies.0;
                let inputs = shape.inputs(qkv, prefix, head, first, &segment, [q, k, v]);
                Head { isa, tiles, shape, inputs }.forward(memory);
                for (i, row) in segment.rows().enumerate() {
                    let row = first + row;
                    // SAFETY: each row and head is written by one part.
                    unsafe {
                        let to = std::slice::from_raw_parts_mut(to_out.at((row * h + head) * d), d);
                        to.copy_from_slice(&memory.out[i * d..(i + 1) * d]);
                        *to_lse.at(row * h + head) = memory.lse[i];
                    }
                }
            }
        });
    });
}

/// Adds the gradients of [`forward`] with respect to its inputs.
///
/// `out` and `lse` are what `forward` gave, `d_out: [T, H · d]` the gradient of the loss with respect to
/// `out`; `d_qkv: [T, stride]` has the layout of `qkv`, and what is in a row beside q, k and v is left alone.
/// Panics if the lengths do not fit or one of `prefix` and `d_prefix` is missing.
#[track_caller]
#[allow(clippy::too_many_arguments)]
pub fn backward(
    precision: Precision,
    qkv: &[f32],
    out: &[f32],
    d_out: &[f32],
    lse: &[f32],
    shape: &TrainShape,
    sequences: &[TrainSequence],
    prefix: Option<Prefix>,
    d_qkv: &mut [f32],
    d_prefix: Option<PrefixGradient>,
) {
    let isa = isa::active();
    backward_on(isa, precision, qkv, out, d_out, lse, shape, sequences, prefix, d_qkv, d_prefix)
}

#[track_caller]
#[allow(clippy::too_many_arguments)]
fn backward_on(
    isa: Isa,
    precision: Precision,
    qkv: &[f32],
    out: &[f32],
    d_out: &[f32],
    lse: &[f32],
    shape: &TrainShape,
    sequences: &[TrainSequence],
    prefix: Option<Prefix>,
    d_qkv: &mut [f32],
    d_prefix: Option<PrefixGradient>,
) {
    let starts = shape.check(qkv.len(), sequences, prefix);
    let (h, k, d) = (shape.n_heads, shape.n_kv_heads, shape.head_dim);
    let n_rows: usize = sequences.iter().map(|sequence| sequence.len).sum();
    assert!(
        out.len() == n_rows * h * d && d_out.len() == out.len(),
        "outputs of {n_rows} rows of {h} heads of {d}"
    );
    assert_eq!(lse.len(), n_rows * h, "log-sum-exps of {n_rows} rows of {h} heads");
    assert_eq!(d_qkv.len(), qkv.len(), "gradients of the buffer");
    assert_eq!(prefix.is_some(), d_prefix.is_some(), "a prefix and its gradient");
    let n_prefix = prefix.map_or(0, |prefix| prefix.k.len() / (k * d));
    let tiles = Tiles::of(isa, precision);
    let start = Start(d_qkv.as_mut_ptr());
    PREFIXES.with_borrow_mut(|prefixes| {
        // [sequence, kv head, key or value, P · d]
        let prefix_len = n_prefix * d;
        prefixes.clear();
        prefixes.resize(sequences.len() * k * 2 * prefix_len, 0.0);
        let to_prefix = Start(prefixes.as_mut_ptr());
        run(shape, sequences, sequences.len() * k, |part| {
            let (sequence, kv_head) = (part / k, part % k);
            let (first, sequence) = (starts[sequence], sequences[sequence]);
            // SAFETY: each sequence and kv head is one part's.
            let sums = unsafe {
                std::slice::from_raw_parts_mut(to_prefix.at(part * 2 * prefix_len), 2 * prefix_len)
            };
            let (prefix_k, prefix_v) = sums.split_at_mut(prefix_len);
            let add_rows = |row: usize, offset: usize, from: &[f32]| {
                let to = start.at((first + row) * shape.stride + offset);
                // SAFETY: the columns of a sequence and kv head are one part's.
                unsafe { rows::add_rows(isa, to, shape.stride, d, from) }
            };
            MEMORY.with_borrow_mut(|(memory, copies)| {
                for head in kv_head * (h / k)..(kv_head + 1) * (h / k) {
                    for segment in shape.segments(head, sequence) {
                        let [q, k, v, copy, d_copy, lse_copy] = &mut copies.0;
                        let inputs = shape.inputs(qkv, prefix, head, first, &segment, [q, k, v]);
                        let of_head = |data, n: usize, copy| {
                            let all = HeadRows { data: &(data as &[f32])[head * n..], stride: h * n };
                            all.of_segment(first, &segment, n, copy)
                        };
                        let outputs = Outputs {
                            out: of_head(out, d, copy),
                            d_out: of_head(d_out, d, d_copy),
                            lse: of_head(lse, 1, lse_copy),
                        };
                        Head { isa, tiles, shape, inputs }.backward(&outputs, memory);
                        for (row, rows) in segment.runs() {
                            let own = (n_prefix + rows.start) * d..(n_prefix + rows.end) * d;
                            add_rows(row, head * d, &memory.d_q[rows.start * d..rows.end * d]);
                            add_rows(row, shape.k_offset + kv_head * d, &memory.d_k[own.clone()]);
                            add_rows(row, shape.v_offset + kv_head * d, &memory.d_v[own]);
                        }
                        add(prefix_k, &memory.d_k[..prefix_len]);
                        add(prefix_v, &memory.d_v[..prefix_len]);
                    }
                }
            });
        });
        let Some(d_prefix) = d_prefix else { return };
        assert!(
            d_prefix.k.len() == n_prefix * k * d && d_prefix.v.len() == d_prefix.k.len(),
            "prefix gradients"
        );
        for (part, sums) in prefixes.chunks_exact((2 * prefix_len).max(1)).enumerate() {
            let (from_k, from_v) = sums.split_at(prefix_len);
            for i in 0..n_prefix {
                let to = (i * k + part % k) * d..(i * k + part % k + 1) * d;
                add(&mut d_prefix.k[to.clone()], &from_k[i * d..(i + 1) * d]);
                add(&mut d_prefix.v[to], &from_v[i * d..(i + 1) * d]);
            }
        }
    });
}

fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// Runs the parts, on all threads if that pays.
fn run(shape: &TrainShape, sequences: &[TrainSequence], n_parts: usize, part: impl Fn(usize) + Sync) {
    let scores = sequences.iter().map(|sequence| sequence.len * sequence.len).fold(0, usize::saturating_add);
    let work = scores.saturating_mul(shape.n_heads * shape.head_dim);
    if work < PARALLEL_LEN { (0..n_parts).for_each(part) } else { threads::run(n_parts, part) }
}

impl TrainShape {
    /// Where a head's inputs of a segment are, in a sequence whose first row is `first`.
    fn inputs<'a>(
        &self,
        qkv: &'a [f32],
        prefix: Option<Prefix<'a>>,
        head: usize,
        first: usize,
        segment: &Segment,
        copies: [&'a mut Vec<f32>; 3],
    ) -> Inputs<'a> {
        let (d, stride) = (self.head_dim, self.n_kv_heads * self.head_dim);
        let kv = head / (self.n_heads / self.n_kv_heads) * d;
        let [copy_q, copy_k, copy_v] = copies;
        let own = |offset: usize, copy| {
            HeadRows { data: &qkv[offset..], stride: self.stride }.of_segment(first, segment, d, copy)
        };
        let before = |data: &'a [f32]| HeadRows { data: &data[kv.min(data.len())..], stride };
        Inputs {
            q: own(head * d, copy_q),
            k: own(self.k_offset + kv, copy_k),
            v: own(self.v_offset + kv, copy_v),
            prefix_k: before(prefix.map_or(&[], |prefix| prefix.k)),
            prefix_v: before(prefix.map_or(&[], |prefix| prefix.v)),
            n_prefix: prefix.map_or(0, |prefix| prefix.k.len() / stride),
            n: segment.len,
            prefix_len: segment.prefix_len,
        }
    }

    /// The first row of each sequence.
    #[track_caller]
    fn check(&self, len: usize, sequences: &[TrainSequence], prefix: Option<Prefix>) -> Vec<usize> {
        let &TrainShape { n_heads: h, n_kv_heads: k, head_dim: d, stride, k_offset, v_offset, .. } = self;
        assert!(d > 0 && k > 0 && h > 0 && h.is_multiple_of(k), "{h} heads, {k} kv heads of {d}");
        let kv = k * d;
        assert!(
            h * d <= k_offset && k_offset + kv <= stride,
            "keys at {k_offset}..{} of {stride}",
            k_offset + kv
        );
        assert!(
            h * d <= v_offset && v_offset + kv <= stride,
            "values at {v_offset}..{} of {stride}",
            v_offset + kv
        );
        assert!(k_offset.abs_diff(v_offset) >= kv, "keys at {k_offset} and values at {v_offset} overlap");
        let n_rows: usize = sequences.iter().map(|sequence| sequence.len).sum();
        assert_eq!(len, n_rows * stride, "numbers in {n_rows} rows of {stride}");
        if let Some(prefix) = prefix {
            let (n_k, n_v) = (prefix.k.len(), prefix.v.len());
            assert!(
                n_k == n_v && n_k.is_multiple_of(kv),
                "{n_k} keys, {n_v} values of a prefix in rows of {kv}"
            );
        }
        if let Some(groups) = self.groups {
            groups.check(sequences);
        }
        for TrainSequence { len, prefix_len } in sequences {
            assert!(prefix_len <= len, "{prefix_len} rows that see each other in a sequence of {len}");
        }
        let ends = sequences.iter().scan(0, |end, sequence| {
            *end += sequence.len;
            Some(*end)
        });
        std::iter::once(0).chain(ends).collect()
    }
}

#[cfg(test)]
mod tests;
