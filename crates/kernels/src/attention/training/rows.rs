//! What happens to the scores of a block, row by row.

use super::head::HeadRows;
use crate::arch::math::exp;
use crate::arch::vector::{Vector, per_isa};
use crate::isa::Isa;
use std::ops::Range;

/// Queries of a block and keys of a chunk, and which of them see each other.
#[derive(Clone, Copy)]
pub(super) struct Visible {
    /// The first query.
    pub query: usize,
    /// The first key, counted as the queries are; none for keys that everybody sees.
    pub key: Option<usize>,
    /// Keys of the chunk that are looked at.
    pub n_keys: usize,
    pub window: usize,
    /// Queries that see each other in both directions.
    pub prefix_len: usize,
}

impl Visible {
    /// The keys of the chunk that the block's query `i` sees.
    #[inline(always)]
    pub fn of(&self, i: usize) -> Range<usize> {
        let Some(key) = self.key else { return 0..self.n_keys };
        let next = self.query + i + 1;
        let end = next.max(self.prefix_len).saturating_sub(key).min(self.n_keys);
        let start = next.saturating_sub(self.window).saturating_sub(key).min(end);
        start..end
    }
}

/// The queries' running softmax: greatest score, sum of exponentials relative to it, and output.
pub(super) struct State<'a> {
    /// `[n]`.
    pub max: &'a mut [f32],
    /// `[n]`.
    pub sum: &'a mut [f32],
    /// `[n, d]`.
    pub out: &'a mut [f32],
}

per_isa! {
    /// Makes weights of the scores `[n, stride]`, relative to a maximum that they are taken into; earlier
    /// outputs follow it.
    pub(super) fn weigh(visible: Visible, scores: &mut [f32], stride: usize, state: &mut State) = weigh_body
}

#[inline(always)]
fn weigh_body<V: Vector>(visible: Visible, scores: &mut [f32], stride: usize, state: &mut State) {
    let d = state.out.len() / state.max.len();
    for (i, row) in scores.chunks_mut(stride).take(state.max.len()).enumerate() {
        let row = hide::<V>(row, &visible, i);
        let mut greatest = V::splat(f32::NEG_INFINITY);
        for lanes in row.chunks_exact(V::LANES) {
            greatest = greatest.max(V::load_slice(lanes, 0.0));
        }
        let old = state.max[i];
        let max = greatest.reduce_max().max(old);
        if max == f32::NEG_INFINITY {
            // Nothing is visible yet, or no score is more than that.
            row.fill(0.0);
            continue;
        }
        let (center, mut sum) = (V::splat(max), V::splat(0.0));
        for lanes in row.chunks_exact_mut(V::LANES) {
            let weight = exp(V::load_slice(lanes, 0.0).sub(center));
            sum = sum.add(weight);
            weight.store_slice(lanes);
        }
        if old != max {
            // Of what has been summed up so far; nothing the first time.
            let factor = if old == f32::NEG_INFINITY { 0.0 } else { (old - max).exp() };
            state.sum[i] *= factor;
            let factor = V::splat(factor);
            for lanes in state.out[i * d..(i + 1) * d].chunks_mut(V::LANES) {
                V::load_slice(lanes, 0.0).mul(factor).store_slice(lanes);
            }
        }
        state.sum[i] += sum.reduce_add();
        state.max[i] = max;
    }
}

