//! The one computation behind all attention: a tile of rows against the keys of one kv head, chunk by chunk.
//!
//! A row is one query of one head. Whatever the tile around it, a row sees the same operations in the same order:
//!
//! 1. Keys come in chunks of [`CHUNK_LEN`] and within them in blocks of [`BLOCK_LEN`], both aligned at absolute
//!    positions. A score is one chain of fused multiply-adds over d; lanes are keys.
//! 2. Within a chunk, blocks are joined by the online softmax (arXiv:1805.02867, section 3): the running maximum m, the sum l in
//!    lanes, and the weighted sum of values o, one chain of fused multiply-adds over the chunk's keys.
//! 3. Chunks are joined in order by [`State::merge`], at once or after all were computed by different threads.
//!
//! Hidden keys have weight 0 exactly, and blocks or chunks without visible keys change nothing; so a row does not
//! see whether they were skipped. The tiling follows FlashAttention-2 (arXiv:2307.08691, section 3).

use super::{AttentionOptions, Visible};
use crate::arch::math;
use crate::arch::vector::{Vector, per_isa};
use crate::kv::{GROUP_LEN, KvPages, KvType, Layout, PAGE_LEN};
use std::ops::Range;

/// Keys whose states are joined by `merge`.
pub(super) const CHUNK_LEN: usize = 256;

/// Keys whose scores are computed before their values are read.
pub(super) const BLOCK_LEN: usize = 4 * PAGE_LEN;

/// Rows of a tile at most.
pub(super) const TILE_ROWS: usize = 48;

/// Rows that read the same keys.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// Queries of the span, from its first row and from the first head of this kv head's group on.
    pub q: &'a [f32],
    pub q_stride: usize,
    pub kv: &'a KvPages,
    pub table: &'a [u32],
    pub kv_head: usize,
    /// Query heads that share a kv head.
    pub group: usize,
    /// Row r of the span is query r / group, head r % group of the group.
    pub first_row: usize,
    pub n_rows: usize,
    /// What the span's queries see.
    pub visible: Visible<'a>,
    pub options: &'a AttentionOptions<'a>,
}

impl Tile<'_> {
    /// Query (within the span) and head (of all) of the tile's row `r`.
    fn query_and_head(&self, r: usize) -> (usize, usize) {
        let row = self.first_row + r;
        (row / self.group, self.kv_head * self.group + row % self.group)
    }

    /// The keys that the tile's row `r` sees.
    fn keys_of(&self, r: usize) -> Range<usize> {
        self.visible.keys_of((self.first_row + r) / self.group)
    }

    /// The keys that some row of the tile sees, and perhaps more between them.
    pub fn keys(&self) -> Range<usize> {
        // Depths of a tree may come in any order.
        let start = match self.visible.tree {
            None => self.keys_of(0).start,
            Some(_) => (0..self.n_rows).map(|r| self.keys_of(r).start).min().unwrap_or(0),
        };
        start..self.keys_of(self.n_rows - 1).end
    }

    /// The keys that every row of the tile sees, or fewer.
    fn common(&self) -> Range<usize> {
        if self.visible.tree.is_none() {
            // What even the last row's window and the first row's causality leave.
            return self.keys_of(self.n_rows - 1).start..self.keys_of(0).end;
        }
        let start = (0..self.n_rows).map(|r| self.keys_of(r).start).max().unwrap_or(0);
        start..self.visible.start as usize
    }

    /// The chunks that hold those keys.
    pub fn chunks(&self) -> Range<usize> {
        let keys = self.keys();
        keys.start / CHUNK_LEN..if keys.is_empty() {
            keys.start / CHUNK_LEN
        } else {
            keys.end.div_ceil(CHUNK_LEN)
        }
    }
}

/// What a tile knows after some keys: `[n_rows]` maxima and sums, `[n_rows, value_stride]` weighted sums of values.
pub(super) struct State<'a> {
    m: &'a mut [f32],
    l: &'a mut [f32],
    o: &'a mut [f32],
}

impl<'a> State<'a> {
    /// Numbers that a state of `n_rows` rows takes.
    pub fn len(n_rows: usize, layout: Layout) -> usize {
        n_rows * (layout.value_stride + 2)
    }

