//! One query head of one segment: blocks of queries against chunks of keys.
//!
//! Factors are packed from where they lie; only rows that wrap around the end of a sequence are copied
//! before.

use super::TrainShape;
use super::rows::{self, State, Visible};
use super::segments::Segment;
use crate::gemm::tiles::{Factor, Floats, Output, Summed, Tiles};
use crate::isa::Isa;
use std::ops::Range;

/// Queries of a block.
const QUERIES: usize = 64;
/// Keys of a chunk: whole panels of every instruction set.
const KEYS: usize = 192;

/// Rows of a head: `[.., d]`, the first at the start of `data`, the others `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct HeadRows<'a> {
    pub data: &'a [f32],
    pub stride: usize,
}

impl<'a> HeadRows<'a> {
    /// Some rows of `d` numbers.
    fn part(&self, rows: Range<usize>, d: usize) -> Floats<'a> {
        let from = rows.start * self.stride;
        let data = &self.data[from..from + (rows.len() - 1) * self.stride + d];
        Floats { data, n_rows: rows.len(), n_cols: d, stride: self.stride }
    }

    /// A segment's rows of those of its sequence, whose first one is `first`: copied if they wrap around.
    pub fn of_segment(
        &self,
        first: usize,
        segment: &Segment,
        d: usize,
        copy: &'a mut Vec<f32>,
    ) -> HeadRows<'a> {
        if segment.start + segment.len <= segment.n_rows {
            let data = &self.data[(first + segment.start) * self.stride..];
            return HeadRows { data, stride: self.stride };
        }
        copy.clear();
        for row in segment.rows() {
            copy.extend_from_slice(&self.data[(first + row) * self.stride..][..d]);
        }
        HeadRows { data: copy, stride: d }
    }
}

/// Queries, keys and values of a segment, and of the prefix.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub q: HeadRows<'a>,
    pub k: HeadRows<'a>,
    pub v: HeadRows<'a>,
    pub prefix_k: HeadRows<'a>,
    pub prefix_v: HeadRows<'a>,
    /// Rows of the prefix.
    pub n_prefix: usize,
    /// Rows of the segment.
    pub n: usize,
    /// The first of them, which see each other in both directions.
    pub prefix_len: usize,
}

/// What the forward pass gave for a segment, and the gradient of its output.
#[derive(Clone, Copy)]
pub(super) struct Outputs<'a> {
    pub out: HeadRows<'a>,
    pub d_out: HeadRows<'a>,
    /// Log-sum-exps, rows of one number.
    pub lse: HeadRows<'a>,
}

/// Copies of rows that wrap around the end of a sequence.
#[derive(Default)]
pub(super) struct Copies(pub [Vec<f32>; 6]);

/// What a thread computes a head with.
#[derive(Default)]
pub(super) struct Memory {
    /// `[T, d]`.
    pub out: Vec<f32>,
    /// `[T]`.
    pub lse: Vec<f32>,
    /// Sums of `out · d_out`, `[T]`.
    delta: Vec<f32>,
    /// `[T, d]`.
    pub d_q: Vec<f32>,
    /// Of the prefix, then of the segment, `[P + T, d]`.
    pub d_k: Vec<f32>,
    pub d_v: Vec<f32>,
    /// Blocks of scores, `[QUERIES, KEYS]`, and of their gradients.
    scores: Vec<f32>,
    gradients: Vec<f32>,
    /// Greatest scores of a block.
    max: Vec<f32>,
    /// Factors of all blocks of queries.
    queries: Vec<u32>,
    /// Factors of all chunks of keys.
    keys: Vec<u32>,
    /// A factor made of scores.
    weights: Vec<u32>,
}

/// Neighbouring keys.
#[derive(Clone)]
struct Chunk {
    /// Rows of the prefix or of the segment.
    keys: Range<usize>,
    /// Whether they belong to the prefix.
    is_prefix: bool,
}

/// One query head of one segment.
pub(super) struct Head<'a> {
    pub isa: Isa,
    pub tiles: Tiles,
    pub shape: &'a TrainShape,
    pub inputs: Inputs<'a>,
}