per_isa! {
    /// Makes weights of the scores and gradients of the scores of those of the weights, `[n, stride]` each:
    /// `p = e^(s − lse)`, `ds = p (dp − delta) scale`; `lse` and `delta` are `[n]`.
    pub(super) fn differentiate(
        visible: Visible,
        scores: &mut [f32],
        gradients: &mut [f32],
        stride: usize,
        lse: &[f32],
        delta: &[f32],
        scale: f32,
    ) = differentiate_body
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn differentiate_body<V: Vector>(
    visible: Visible,
    scores: &mut [f32],
    gradients: &mut [f32],
    stride: usize,
    lse: &[f32],
    delta: &[f32],
    scale: f32,
) {
    let rows = scores.chunks_mut(stride).zip(gradients.chunks_mut(stride));
    for (i, ((scores, gradients), (&lse, &delta))) in rows.zip(lse.iter().zip(delta)).enumerate() {
        let at = aligned::<V>(&visible.of(i));
        gradients[..at.start].fill(0.0);
        gradients[at.end..visible.n_keys.max(at.end)].fill(0.0);
        let scores = hide::<V>(scores, &visible, i);
        let (lse, delta, scale) = (V::splat(lse), V::splat(delta), V::splat(scale));
        let lanes = scores.chunks_exact_mut(V::LANES).zip(gradients[at].chunks_exact_mut(V::LANES));
        for (scores, gradients) in lanes {
            let weight = exp(V::load_slice(scores, 0.0).sub(lse));
            weight.store_slice(scores);
            weight.mul(V::load_slice(gradients, 0.0).sub(delta)).mul(scale).store_slice(gradients);
        }
    }
}

/// The whole vectors around a range.
#[inline(always)]
fn aligned<V: Vector>(range: &Range<usize>) -> Range<usize> {
    if range.is_empty() {
        return 0..0;
    }
    range.start / V::LANES * V::LANES..range.end.next_multiple_of(V::LANES)
}

/// The vectors of a row of scores in which query `i` sees a key, with −∞ where it does not; zeros go to the
/// others.
#[inline(always)]
fn hide<'a, V: Vector>(row: &'a mut [f32], visible: &Visible, i: usize) -> &'a mut [f32] {
    let seen = visible.of(i);
    let at = aligned::<V>(&seen);
    row[..at.start].fill(0.0);
    row[at.end..visible.n_keys.max(at.end)].fill(0.0);
    if !seen.is_empty() {
        row[at.start..seen.start].fill(f32::NEG_INFINITY);
        row[seen.end..at.end].fill(f32::NEG_INFINITY);
    }
    &mut row[at]
}

per_isa! {
    /// Sums of the products of rows of `d` numbers.
    pub(super) fn dots(d: usize, x: &HeadRows, y: &HeadRows, out: &mut [f32]) = dots_body
}

#[inline(always)]
fn dots_body<V: Vector>(d: usize, x: &HeadRows, y: &HeadRows, out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        for rows in [x, y] {
            V::prefetch(rows.data.as_ptr().wrapping_add((i + 16) * rows.stride).cast());
        }
        let [x, y] = [x, y].map(|rows| &rows.data[i * rows.stride..][..d]);
        let mut sum = V::splat(0.0);
        for (x, y) in x.chunks(V::LANES).zip(y.chunks(V::LANES)) {
            sum = V::load_slice(x, 0.0).mul_add(V::load_slice(y, 0.0), sum);
        }
        *out = sum.reduce_add();
    }
}

per_isa! {
    fn add_each(to: &Target, from: &[f32]) = add_body
}

/// Rows that are added to, of `d` numbers each.
struct Target {
    /// The first row.
    start: *mut f32,
    /// Numbers from one row to the next.
    stride: usize,
    d: usize,
}

/// Adds `from`, `[n, d]`, to as many rows of `d` numbers that begin `stride` apart, the first at `start`.
///
/// # Safety
/// These may be read and written, and nobody else uses them.
pub(super) unsafe fn add_rows(isa: Isa, start: *mut f32, stride: usize, d: usize, from: &[f32]) {
    add_each(isa, &Target { start, stride, d }, from);
}

#[inline(always)]
fn add_body<V: Vector>(to: &Target, from: &[f32]) {
    let &Target { start, stride, d } = to;
    for (i, from) in from.chunks_exact(d).enumerate() {
        V::prefetch(start.wrapping_add((i + 16) * stride).cast());
        // SAFETY: the promise of the caller of `add_rows`, who alone makes targets.
        let to = unsafe { std::slice::from_raw_parts_mut(start.add(i * stride), d) };
        for (to, from) in to.chunks_mut(V::LANES).zip(from.chunks(V::LANES)) {
            V::load_slice(to, 0.0).add(V::load_slice(from, 0.0)).store_slice(to);
        }
    }
}