    /// A state in `memory` as it stands.
    pub fn of(memory: &'a mut [f32], n_rows: usize) -> State<'a> {
        let (m, rest) = memory.split_at_mut(n_rows);
        let (l, o) = rest.split_at_mut(n_rows);
        State { m, l, o }
    }

    /// The state before any key. The least finite number instead of −∞ keeps differences of maxima from being NaN.
    pub fn clear(&mut self) {
        self.m.fill(f32::MIN);
        self.l.fill(0.0);
        self.o.fill(0.0);
    }

    /// Takes in the state of the keys that follow.
    #[inline(always)]
    fn merge<V: Vector>(&mut self, next: &[f32], value_stride: usize) {
        let n_rows = self.m.len();
        let (next_m, rest) = next.split_at(n_rows);
        let (next_l, next_o) = rest.split_at(n_rows);
        for r in 0..n_rows {
            let m = if next_m[r] > self.m[r] { next_m[r] } else { self.m[r] };
            let (a, b) = (exp::<V>(self.m[r] - m), exp::<V>(next_m[r] - m));
            self.m[r] = m;
            self.l[r] = self.l[r] * a + next_l[r] * b;
            let (a, b) = (V::splat(a), V::splat(b));
            let o = &mut self.o[r * value_stride..][..value_stride];
            let next = &next_o[r * value_stride..][..value_stride];
            for (o, next) in o.chunks_exact_mut(V::LANES).zip(next.chunks_exact(V::LANES)) {
                V::load_slice(next, 0.0).mul_add(b, V::load_slice(o, 0.0).mul(a)).store_slice(o);
            }
        }
    }
}

/// e^x by the same polynomial as the lanes.
#[inline(always)]
fn exp<V: Vector>(x: f32) -> f32 {
    let mut lanes = [0f32; 16];
    math::exp(V::splat(x)).store_slice(&mut lanes);
    lanes[0]
}

/// Memory of one thread, kept between calls.
#[derive(Default)]
pub(super) struct Scratch(Vec<f32>);

impl Scratch {
    /// The first `n` numbers, from a multiple of 64 bytes on.
    pub fn take(&mut self, n: usize) -> &mut [f32] {
        if self.0.len() < n + 16 {
            self.0 = vec![0.0; n + 16];
        }
        let offset = self.0.as_ptr().align_offset(64);
        &mut self.0[offset..offset + n]
    }
}

per_isa! {
    /// Computes the state of a tile for each chunk of `chunks` alone; `states: [chunks, State::len]`.
    pub(super) fn attend_chunks(tile: &Tile, chunks: Range<usize>, scratch: &mut Scratch, states: &mut [f32])
        = attend_chunks_body
}

per_isa! {
    /// Joins the states of all chunks of a tile, in order, and writes its rows.
    pub(super) fn join(tile: &Tile, scratch: &mut Scratch, states: &[f32], out: Output) = join_body
}

/// Where the rows of a span go: from its first row and the group's first head on.
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub start: crate::rows::Start<f32>,
    /// Numbers from one query's row to the next.
    pub stride: usize,
}

#[inline(always)]
fn attend_chunks_body<V: Vector>(
    tile: &Tile,
    chunks: Range<usize>,
    scratch: &mut Scratch,
    states: &mut [f32],
) {
    let mut work = Work::of(scratch.take(Work::len(tile)), tile);
    work.load_queries(tile);
    for (chunk, state) in chunks.zip(states.chunks_exact_mut(State::len(tile.n_rows, tile.kv.layout()))) {
        attend_chunk::<V>(tile, chunk, &mut work, &mut State::of(state, tile.n_rows));
    }
}

#[inline(always)]
fn join_body<V: Vector>(tile: &Tile, scratch: &mut Scratch, states: &[f32], out: Output) {
    let layout = tile.kv.layout();
    let n = State::len(tile.n_rows, layout);
    let mut total = State::of(scratch.take(n), tile.n_rows);
    total.clear();
    for state in states.chunks_exact(n) {
        total.merge::<V>(state, layout.value_stride);
    }
    write::<V>(tile, &total, out);
}

