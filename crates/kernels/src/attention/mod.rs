//! Attention: softmax(q kᵀ · scale + bias) v over the visible keys.
//!
//! Work is cut into tiles of rows that share a kv head, and, where a span has few queries, over chunks of its keys as
//! well (arXiv:2307.08691, section 3; the latter is known as flash-decoding). What a row computes is the same in
//! both cases: see `kernel`.

mod kernel;
pub mod training;

use crate::half;
use crate::isa::{self, Isa};
use crate::kv::{KvPages, KvType, PAGE_LEN};
use crate::rows::Start;
use crate::threads;
use kernel::{Output, Scratch, State, TILE_ROWS, Tile};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What all queries of a call share.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttentionOptions<'a> {
    /// Query heads; a multiple of the kv heads. Head h reads kv head h · K / H.
    pub n_heads: usize,
    /// Factor on q kᵀ, usually 1 / sqrt(d).
    pub scale: f32,
    /// A query at i sees only keys at j > i − window. Source: arXiv:2310.06825, section 2.
    pub window: Option<usize>,
    /// Slope of each head `[H]`: −slope · (position of the query − position of the key) is added to the scaled score.
    /// Source: arXiv:2108.12409, section 3. Hugging Face's slope · (position of the key) is the same after softmax.
    pub alibi: Option<&'a [f32]>,
    /// Rounds the biases of `alibi` as models were trained with: instead, this · bf16(slope · position of the key) is
    /// added. Source: transformers, `build_alibi_tensor` of Falcon.
    pub alibi_bf16: Option<f32>,
    /// c · tanh(score / c) of the scaled score, before biases. Source: arXiv:2408.00118, section 2.
    pub soft_cap: Option<f32>,
    /// A bias by distance, as T5 has it.
    pub relative: Option<RelativeBias<'a>>,
}

/// What ALiBi adds to the score of the key at position `key`, up to what all keys of a query have alike. `bf16` is
/// [`AttentionOptions::alibi_bf16`].
#[inline(always)]
pub fn alibi(slope: f32, bf16: Option<f32>, query: usize, key: usize) -> f32 {
    match bf16 {
        // By distance the sum stays small, and so exact, far into a context.
        None => -slope * (query as f32 - key as f32),
        Some(factor) => factor * half::bf16_to_f32(half::f32_to_bf16(slope * key as f32)),
    }
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
#[derive(Debug, Clone, Copy, Default)]
pub struct Span<'a> {
    /// The sequence's pages, page i holding positions 32i..32i+32.
    pub table: &'a [u32],
    /// Absolute position of the first query.
    pub start: usize,
    /// Number of queries.
    pub len: usize,
    /// The tree that the queries form; `None` = each follows the one before.
    pub tree: Option<Tree<'a>>,
}

/// Queries that continue one beginning in several ways at once. Source: SpecInfer, arXiv:2305.09781, section 4.2.
///
/// Each sees the keys before the span, its ancestors in the span, and itself; it stands `depth` positions after the
/// span's start, whatever the slot of its own key. Parents come before their children.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    /// Ancestors between the span's start and each query. `[T]`
    pub depths: &'a [usize],
    /// Whether query i sees the key of query j of the span: only for j <= i, and for j = i. `[T, T]`
    pub sees: &'a [bool],
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
    paged_on(isa::active(), q, q_stride, spans, kv, options, out)
}

#[track_caller]
fn paged_on(
    isa: Isa,
    q: &[f32],
    q_stride: usize,
    spans: &[Span],
    kv: &KvPages,
    options: &AttentionOptions,
    out: &mut [f32],
) {
    for span in spans {
        let (end, pages) = (span.start + span.len, span.table.len());
        assert!(span.len == 0 || end <= pages * PAGE_LEN, "a span to position {end} in {pages} pages");
        if let Some(tree) = span.tree {
            let lens = (tree.depths.len(), tree.sees.len());
            assert_eq!(lens, (span.len, span.len * span.len), "a tree of {} queries", span.len);
        }
    }
    let sequences = spans.iter().map(|span| Sequence {
        table: span.table,
        n_queries: span.len,
        visible: Visible {
            start: span.start as isize,
            window: options.window,
            limit: Limit::Causal,
            tree: span.tree,
        },
    });
    run(isa, q, q_stride, sequences, kv, options, out)
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
    dense_on(isa::active(), q, k, v, shape, sequences, mask, options, out)
}