impl Head<'_> {
    /// Computes `out` and `lse`.
    pub fn forward(&self, memory: &mut Memory) {
        let d = self.shape.head_dim;
        let Memory { out, lse, scores, max, queries, keys, weights, .. } = memory;
        let n_queries = self.inputs.n;
        let chunk_words = self.chunk_words();
        let n_chunks = self.chunks().count();
        let keys = grown(keys, n_chunks * 2 * chunk_words);
        for (chunk, words) in self.chunks().zip(keys.chunks_exact_mut(2 * chunk_words)) {
            let (words_k, words_v) = words.split_at_mut(chunk_words);
            let (k, v) = self.keys_of(&chunk);
            self.tiles.pack_b(k, Summed::Columns, words_k);
            self.tiles.pack_b(v, Summed::Rows, words_v);
        }
        let queries = grown(queries, self.tiles.len(QUERIES, d));
        let weights = grown(weights, self.tiles.len(QUERIES, KEYS));
        let scores = grown(scores, QUERIES * KEYS);
        let max = grown(max, QUERIES);
        out.clear();
        out.resize(n_queries * d, 0.0);
        lse.clear();
        lse.resize(n_queries, 0.0);
        for block in blocks(n_queries) {
            let n = block.len();
            let query = self.tiles.pack_a(self.inputs.q.part(block.clone(), d), Summed::Columns, queries);
            let out = &mut out[block.start * d..block.end * d];
            let mut state = State { max: &mut max[..n], sum: &mut lse[block.clone()], out };
            state.max.fill(f32::NEG_INFINITY);
            for (chunk, words) in self.chunks().zip(keys.chunks_exact(2 * chunk_words)) {
                let Some(visible) = self.visible(&block, &chunk, n_queries) else { continue };
                let (words_k, words_v) = words.split_at(chunk_words);
                let n_keys = visible.n_keys;
                let key = Factor { words: words_k, n_lines: chunk.keys.len(), depth: d };
                let product = Output { data: &mut *scores, stride: KEYS, add: false };
                self.tiles.multiply(self.shape.scale, query, key, n_keys, product);
                rows::weigh(self.isa, visible, scores, KEYS, &mut state);
                let weight = Floats { data: scores, n_rows: n, n_cols: n_keys, stride: KEYS };
                let weight = self.tiles.pack_a(weight, Summed::Columns, weights);
                let value = Factor { words: words_v, n_lines: d, depth: chunk.keys.len() };
                self.tiles.multiply(
                    1.0,
                    weight,
                    value,
                    d,
                    Output { data: &mut *state.out, stride: d, add: true },
                );
            }
            for (i, out) in state.out.chunks_exact_mut(d).enumerate() {
                let sum = state.sum[i];
                state.sum[i] = state.max[i] + sum.ln();
                if state.max[i] == f32::NEG_INFINITY {
                    out.fill(0.0);
                } else {
                    let factor = 1.0 / sum;
                    out.iter_mut().for_each(|x| *x *= factor);
                }
            }
        }
    }

    /// Computes `d_q`, `d_k` and `d_v`.
    pub fn backward(&self, outputs: &Outputs, memory: &mut Memory) {
        let d = self.shape.head_dim;
        let Memory { lse, delta, d_q, d_k, d_v, scores, gradients, queries, keys, weights, .. } = memory;
        let (n_queries, n_prefix) = (self.inputs.n, self.inputs.n_prefix);
        let n_keys = n_prefix + n_queries;
        for (to, len) in [(&mut *d_q, n_queries * d), (&mut *d_k, n_keys * d), (&mut *d_v, n_keys * d)] {
            to.clear();
            to.resize(len, 0.0);
        }
        lse.clear();
        lse.extend(outputs.lse.data.iter().step_by(outputs.lse.stride).take(n_queries));
        let delta = grown(delta, n_queries);
        rows::dots(self.isa, d, &outputs.out, &outputs.d_out, delta);
        // Queries and gradients of outputs, each as a first and as a second factor.
        let (a_words, b_words) = (self.tiles.len(QUERIES, d), self.tiles.len(d, QUERIES));
        let block_words = 2 * (a_words + b_words);
        let queries = grown(queries, n_queries.div_ceil(QUERIES) * block_words);
        for (block, words) in blocks(n_queries).zip(queries.chunks_exact_mut(block_words)) {
            for (from, words) in
                [self.inputs.q, outputs.d_out].into_iter().zip(words.chunks_exact_mut(a_words + b_words))
            {
                let (first, second) = words.split_at_mut(a_words);
                self.tiles.pack_a(from.part(block.clone(), d), Summed::Columns, first);
                self.tiles.pack_b(from.part(block.clone(), d), Summed::Rows, second);
            }
        }
        let chunk_words = self.chunk_words();
        let keys = grown(keys, 3 * chunk_words);
        let weights = grown(weights, self.tiles.len(QUERIES, KEYS).max(self.tiles.len(KEYS, QUERIES)));
        let (scores, gradients) = (grown(scores, QUERIES * KEYS), grown(gradients, QUERIES * KEYS));
        for chunk in self.chunks() {
            let (words_k, rest) = keys.split_at_mut(chunk_words);
            let (words_v, words_rows) = rest.split_at_mut(chunk_words);
            let (k, v) = self.keys_of(&chunk);
            let key = self.tiles.pack_b(k, Summed::Columns, words_k);
            let value = self.tiles.pack_b(v, Summed::Columns, words_v);
            let key_rows = self.tiles.pack_b(k, Summed::Rows, words_rows);
            let first = chunk.keys.start + if chunk.is_prefix { 0 } else { n_prefix };
            let (d_k, d_v) = (&mut d_k[first * d..], &mut d_v[first * d..]);
            for (block, words) in blocks(n_queries).zip(queries.chunks_exact(block_words)) {
                let Some(visible) = self.visible(&block, &chunk, n_queries) else { continue };
                let (n, n_keys) = (block.len(), visible.n_keys);
                let a = |words| Factor { words, n_lines: n, depth: d };
                let b = |words| Factor { words, n_lines: d, depth: n };
                let (of_q, of_d_out) = words.split_at(a_words + b_words);
                let to = |data| Output { data, stride: KEYS, add: false };
                self.tiles.multiply(self.shape.scale, a(of_q), key, n_keys, to(&mut *scores));
                self.tiles.multiply(1.0, a(of_d_out), value, n_keys, to(&mut *gradients));
                let (lse, delta) = (&lse[block.clone()], &delta[block.clone()]);
                rows::differentiate(self.isa, visible, scores, gradients, KEYS, lse, delta, self.shape.scale);
                let of_block = |data| Floats { data, n_rows: n, n_cols: n_keys, stride: KEYS };
                let sum = |data| Output { data, stride: d, add: true };
                let weight = self.tiles.pack_a(of_block(&*scores), Summed::Rows, weights);
                self.tiles.multiply(1.0, weight, b(&of_d_out[a_words..]), d, sum(&mut *d_v));
                let gradient = self.tiles.pack_a(of_block(&*gradients), Summed::Rows, weights);
                self.tiles.multiply(1.0, gradient, b(&of_q[a_words..]), d, sum(&mut *d_k));
                let gradient = self.tiles.pack_a(of_block(&*gradients), Summed::Columns, weights);
                self.tiles.multiply(
                    1.0,
                    gradient,
                    key_rows,
                    d,
                    sum(&mut d_q[block.start * d..block.end * d]),
                );
            }
        }
    }

    /// Words of a chunk's keys or values as a second factor.
    fn chunk_words(&self) -> usize {
        let d = self.shape.head_dim;
        self.tiles.len(KEYS, d).max(self.tiles.len(d, KEYS))
    }

    /// The chunks of the prefix, then those of the segment.
    fn chunks(&self) -> impl Iterator<Item = Chunk> {
        let cut = |end: usize, is_prefix: bool| {
            let starts = (0..end).step_by(KEYS);
            starts.map(move |start| Chunk { keys: start..end.min(start + KEYS), is_prefix })
        };
        cut(self.inputs.n_prefix, true).chain(cut(self.inputs.n, false))
    }

    /// A chunk's keys and values.
    fn keys_of(&self, chunk: &Chunk) -> (Floats<'_>, Floats<'_>) {
        let Inputs { k, v, prefix_k, prefix_v, .. } = &self.inputs;
        let (k, v) = if chunk.is_prefix { (prefix_k, prefix_v) } else { (k, v) };
        let d = self.shape.head_dim;
        (k.part(chunk.keys.clone(), d), v.part(chunk.keys.clone(), d))
    }

    /// Which keys of a chunk the queries of a block see; none if that is nothing.
    fn visible(&self, block: &Range<usize>, chunk: &Chunk, n_queries: usize) -> Option<Visible> {
        let mut visible = Visible {
            query: block.start,
            key: (!chunk.is_prefix).then_some(chunk.keys.start),
            n_keys: chunk.keys.len(),
            window: self.shape.window.unwrap_or(n_queries),
            prefix_len: self.inputs.prefix_len,
        };
        // The last query sees the last of the keys that are seen, the first query the first.
        let last = visible.of(block.len() - 1).end;
        visible.n_keys = last;
        (last > visible.of(0).start).then_some(visible)
    }
}

/// Blocks of queries.
fn blocks(n_queries: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n_queries).step_by(QUERIES).map(move |start| start..n_queries.min(start + QUERIES))
}

/// The first `len` elements, which are made if there are fewer.
fn grown<T: Default + Clone>(memory: &mut Vec<T>, len: usize) -> &mut [T] {
    if memory.len() < len {
        memory.resize(len, T::default());
    }
    &mut memory[..len]
}
