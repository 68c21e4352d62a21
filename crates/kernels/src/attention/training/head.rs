//! One query head of one segment: blocks of queries against chunks of keys.

use super::rows::{self, State, Visible};
use super::segments::Segment;
use super::{Mask, Prefix, TrainShape};
use crate::gemm::tiles::{Factor, Floats, Output, Summed, Tiles};
use crate::isa::Isa;
use std::ops::Range;

/// Queries of a block.
const QUERIES: usize = 64;
/// Keys of a chunk: whole panels of every instruction set.
const KEYS: usize = 192;

/// What a thread computes a head with.
#[derive(Default)]
pub(super) struct Memory {
    /// `[T, d]`.
    q: Vec<f32>,
    /// Keys of the prefix, then the segment's, `[P + T, d]`; and the values.
    k: Vec<f32>,
    v: Vec<f32>,
    /// `[T, d]`.
    pub out: Vec<f32>,
    d_out: Vec<f32>,
    /// `[T]`.
    pub lse: Vec<f32>,
    /// Sums of `out · d_out`, `[T]`.
    delta: Vec<f32>,
    /// `[T, d]`, and of `k` and `v`.
    pub d_q: Vec<f32>,
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

impl Memory {
    /// Copies a segment's queries, keys and values; the number of keys, those of the prefix counted.
    pub fn gather(
        &mut self,
        qkv: &[f32],
        shape: &TrainShape,
        prefix: Option<Prefix>,
        first: usize,
        segment: &Segment,
        head: usize,
    ) -> usize {
        let (d, kv) = (shape.head_dim, shape.n_kv_heads * shape.head_dim);
        let kv_head = head / (shape.n_heads / shape.n_kv_heads);
        [&mut self.q, &mut self.k, &mut self.v].into_iter().for_each(Vec::clear);
        if let Some(prefix) = prefix {
            for (to, from) in [(&mut self.k, prefix.k), (&mut self.v, prefix.v)] {
                from.chunks_exact(kv)
                    .for_each(|row| to.extend_from_slice(&row[kv_head * d..(kv_head + 1) * d]));
            }
        }
        for row in segment.rows() {
            let row = &qkv[(first + row) * shape.stride..][..shape.stride];
            self.q.extend_from_slice(&row[head * d..][..d]);
            self.k.extend_from_slice(&row[shape.k_offset + kv_head * d..][..d]);
            self.v.extend_from_slice(&row[shape.v_offset + kv_head * d..][..d]);
        }
        self.k.len() / d
    }

    /// Copies what the forward pass gave for a segment, and the gradient of its output.
    #[allow(clippy::too_many_arguments)]
    pub fn gather_outputs(
        &mut self,
        out: &[f32],
        d_out: &[f32],
        lse: &[f32],
        shape: &TrainShape,
        first: usize,
        segment: &Segment,
        head: usize,
    ) {
        let (h, d) = (shape.n_heads, shape.head_dim);
        [&mut self.d_out, &mut self.lse, &mut self.delta].into_iter().for_each(Vec::clear);
        for row in segment.rows() {
            let at = (first + row) * h + head;
            let (out, d_out) = (&out[at * d..][..d], &d_out[at * d..][..d]);
            self.d_out.extend_from_slice(d_out);
            self.lse.push(lse[at]);
            self.delta.push(out.iter().zip(d_out).map(|(x, y)| x * y).sum());
        }
    }
}

/// Neighbouring keys.
#[derive(Clone)]
struct Chunk {
    /// Among all keys.
    keys: Range<usize>,
    /// Whether they belong to the prefix.
    is_prefix: bool,
}

/// One query head of one segment.
pub(super) struct Head<'a> {
    pub isa: Isa,
    pub tiles: Tiles,
    pub shape: &'a TrainShape,
    /// Keys of the prefix.
    pub n_prefix: usize,
}