#[track_caller]
#[allow(clippy::too_many_arguments)]
fn dense_on(
    isa: Isa,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    shape: DenseShape,
    sequences: &[DenseSequence],
    mask: Mask,
    options: &AttentionOptions,
    out: &mut [f32],
) {
    // The kernel reads keys dimension by dimension, so they are put into pages first: a copy against work of T · S.
    let n_pages: usize = sequences.iter().map(|s| s.n_keys.div_ceil(PAGE_LEN)).sum();
    let mut kv = KvPages::new(KvType::F32, shape.n_kv_heads, shape.head_dim, n_pages);
    let table: Vec<u32> = (0..n_pages as u32).collect();
    let (mut page, mut row) = (0, 0);
    let mut parts = Vec::with_capacity(sequences.len());
    for s in sequences {
        let table = &table[page..page + s.n_keys.div_ceil(PAGE_LEN)];
        if s.n_keys > 0 {
            let from = row * shape.kv_stride;
            kv.write(table, 0, &k[from..], &v[from..], shape.kv_stride, s.n_keys);
        }
        let start = s.n_keys as isize - s.n_queries as isize;
        let limit = if mask == Mask::Causal { Limit::Causal } else { Limit::Keys(s.n_keys) };
        let visible = Visible { start, window: options.window, limit, tree: None };
        parts.push(Sequence { table, n_queries: s.n_queries, visible });
        page += table.len();
        row += s.n_keys;
    }
    run(isa, q, shape.q_stride, parts.into_iter(), &kv, options, out)
}

/// Which keys the queries of a span see.
#[derive(Debug, Clone, Copy)]
struct Visible<'a> {
    /// Position of query 0; negative where causal queries outnumber the keys.
    start: isize,
    window: Option<usize>,
    limit: Limit,
    /// What hides more of the span's own keys.
    tree: Option<Tree<'a>>,
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    /// Keys up to the query's position.
    Causal,
    /// That many keys.
    Keys(usize),
}

impl Visible<'_> {
    /// The keys that query `t` sees, and in a tree some more between them.
    #[inline(always)]
    fn keys_of(&self, t: usize) -> Range<usize> {
        let next = self.start + t as isize + 1;
        let after = self.tree.map_or(next, |tree| self.start + tree.depths[t] as isize + 1);
        let start = self.window.map_or(0, |w| after.saturating_sub_unsigned(w).max(0) as usize);
        let end = match self.limit {
            Limit::Causal => next.max(0) as usize,
            Limit::Keys(n) => n,
        };
        start.min(end)..end
    }

    /// The position of query `t`.
    fn position(&self, t: usize) -> usize {
        let t = self.tree.map_or(t, |tree| tree.depths[t]);
        (self.start + t as isize).max(0) as usize
    }

    /// The position of the key in slot `key` of the sequence.
    fn key_position(&self, key: usize) -> usize {
        match (self.tree, key.checked_sub(self.start.max(0) as usize)) {
            (Some(tree), Some(j)) => key - j + tree.depths.get(j).copied().unwrap_or(j),
            _ => key,
        }
    }

    /// Whether query `t` of a tree sees the key in slot `key`, one of those that [`keys_of`](Visible::keys_of) gives.
    fn sees(&self, tree: &Tree, t: usize, key: usize) -> bool {
        let Some(j) = key.checked_sub(self.start as usize) else { return true };
        let is_near = self.window.is_none_or(|w| tree.depths[j] + w > tree.depths[t]);
        tree.sees[t * tree.depths.len() + j] && is_near
    }
}

/// A span of queries with what they see.
struct Sequence<'a> {
    table: &'a [u32],
    n_queries: usize,
    visible: Visible<'a>,
}

/// A span of at most this many queries is cut over its keys as well.
const SPLIT_QUERIES: usize = 8;

/// Chunks that one part of a span's keys takes.
const SPLIT_CHUNKS: usize = 2;

/// Numbers of keys and values below which one thread is faster than two.
const FORK_LEN: usize = 64 * 1024;

/// A part of the work: a tile, all of it or some of its chunks.
struct Part<'a> {
    tile: Tile<'a>,
    output: Output,
    /// For a part of a tile's chunks: which, and to which of the split tiles they belong.
    split: Option<(Range<usize>, usize)>,
}

/// A tile whose chunks are computed by several parts.
struct Split {
    /// Where in the states' memory the tile's begin.
    states: usize,
    /// Parts not yet computed; who computes the last one joins them.
    left: AtomicUsize,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    /// The states of the caller's split tiles.
    static STATES: RefCell<Scratch> = RefCell::default();
    /// The states of a tile that its thread computes alone.
    static WHOLE: RefCell<Scratch> = RefCell::default();
}