/// out = o / l, zeros for a row that saw no key.
#[inline(always)]
fn write<V: Vector>(tile: &Tile, state: &State, out: Output) {
    let layout = tile.kv.layout();
    for r in 0..tile.n_rows {
        let row = tile.first_row + r;
        let at = row / tile.group * out.stride + row % tile.group * layout.head_dim;
        // SAFETY: the caller of this module gives each row of the output to one tile only, and keeps it alive.
        let out = unsafe { std::slice::from_raw_parts_mut(out.start.at(at), layout.head_dim) };
        let inverse = V::splat(if state.l[r] == 0.0 { 0.0 } else { 1.0 / state.l[r] });
        for (out, o) in
            out.chunks_mut(V::LANES).zip(state.o[r * layout.value_stride..].chunks_exact(V::LANES))
        {
            V::load_slice(o, 0.0).mul(inverse).store_slice(out);
        }
    }
}

/// What a tile needs while it goes through the keys.
struct Work<'a> {
    /// Queries times the scale, `[n_rows, d]`.
    q: &'a mut [f32],
    /// Scores, then weights, `[n_rows, BLOCK_LEN]`.
    s: &'a mut [f32],
    /// Sums of weights in lanes, `[n_rows, 16]`.
    l: &'a mut [f32],
    /// What the weighted sum so far is multiplied by, `[n_rows]`.
    decay: &'a mut [f32],
}

impl<'a> Work<'a> {
    fn len(tile: &Tile) -> usize {
        tile.n_rows * (tile.kv.head_dim().next_multiple_of(16) + BLOCK_LEN + 16 + 1)
    }

    fn of(memory: &'a mut [f32], tile: &Tile) -> Work<'a> {
        let (s, rest) = memory.split_at_mut(tile.n_rows * BLOCK_LEN);
        let (l, rest) = rest.split_at_mut(tile.n_rows * 16);
        let (decay, rest) = rest.split_at_mut(tile.n_rows);
        Work { q: &mut rest[..tile.n_rows * tile.kv.head_dim()], s, l, decay }
    }

    fn load_queries(&mut self, tile: &Tile) {
        let d = tile.kv.head_dim();
        for (r, row) in self.q.chunks_exact_mut(d).enumerate() {
            let (query, head) = tile.query_and_head(r);
            let start = query * tile.q_stride + (head - tile.kv_head * tile.group) * d;
            for (out, x) in row.iter_mut().zip(&tile.q[start..start + d]) {
                *out = x * tile.options.scale;
            }
        }
    }
}

/// The state of the tile after the visible keys of one chunk alone.
#[inline(always)]
fn attend_chunk<V: Vector>(tile: &Tile, chunk: usize, work: &mut Work, state: &mut State) {
    state.clear();
    work.l.fill(0.0);
    let all = tile.keys();
    let common = tile.common();
    let (start, end) = ((chunk * CHUNK_LEN).max(all.start), ((chunk + 1) * CHUNK_LEN).min(all.end));
    for first in (start / BLOCK_LEN * BLOCK_LEN..end).step_by(BLOCK_LEN) {
        // Keys of the block that some row of the tile sees, counted from the block's first.
        let keys = start.max(first) - first..end.min(first + BLOCK_LEN) - first;
        let pages = keys.start / PAGE_LEN..keys.end.div_ceil(PAGE_LEN);
        let mut memory = [Page::of(tile, first / PAGE_LEN + pages.start); BLOCK_LEN / PAGE_LEN];
        for (i, page) in memory.iter_mut().enumerate().take(pages.len()).skip(1) {
            *page = Page::of(tile, first / PAGE_LEN + pages.start + i);
        }
        let memory = &memory[..pages.len()];
        score_keys::<V>(tile, memory, pages.start * PAGE_LEN, work);
        let columns = pages.start * PAGE_LEN..pages.end * PAGE_LEN;
        let all_visible = common.start <= first + columns.start && common.end >= first + columns.end;
        for r in 0..tile.n_rows {
            let visible = if all_visible { None } else { Some(tile.keys_of(r)) };
            weigh::<V>(tile, r, first, columns.clone(), visible, work, &mut state.m[r]);
        }
        add_values::<V>(tile, memory, pages.start * PAGE_LEN, keys, work, state.o);
    }
    for (l, lanes) in state.l.iter_mut().zip(work.l.chunks_exact(16)) {
        *l = V::load_slice(lanes, 0.0).reduce_add();
    }
}

/// The tile's head's part of a page.
#[derive(Clone, Copy)]
struct Page<'a> {
    bytes: &'a [u8],
    /// Where the same part lies of the page that will be read after the current block of keys. The system's own
    /// prefetching ends with each page of 4096 bytes.
    next: *const u8,
}