impl Head<'_> {
    /// Computes `out` and `lse`.
    pub fn forward(&self, memory: &mut Memory) {
        let d = self.shape.head_dim;
        let Memory { q, k, v, out, lse, scores, max, queries, keys, weights, .. } = memory;
        let n_queries = q.len() / d;
        let chunk_words = self.chunk_words();
        let n_chunks = self.chunks(n_queries).count();
        let keys = grown(keys, n_chunks * 2 * chunk_words);
        for (chunk, words) in self.chunks(n_queries).zip(keys.chunks_exact_mut(2 * chunk_words)) {
            let (words_k, words_v) = words.split_at_mut(chunk_words);
            self.tiles.pack_b(floats(k, &chunk.keys, d), Summed::Columns, words_k);
            self.tiles.pack_b(floats(v, &chunk.keys, d), Summed::Rows, words_v);
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
            let query = self.tiles.pack_a(floats(q, &block, d), Summed::Columns, queries);
            let out = &mut out[block.start * d..block.end * d];
            let mut state = State { max: &mut max[..n], sum: &mut lse[block.clone()], out };
            state.max.fill(f32::NEG_INFINITY);
            for (chunk, words) in self.chunks(n_queries).zip(keys.chunks_exact(2 * chunk_words)) {
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
    pub fn backward(&self, memory: &mut Memory) {
        let d = self.shape.head_dim;
        let Memory {
            q,
            k,
            v,
            d_out,
            lse,
            delta,
            d_q,
            d_k,
            d_v,
            scores,
            gradients,
            queries,
            keys,
            weights,
            ..
        } = memory;
        let n_queries = q.len() / d;
        for (to, len) in [(&mut *d_q, q.len()), (&mut *d_k, k.len()), (&mut *d_v, v.len())] {
            to.clear();
            to.resize(len, 0.0);
        }
        // Queries and gradients of outputs, each as a first and as a second factor.
        let (a_words, b_words) = (self.tiles.len(QUERIES, d), self.tiles.len(d, QUERIES));
        let block_words = 2 * (a_words + b_words);
        let queries = grown(queries, n_queries.div_ceil(QUERIES) * block_words);
        for (block, words) in blocks(n_queries).zip(queries.chunks_exact_mut(block_words)) {
            for (from, words) in [&*q, &*d_out].into_iter().zip(words.chunks_exact_mut(a_words + b_words)) {
                let (first, second) = words.split_at_mut(a_words);
                self.tiles.pack_a(floats(from, &block, d), Summed::Columns, first);
                self.tiles.pack_b(floats(from, &block, d), Summed::Rows, second);
            }
        }
        let chunk_words = self.chunk_words();
        let keys = grown(keys, 3 * chunk_words);
        let weights = grown(weights, self.tiles.len(QUERIES, KEYS).max(self.tiles.len(KEYS, QUERIES)));
        let (scores, gradients) = (grown(scores, QUERIES * KEYS), grown(gradients, QUERIES * KEYS));
        for chunk in self.chunks(n_queries) {
            let (words_k, rest) = keys.split_at_mut(chunk_words);
            let (words_v, words_rows) = rest.split_at_mut(chunk_words);
            let key = self.tiles.pack_b(floats(k, &chunk.keys, d), Summed::Columns, words_k);
            let value = self.tiles.pack_b(floats(v, &chunk.keys, d), Summed::Columns, words_v);
            let key_rows = self.tiles.pack_b(floats(k, &chunk.keys, d), Summed::Rows, words_rows);
            let d_k = &mut d_k[chunk.keys.start * d..chunk.keys.end * d];
            let d_v = &mut d_v[chunk.keys.start * d..chunk.keys.end * d];
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
    fn chunks(&self, n_queries: usize) -> impl Iterator<Item = Chunk> {
        let (n_prefix, end) = (self.n_prefix, self.n_prefix + n_queries);
        let cut = |keys: Range<usize>, is_prefix: bool| {
            let end = keys.end;
            keys.step_by(KEYS).map(move |start| Chunk { keys: start..end.min(start + KEYS), is_prefix })
        };
        cut(0..n_prefix, true).chain(cut(n_prefix..end, false))
    }

    /// Which keys of a chunk the queries of a block see; none if that is nothing.
    fn visible(&self, block: &Range<usize>, chunk: &Chunk, n_queries: usize) -> Option<Visible> {
        let key = chunk.keys.start - if chunk.is_prefix { 0 } else { self.n_prefix };
        let mut visible = Visible {
            query: block.start,
            key: (!chunk.is_prefix).then_some(key),
            n_keys: chunk.keys.len(),
            window: self.shape.window.unwrap_or(n_queries),
            causal: self.shape.mask == Mask::Causal,
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

/// Rows of `[.., d]`.
fn floats<'a>(data: &'a [f32], rows: &Range<usize>, d: usize) -> Floats<'a> {
    Floats { data: &data[rows.start * d..rows.end * d], n_rows: rows.len(), n_cols: d, stride: d }
}

/// The first `len` elements, which are made if there are fewer.
fn grown<T: Default + Clone>(memory: &mut Vec<T>, len: usize) -> &mut [T] {
    if memory.len() < len {
        memory.resize(len, T::default());
    }
    &mut memory[..len]
}