#[track_caller]
fn run<'a>(
    isa: Isa,
    q: &'a [f32],
    q_stride: usize,
    sequences: impl Iterator<Item = Sequence<'a>>,
    kv: &'a KvPages,
    options: &'a AttentionOptions<'a>,
    out: &mut [f32],
) {
    let (h, k, d) = (options.n_heads, kv.n_kv_heads(), kv.head_dim());
    assert!(h > 0 && h.is_multiple_of(k), "{h} heads, {k} kv heads");
    assert!(q_stride >= h * d, "q stride {q_stride}, heads {h} of {d}");
    assert!(options.alibi.is_none_or(|slopes| slopes.len() == h), "one ALiBi slope for each of {h} heads");
    assert!(
        options.relative.is_none_or(|b| !b.table.is_empty() && b.table.len().is_multiple_of(h)),
        "a bias for {h} heads"
    );
    let group = h / k;
    let (mut parts, mut splits) = (Vec::new(), Vec::new());
    let (mut row, mut n_states, mut work) = (0, 0, 0);
    let start = Start(out.as_mut_ptr());
    for sequence in sequences {
        let n_rows = sequence.n_queries * group;
        let end = row + sequence.n_queries;
        assert!(out.len() >= end * h * d, "out {}, rows {end} of {}", out.len(), h * d);
        assert!(
            n_rows == 0 || q.len() >= (end - 1) * q_stride + h * d,
            "q {}, rows {end} of {q_stride}",
            q.len()
        );
        // Last tiles first: they see most keys, and small parts fill the threads' time best at the end.
        for first_row in (0..n_rows).step_by(TILE_ROWS).rev() {
            for kv_head in 0..k {
                let tile = Tile {
                    q: &q[row * q_stride + kv_head * group * d..],
                    q_stride,
                    kv,
                    table: sequence.table,
                    kv_head,
                    group,
                    first_row,
                    n_rows: TILE_ROWS.min(n_rows - first_row),
                    visible: sequence.visible,
                    options,
                };
                let output =
                    Output { start: Start(start.at((row * h + kv_head * group) * d)), stride: h * d };
                let chunks = tile.chunks();
                work += tile.keys().len() * d * 2 * tile.n_rows.div_ceil(4);
                if sequence.n_queries > SPLIT_QUERIES || chunks.len() <= SPLIT_CHUNKS {
                    parts.push(Part { tile, output, split: None });
                    continue;
                }
                let left = AtomicUsize::new(chunks.len().div_ceil(SPLIT_CHUNKS));
                for chunk in chunks.clone().step_by(SPLIT_CHUNKS) {
                    let some = chunk..chunks.end.min(chunk + SPLIT_CHUNKS);
                    parts.push(Part { tile, output, split: Some((some, splits.len())) });
                }
                splits.push(Split { states: n_states, left });
                n_states += chunks.len() * State::len(tile.n_rows, kv.layout());
            }
        }
        row = end;
    }
    STATES.with_borrow_mut(|states| {
        let states = Start(states.take(n_states).as_mut_ptr());
        let compute = |i: usize| {
            SCRATCH.with_borrow_mut(|scratch| compute_part(isa, &parts[i], &splits, states, scratch));
        };
        if work < FORK_LEN { (0..parts.len()).for_each(compute) } else { threads::run(parts.len(), compute) }
    })
}

fn compute_part(isa: Isa, part: &Part, splits: &[Split], states: Start<f32>, scratch: &mut Scratch) {
    let tile = &part.tile;
    let n = State::len(tile.n_rows, tile.kv.layout());
    let all = tile.chunks();
    let Some((chunks, split)) = &part.split else {
        return WHOLE.with_borrow_mut(|states| {
            let states = states.take(all.len() * n);
            kernel::attend_chunks(isa, tile, all, scratch, states);
            kernel::join(isa, tile, scratch, states, part.output);
        });
    };
    let split = &splits[*split];
    let at = split.states + (chunks.start - all.start) * n;
    // SAFETY: each part has its own chunks' states, within the memory that `run` holds.
    let own = unsafe { std::slice::from_raw_parts_mut(states.at(at), chunks.len() * n) };
    kernel::attend_chunks(isa, tile, chunks.clone(), scratch, own);
    if split.left.fetch_sub(1, Ordering::AcqRel) == 1 {
        // SAFETY: all parts of the tile are computed, and the counter has made their writes visible.
        let every = unsafe { std::slice::from_raw_parts(states.at(split.states), all.len() * n) };
        kernel::join(isa, tile, scratch, every, part.output);
    }
}

#[cfg(test)]
mod tests;