impl<'a> Page<'a> {
    #[inline(always)]
    fn of(tile: &Tile<'a>, page: usize) -> Page<'a> {
        let bytes = tile.kv.block(tile.table[page], tile.kv_head);
        let next = tile.table.get(page + BLOCK_LEN / PAGE_LEN);
        Page { bytes, next: next.map_or(bytes, |&next| tile.kv.block(next, tile.kv_head)).as_ptr() }
    }
}

/// How a number is stored in a page.
trait Stored {
    const WIDTH: usize;
    const SCALED: bool;
    /// # Safety
    ///
    /// As for `Vector::load`.
    unsafe fn load<V: Vector>(p: *const u8) -> V;
}

struct F32;
struct F16;
struct Q8;

impl Stored for F32 {
    const WIDTH: usize = 4;
    const SCALED: bool = false;
    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const u8) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(p.cast()) }
    }
}

impl Stored for F16 {
    const WIDTH: usize = 2;
    const SCALED: bool = false;
    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const u8) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_f16(p.cast()) }
    }
}

impl Stored for Q8 {
    const WIDTH: usize = 1;
    const SCALED: bool = true;
    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const u8) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_i8(p.cast()) }
    }
}

/// Scores of all rows with the pages' keys: s = (q · scale) kᵀ, to columns from `column` on of `work.s`.
#[inline(always)]
fn score_keys<V: Vector>(tile: &Tile, pages: &[Page], column: usize, work: &mut Work) {
    match tile.kv.kind() {
        KvType::F32 => score_rows::<V, F32>(tile, pages, column, work),
        KvType::F16 => score_rows::<V, F16>(tile, pages, column, work),
        KvType::Q8 => score_rows::<V, Q8>(tile, pages, column, work),
    }
}

#[inline(always)]
fn score_rows<V: Vector, S: Stored>(tile: &Tile, pages: &[Page], column: usize, work: &mut Work) {
    let layout = tile.kv.layout();
    let d = layout.head_dim;
    let (mut r, n) = (0, tile.n_rows);
    while r < n {
        let q = &work.q[r * d..];
        let s = &mut work.s[r * BLOCK_LEN + column..];
        let left = n - r;
        // As many rows as there are registers for their sums; where rows are few, two pages at once.
        r += match (V::LANES, left) {
            (16, 1) => score_pairs::<V, S, 1>(layout, q, pages, s),
            (16, 2) => score_pairs::<V, S, 2>(layout, q, pages, s),
            (16, 3) => score_pairs::<V, S, 3>(layout, q, pages, s),
            (16, 4 | 5) => score_pairs::<V, S, 4>(layout, q, pages, s),
            (16, 6..12) => score_pages::<V, S, 6>(layout, q, pages, s),
            (16, _) => score_pages::<V, S, 12>(layout, q, pages, s),
            (_, 1) => score_pages::<V, S, 1>(layout, q, pages, s),
            _ => score_pages::<V, S, 2>(layout, q, pages, s),
        };
    }
}

/// `R` rows of `score_keys`, page by page; returns `R`.
#[inline(always)]
fn score_pages<V: Vector, S: Stored, const R: usize>(
    layout: Layout,
    q: &[f32],
    pages: &[Page],
    s: &mut [f32],
) -> usize {
    for (page, column) in pages.iter().zip((0..).step_by(PAGE_LEN)) {
        score::<V, S, R, 1>(layout, q, &[*page], &mut s[column..]);
    }
    R
}

/// `R` rows of `score_keys`, two pages at a time; returns `R`.
#[inline(always)]
fn score_pairs<V: Vector, S: Stored, const R: usize>(
    layout: Layout,
    q: &[f32],
    pages: &[Page],
    s: &mut [f32],
) -> usize {
    let (pairs, rest) = pages.as_chunks::<2>();
    for (pair, column) in pairs.iter().zip((0..).step_by(2 * PAGE_LEN)) {
        score::<V, S, R, 2>(layout, q, pair, &mut s[column..]);
    }
    score_pages::<V, S, R>(layout, q, rest, &mut s[pairs.len() * 2 * PAGE_LEN..])
}

/// `R` rows and `P` pages of `score_keys`.
#[inline(always)]
fn score<V: Vector, S: Stored, const R: usize, const P: usize>(
    layout: Layout,
    q: &[f32],
    pages: &[Page; P],
    s: &mut [f32],
) {
    let d = layout.head_dim;
    let n_vectors = PAGE_LEN / V::LANES;
    assert!(q.len() >= R * d && s.len() >= (R - 1) * BLOCK_LEN + P * PAGE_LEN);
    assert!(pages.iter().all(|page| page.bytes.len() >= layout.n_bytes));
    let mut sums = [[[V::splat(0.0); 4]; P]; R];
    let group_len = if S::SCALED { GROUP_LEN } else { d };
    for group in 0..d.div_ceil(group_len) {
        let mut scales = [[V::splat(1.0); 4]; P];
        if S::SCALED {
            for (page, scales) in pages.iter().zip(&mut scales) {
                for (j, scale) in scales.iter_mut().enumerate().take(n_vectors) {
                    let at = layout.key_scales + 4 * (group * PAGE_LEN + j * V::LANES);
                    // SAFETY: the scales lie within the page's part, `layout` being its own.
                    *scale = unsafe { V::load(page.bytes.as_ptr().add(at).cast()) };
                }
            }
        }
        for i in group * group_len..d.min((group + 1) * group_len) {
            let row = i * PAGE_LEN * S::WIDTH;
            let mut k = [[V::splat(0.0); 4]; P];
            for ((page, k), scales) in pages.iter().zip(&mut k).zip(&scales) {
                if row.is_multiple_of(64) {
                    for line in (0..PAGE_LEN * S::WIDTH).step_by(64) {
                        V::prefetch(page.next.wrapping_add(row + line));
                    }
                }
                for (j, k) in k.iter_mut().enumerate().take(n_vectors) {
                    // SAFETY: d rows of 32 keys begin the page's part.
                    *k = unsafe { S::load(page.bytes.as_ptr().add(row + j * V::LANES * S::WIDTH)) };
                    if S::SCALED {
                        *k = k.mul(scales[j]);
                    }
                }
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: checked above.
                let q = V::splat(unsafe { *q.get_unchecked(r * d + i) });
                for (sums, k) in sums.iter_mut().zip(&k) {
                    for j in 0..n_vectors {
                        sums[j] = q.mul_add(k[j], sums[j]);
                    }
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (p, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate().take(n_vectors) {
                // SAFETY: checked above.
                unsafe { sum.store(s.as_mut_ptr().add(r * BLOCK_LEN + p * PAGE_LEN + j * V::LANES)) };
            }
        }
    }
}

/// Turns the scores of row `r` for `keys` (columns of the block that begins at key `first`) into weights e^(s − m) under
/// the new running maximum `m`, and notes what they sum up to and by what earlier weights decay. If only some keys are
/// visible, `visible` says which.
#[inline(always)]
fn weigh<V: Vector>(
    tile: &Tile,
    r: usize,
    first: usize,
    keys: Range<usize>,
    visible: Option<Range<usize>>,
    work: &mut Work,
    m: &mut f32,
) {
    let s = &mut work.s[r * BLOCK_LEN..][..BLOCK_LEN];
    let options = tile.options;
    if options.soft_cap.is_some() || options.alibi.is_some() || options.relative.is_some() {
        bias::<V>(tile, r, first, keys.clone(), s);
    }
    if let Some(visible) = visible {
        let (low, high) = (visible.start.saturating_sub(first), visible.end.saturating_sub(first));
        let (low, high) = (low.clamp(keys.start, keys.end), high.clamp(keys.start, keys.end));
        s[keys.start..low].fill(f32::NEG_INFINITY);
        s[high..keys.end].fill(f32::NEG_INFINITY);
        if let Some(tree) = &tile.visible.tree {
            let query = tile.query_and_head(r).0;
            for key in (low..high).filter(|key| !tile.visible.sees(tree, query, first + key)) {
                s[key] = f32::NEG_INFINITY;
            }
        }
    }
    let s = &mut s[keys];
    let mut max = V::splat(*m);
    for s in s.chunks_exact(V::LANES) {
        max = V::load_slice(s, 0.0).max(max);
    }
    let max = max.reduce_max();
    work.decay[r] = if max == *m { 1.0 } else { exp::<V>(*m - max) };
    *m = max;
    let lanes = &mut work.l[r * 16..][..V::LANES];
    let max = V::splat(max);
    let mut sum = V::load_slice(lanes, 0.0).mul(V::splat(work.decay[r]));
    for s in s.chunks_exact_mut(V::LANES) {
        let p = math::exp(V::load_slice(s, 0.0).sub(max));
        sum = sum.add(p);
        p.store_slice(s);
    }
    sum.store_slice(lanes);
}

/// Adds what is neither scale nor mask to scores.
#[inline(always)]
fn bias<V: Vector>(tile: &Tile, r: usize, first: usize, keys: Range<usize>, s: &mut [f32]) {
    let (query, head) = tile.query_and_head(r);
    if let Some(cap) = tile.options.soft_cap {
        let (cap, inverse) = (V::splat(cap), V::splat(1.0 / cap));
        for s in s[keys.clone()].chunks_exact_mut(V::LANES) {
            math::tanh(V::load_slice(s, 0.0).mul(inverse)).mul(cap).store_slice(s);
        }
    }
    if let Some(slopes) = tile.options.alibi {
        for key in keys.clone() {
            let (query, at) = (tile.visible.position(query), tile.visible.key_position(first + key));
            s[key] += super::alibi(slopes[head], tile.options.alibi_bf16, query, at);
        }
    }
    if let Some(relative) = tile.options.relative {
        let n = relative.table.len() / tile.options.n_heads;
        let table = &relative.table[head * n..][..n];
        for key in keys {
            let at = relative.zero + tile.visible.key_position(first + key);
            s[key] += table[at.saturating_sub(tile.visible.position(query)).min(n - 1)];
        }
    }
}

/// o = o · decay + p v over `keys`, columns of `work.s`, the first page's key 0 being number `column`.
#[inline(always)]
fn add_values<V: Vector>(
    tile: &Tile,
    pages: &[Page],
    column: usize,
    keys: Range<usize>,
    work: &Work,
    o: &mut [f32],
) {
    match tile.kv.kind() {
        KvType::F32 => add_values_rows::<V, F32>(tile, pages, column, keys, work, o),
        KvType::F16 => add_values_rows::<V, F16>(tile, pages, column, keys, work, o),
        KvType::Q8 => add_values_rows::<V, Q8>(tile, pages, column, keys, work, o),
    }
}

#[inline(always)]
fn add_values_rows<V: Vector, S: Stored>(
    tile: &Tile,
    pages: &[Page],
    column: usize,
    keys: Range<usize>,
    work: &Work,
    o: &mut [f32],
) {
    let layout = tile.kv.layout();
    let (mut r, n) = (0, tile.n_rows);
    let keys = keys.start - column..keys.end - column;
    while r < n {
        let p = &work.s[r * BLOCK_LEN + column..];
        let decay = &work.decay[r..];
        let o = &mut o[r * layout.value_stride..];
        let left = n - r;
        let rows = if V::LANES == 16 { [1, 2, 3, 4, 4, 6][left.min(6) - 1] } else { left.min(2) };
        let mut c = 0;
        while c < layout.value_stride {
            let left = (layout.value_stride - c) / V::LANES;
            let keys = keys.clone();
            c += V::LANES
                * match (rows, left) {
                    (1, 8..) => mix::<V, S, 1, 8>(layout, p, decay, pages, keys, c, o),
                    (2, 8..) if V::LANES == 16 => mix::<V, S, 2, 8>(layout, p, decay, pages, keys, c, o),
                    (1, 4..) => mix::<V, S, 1, 4>(layout, p, decay, pages, keys, c, o),
                    (2, 4..) => mix::<V, S, 2, 4>(layout, p, decay, pages, keys, c, o),
                    (3, 4..) => mix::<V, S, 3, 4>(layout, p, decay, pages, keys, c, o),
                    (4, 4..) => mix::<V, S, 4, 4>(layout, p, decay, pages, keys, c, o),
                    (6, 4..) => mix::<V, S, 6, 4>(layout, p, decay, pages, keys, c, o),
                    (1, _) => mix::<V, S, 1, 1>(layout, p, decay, pages, keys, c, o),
                    (2, _) => mix::<V, S, 2, 1>(layout, p, decay, pages, keys, c, o),
                    (3, _) => mix::<V, S, 3, 1>(layout, p, decay, pages, keys, c, o),
                    (4, _) => mix::<V, S, 4, 1>(layout, p, decay, pages, keys, c, o),
                    _ => mix::<V, S, 6, 1>(layout, p, decay, pages, keys, c, o),
                };
        }
        r += rows;
    }
}

/// `R` rows and `C` vectors of columns, from number `c` on, of `add_values`; returns `C`.
#[inline(always)]
fn mix<V: Vector, S: Stored, const R: usize, const C: usize>(
    layout: Layout,
    p: &[f32],
    decay: &[f32],
    pages: &[Page],
    keys: Range<usize>,
    c: usize,
    o: &mut [f32],
) -> usize {
    let stride = layout.value_stride;
    assert!(c + C * V::LANES <= stride && o.len() >= R * stride && decay.len() >= R);
    assert!(keys.end <= pages.len() * PAGE_LEN && p.len() >= (R - 1) * BLOCK_LEN + keys.end);
    assert!(pages.iter().all(|page| page.bytes.len() >= layout.n_bytes));
    let mut sums = [[V::splat(0.0); C]; R];
    for (r, sums) in sums.iter_mut().enumerate() {
        let decay = V::splat(decay[r]);
        for (j, sum) in sums.iter_mut().enumerate() {
            // SAFETY: checked above.
            *sum = unsafe { V::load(o.as_ptr().add(r * stride + c + j * V::LANES)) }.mul(decay);
        }
    }
    for (page, first) in pages.iter().zip((0..).step_by(PAGE_LEN)) {
        for key in keys.start.max(first)..keys.end.min(first + PAGE_LEN) {
            let slot = key - first;
            let start = layout.values + (slot * stride + c) * S::WIDTH;
            for line in (0..C * V::LANES * S::WIDTH).step_by(64) {
                V::prefetch(page.next.wrapping_add(start + line));
            }
            let mut v = [V::splat(0.0); C];
            for (j, v) in v.iter_mut().enumerate() {
                // SAFETY: the values are `[PAGE_LEN, stride]` numbers.
                *v = unsafe { S::load(page.bytes.as_ptr().add(start + j * V::LANES * S::WIDTH)) };
                if S::SCALED {
                    let group = (c + j * V::LANES) / GROUP_LEN;
                    let at =
                        layout.value_scales + 4 * (slot * layout.n_groups + group.min(layout.n_groups - 1));
                    // SAFETY: each value has `n_groups` scales.
                    *v = v.mul(V::splat(unsafe { page.bytes.as_ptr().add(at).cast::<f32>().read() }));
                }
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: checked above.
                let p = V::splat(unsafe { *p.get_unchecked(r * BLOCK_LEN + key) });
                for (sum, v) in sums.iter_mut().zip(&v) {
                    *sum = p.mul_add(*v, *sum);
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate() {
            // SAFETY: checked above.
            unsafe { sum.store(o.as_mut_ptr().add(r * stride + c + j * V::LANES)) };
        }
    }
    C
}
