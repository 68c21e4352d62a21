//! Products of activations with packed weights: `out = x Wᵀ + bias`.
//!
//! Quantized weights meet activations that are quantized to signed bytes, with a scale for each 32 columns; f32 and
//! f16 weights meet the activations as they are, bf16 weights meet them rounded to bf16. Rows are interleaved by
//! sixteen, so that a vector lane is a row and no sum is ever taken across lanes ([`kernel`], [`format`]).
//!
//! A result depends on the row and the token alone: not on the number of tokens, of threads, or on the place in the
//! batch, to the bit. Between instruction sets results differ by the rounding of fused and unfused products only.
//!
//! What it does not do: split the columns of one output between threads.

pub(crate) mod activation;
pub(crate) mod aligned;
pub(crate) mod format;
pub(crate) mod kernel;
mod layout;
pub(crate) mod packed;

pub use packed::Packed;

use crate::dtype::DType;
use crate::half;
use crate::threads;
use activation::{Factor, RowOut};
use aligned::Aligned;
use kernel::{Kernels, Tile, Tiles, WIDTH};
use layout::GROUP;
use std::cell::RefCell;

/// Runs an expression with the module of the active instruction set under a name.
macro_rules! on_isa {
    ($arch:ident => $body:expr) => {
        match $crate::isa::active() {
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx512Vnni => {
                use $crate::arch::avx512::vnni as $arch;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx512 => {
                use $crate::arch::avx512::plain as $arch;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx2Vnni => {
                use $crate::arch::avx2::vnni as $arch;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx2 => {
                use $crate::arch::avx2::plain as $arch;
                $body
            }
            _ => {
                use $crate::arch::scalar as $arch;
                $body
            }
        }
    };
}
use crate::quant::dequantize;
pub(crate) use kernel::entries;

/// Multiplies `x`, [T, K], with several weights, [N, K] each, that share it: `out`, [T, ΣN], gets their outputs side
/// by side, plus `bias`, [ΣN].
///
/// Panics if `weights` is empty, their columns differ, or the lengths do not fit.
#[track_caller]
pub fn matmul(x: &[f32], weights: &[&Packed], bias: Option<&[f32]>, out: &mut [f32]) {
    let n_cols = weights.first().expect("a product with no weight").n_cols();
    for weight in weights {
        assert_eq!(weight.n_cols(), n_cols, "columns of weights that share their input");
    }
    let n_rows: usize = weights.iter().map(|weight| weight.n_rows()).sum();
    assert_eq!(x.len() % n_cols, 0, "{} inputs in rows of {n_cols}", x.len());
    let n_tokens = x.len() / n_cols;
    assert_eq!(out.len(), n_tokens * n_rows, "outputs of {n_tokens} tokens and {n_rows} rows");
    if let Some(bias) = bias {
        assert_eq!(bias.len(), n_rows, "biases");
    }
    if n_tokens == 0 || n_rows == 0 {
        return;
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.prepare(x, n_cols, weights);
        multiply(x, weights, bias, Output { start: out.as_mut_ptr(), stride: n_rows }, n_tokens, scratch);
    });
}

thread_local! {
    /// The calling thread's activations, kept from call to call.
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { codes: Aligned::EMPTY, factors: Vec::new(), bf16: Vec::new() }) };
}

/// The activations in the forms that the weights of a call ask for.
struct Scratch {
    /// Codes, tile after tile.
    codes: Aligned,
    /// Numbers of each factor that is wanted, tile after tile.
    factors: Vec<(Factor, Aligned)>,
    /// Activations rounded to bf16, rows filled up to an even length.
    bf16: Vec<u16>,
}

/// Products of a row and a token above which other threads are asked to help; about a microsecond.
const PARALLEL_PRODUCTS: usize = 1 << 16;

impl Scratch {
    fn prepare(&mut self, x: &[f32], n_cols: usize, weights: &[&Packed]) {
        let mut n_factors = 0;
        for weight in weights {
            let Some(factor) = Factor::of(weight.dtype()) else { continue };
            if self.factors[..n_factors].iter().any(|known| known.0 == factor) {
                continue;
            }
            if n_factors == self.factors.len() {
                self.factors.push((factor, Aligned::EMPTY));
            }
            self.factors[n_factors].0 = factor;
            n_factors += 1;
        }
        if n_factors > 0 {
            self.quantize(x, n_cols, n_factors);
        }
        if weights.iter().any(|weight| weight.dtype() == DType::BF16) {
            let stride = n_cols.next_multiple_of(2);
            self.bf16.resize(x.len() / n_cols * stride, 0);
            if stride == n_cols {
                half::narrow_bf16(x, &mut self.bf16);
                return;
            }
            for (row, x) in self.bf16.chunks_exact_mut(stride).zip(x.chunks_exact(n_cols)) {
                half::f32_slice_to_bf16(x, &mut row[..n_cols]);
                row[n_cols..].fill(0);
            }
        }
    }

    fn quantize(&mut self, x: &[f32], n_cols: usize, n_factors: usize) {
        let n_tokens = x.len() / n_cols;
        let spans = Tiling::of(n_tokens).spans(n_tokens);
        let n_places = spans.clone().last().map_or(0, |span| span.first_place + span.n_places);
        let codes = &mut self.codes;
        codes.reserve(n_places * n_cols);
        let factor_bytes = n_cols / 32 * 12;
        for (_, numbers) in &mut self.factors[..n_factors] {
            numbers.reserve(n_places * factor_bytes);
        }
        let to_codes = Shared(codes.as_mut_ptr());
        let mut to_factors = [(Factor::Min, Shared(std::ptr::null_mut())); 8];
        for (to, (factor, numbers)) in to_factors.iter_mut().zip(&mut self.factors[..n_factors]) {
            *to = (*factor, Shared(numbers.as_mut_ptr()));
        }
        let to_factors = &to_factors[..n_factors];
        // The threads share the tokens by number; a token's place follows from its span.
        let part_tokens =
            if x.len() < PARALLEL_PRODUCTS { n_tokens } else { n_tokens.div_ceil(4 * threads::threads()) };
        threads::run(n_tokens.div_ceil(part_tokens), |part| {
            let to_codes = &to_codes;
            let tokens = part * part_tokens..((part + 1) * part_tokens).min(n_tokens);
            for span in spans.clone().filter(|s| s.first_token < tokens.end && s.end() > tokens.start) {
                for token in tokens.start.max(span.first_token)..tokens.end.min(span.end()) {
                    // SAFETY: the buffers have room for every place; each token is written by one part.
                    unsafe {
                        let mut factors = [(Factor::Min, std::ptr::null_mut()); 8];
                        for (to, (factor, start)) in factors.iter_mut().zip(to_factors) {
                            *to = (*factor, start.0.add(span.first_place * factor_bytes).cast());
                        }
                        let mut row = RowOut {
                            token: token - span.first_token,
                            n_tokens: span.n_places,
                            codes: to_codes.0.add(span.first_place * n_cols).cast(),
                            factors: &factors[..n_factors],
                        };
                        let x = &x[token * n_cols..][..n_cols];
                        on_isa!(arch => arch::quantize_row(x, &mut row));
                    }
                }
            }
        });
    }
}

/// A pointer that the parts of a fork-join write through, each to its own place.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: the parts write disjoint places.
unsafe impl<T> Sync for Shared<T> {}

/// The kernels of a type for the active instruction set.
fn kernels(dtype: DType) -> Kernels {
    on_isa!(arch => arch::kernels(dtype))
}

/// How quantized activations are cut into tiles: as the kernels of packed weights want them, or, for many tokens, by
/// [`WIDTH`].
#[derive(Clone, Copy)]
enum Tiling {
    Packed(Tiles),
    Unpacked,
}

/// Largest tiles of packed weights up to which they are used as they are: unpacking costs as much as some 20 tokens.
const MANY: usize = 8;

impl Tiling {
    fn of(n_tokens: usize) -> Tiling {
        let tiles = kernels(DType::Q8_0).direct;
        if n_tokens <= MANY * tiles[tiles.len() - 1].0 { Tiling::Packed(tiles) } else { Tiling::Unpacked }
    }

    fn spans(self, n_tokens: usize) -> impl Iterator<Item = Span> + Clone {
        let sizes: Tiles = match self {
            Tiling::Packed(tiles) => tiles,
            Tiling::Unpacked => &[(WIDTH, |_| {})],
        };
        spans(n_tokens, sizes)
    }
}

/// Tokens that are computed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first_token: usize,
    n_tokens: usize,
    /// Tokens before it, counting those that only fill tiles up.
    first_place: usize,
    /// Tokens of the tile.
    n_places: usize,
    /// Which of the tiles.
    tile: usize,
}

impl Span {
    fn end(self) -> usize {
        self.first_token + self.n_tokens
    }
}

/// Cuts the tokens into tiles: the largest as often as it fits, then the smallest that holds the rest.
fn spans(n_tokens: usize, tiles: Tiles) -> impl Iterator<Item = Span> + Clone {
    let (mut first_token, mut first_place) = (0, 0);
    std::iter::from_fn(move || {
        let left = n_tokens - first_token;
        if left == 0 {
            return None;
        }
        let tile = tiles.iter().position(|&(n, _)| n >= left).unwrap_or(tiles.len() - 1);
        let n_places = tiles[tile].0;
        let n_tokens = n_places.min(left);
        let span = Span { first_token, n_tokens, first_place, n_places, tile };
        first_token += n_tokens;
        first_place += n_places;
        Some(span)
    })
}

/// Where outputs go.
#[derive(Clone, Copy)]
struct Output {
    start: *mut f32,
    /// Outputs of a token.
    stride: usize,
}

// SAFETY: the parts of a fork-join write disjoint rows.
unsafe impl Sync for Output {}

/// Neighbouring groups of one weight, the unit of work of a thread.
struct Part {
    weight: usize,
    groups: std::ops::Range<usize>,
    /// Outputs of the weights before it.
    first_output: usize,
}

fn multiply(
    x: &[f32],
    weights: &[&Packed],
    bias: Option<&[f32]>,
    out: Output,
    n_tokens: usize,
    scratch: &Scratch,
) {
    let n_cols = weights[0].n_cols();
    let n_threads = if n_tokens * out.stride * n_cols < PARALLEL_PRODUCTS { 1 } else { threads::threads() };
    let part_len = part_len(weights, n_threads);
    let part_groups = |weight: &Packed| {
        // Dense kernels take four groups at a time, those of many tokens two.
        let unit = if weight.dtype().is_quantized() { 2 } else { 4 };
        (part_len / (GROUP * n_cols)).next_multiple_of(unit).max(unit)
    };
    let n_parts = |weight: &&Packed| weight.n_rows().div_ceil(GROUP).div_ceil(part_groups(weight));
    let find = |mut part: usize| {
        let mut first_output = 0;
        for (i, weight) in weights.iter().enumerate() {
            let n = n_parts(weight);
            if part < n {
                let groups = part_groups(weight);
                let end = ((part + 1) * groups).min(weight.n_rows().div_ceil(GROUP));
                return Part { weight: i, groups: part * groups..end, first_output };
            }
            part -= n;
            first_output += weight.n_rows();
        }
        unreachable!("fewer parts than counted")
    };
    let total = weights.iter().map(n_parts).sum();
    let scratch = ScratchView::of(x, scratch);
    let work = |part: usize| {
        let part = find(part);
        // SAFETY: the parts cover the rows once each.
        unsafe { multiply_part(&part, weights[part.weight], bias, out, n_tokens, &scratch) }
    };
    if n_threads == 1 { (0..total).for_each(work) } else { threads::run(total, work) }
}

/// Elements of weights in a part: a few parts for each thread, yet no more than the second-level cache holds while
/// a part's rows, unpacked, meet tile after tile of tokens.
fn part_len(weights: &[&Packed], n_threads: usize) -> usize {
    let total: usize = weights.iter().map(|weight| weight.n_rows() * weight.n_cols()).sum();
    (total / (16 * n_threads)).clamp(32 << 10, 256 << 10)
}

/// The activations as the parts see them.
struct ScratchView<'a> {
    x: *const f32,
    codes: *const u8,
    factors: &'a [(Factor, Aligned)],
    bf16: *const u16,
}

// SAFETY: nobody writes the activations while the parts run.
unsafe impl Sync for ScratchView<'_> {}

impl<'a> ScratchView<'a> {
    fn of(x: &[f32], scratch: &'a Scratch) -> ScratchView<'a> {
        let codes = scratch.codes.as_ptr();
        ScratchView { x: x.as_ptr(), codes, factors: &scratch.factors, bf16: scratch.bf16.as_ptr() }
    }
}

/// Computes a part's rows for all tokens, tile after tile.
///
/// # Safety
/// Nobody else writes the outputs of these rows; `scratch` holds the activations of `n_tokens` tokens.
unsafe fn multiply_part(
    part: &Part,
    weight: &Packed,
    bias: Option<&[f32]>,
    out: Output,
    n_tokens: usize,
    scratch: &ScratchView,
) {
    let (dtype, n_cols) = (weight.dtype(), weight.n_cols());
    let (codes, scales, codes_stride, scales_stride) = weight.planes(part.groups.start);
    let first_row = part.groups.start * GROUP;
    let output = part.first_output + first_row;
    let kernels = kernels(dtype);
    let factor = Factor::of(dtype);
    let factors =
        scratch.factors.iter().find(|(f, _)| Some(*f) == factor).map_or(std::ptr::null(), |f| f.1.as_ptr());
    // A tile that begins with some token, in which the activations are still to be filled in.
    let tile = |token: usize, n_tokens: usize| Tile {
        codes,
        scales,
        codes_stride,
        scales_stride,
        n_steps: n_cols / 32,
        n_rows: (part.groups.end * GROUP).min(weight.n_rows()) - first_row,
        n_tokens,
        acts: std::ptr::null(),
        factors: std::ptr::null(),
        acts_stride: 0,
        out: out.start.wrapping_add(token * out.stride + output),
        out_stride: out.stride,
        bias: bias.map_or(std::ptr::null(), |bias| bias[output..].as_ptr()),
    };
    // Where the quantized activations of a span begin.
    let quantized = |span: &Span| {
        let factors = factors.wrapping_add(span.first_place * (n_cols / 32) * 12);
        (scratch.codes.wrapping_add(span.first_place * n_cols), factors.cast::<f32>())
    };
    if !dtype.is_quantized() {
        let (x, stride, n_steps) = if dtype == DType::BF16 {
            let stride = n_cols.next_multiple_of(2);
            (scratch.bf16.cast::<u8>(), 2 * stride, stride / 2)
        } else {
            (scratch.x.cast(), 4 * n_cols, n_cols)
        };
        for span in spans(n_tokens, kernels.direct) {
            let acts = x.wrapping_add(span.first_token * stride);
            let tile = Tile { acts, acts_stride: stride, n_steps, ..tile(span.first_token, span.n_tokens) };
            // SAFETY: the tile's counts are those of the weight and of the activations prepared for it.
            unsafe { kernels.direct[span.tile].1(&tile) };
        }
        return;
    }
    let tiling = Tiling::of(n_tokens);
    let (Tiling::Unpacked, Some(unpack)) = (tiling, kernels.unpack) else {
        for span in tiling.spans(n_tokens) {
            let (acts, factors) = quantized(&span);
            let tile = Tile { acts, factors, ..tile(span.first_token, span.n_tokens) };
            // SAFETY: as above.
            unsafe { kernels.direct[span.tile].1(&tile) };
        }
        return;
    };
    UNPACKED.with_borrow_mut(|(to_codes, to_factors)| {
        // Kernels take two groups; a second that does not exist is whatever was there before.
        let n_groups = part.groups.len().next_multiple_of(2);
        let (codes_step, factors_step) =
            (n_cols / 32 * kernel::UNPACKED_CODES, n_cols / 32 * kernel::UNPACKED_FACTORS);
        to_codes.reserve(n_groups * codes_step);
        to_factors.reserve(n_groups * factors_step);
        for group in 0..part.groups.len() {
            let (codes, scales) =
                (codes.wrapping_add(group * codes_stride), scales.wrapping_add(group * scales_stride));
            // SAFETY: the group is the weight's, and the buffers have just been given room for it.
            unsafe {
                let to_codes = to_codes.as_mut_ptr().add(group * codes_step);
                let to_factors = to_factors.as_mut_ptr().add(group * factors_step);
                unpack(codes, scales, n_cols / 32, to_codes, to_factors.cast());
            }
        }
        for span in tiling.spans(n_tokens) {
            let (acts, factors) = quantized(&span);
            for piece in spans(span.n_tokens, kernels.unpacked) {
                let tile = Tile {
                    codes: to_codes.as_ptr(),
                    scales: to_factors.as_ptr(),
                    codes_stride: codes_step,
                    scales_stride: factors_step,
                    acts: acts.wrapping_add(32 * piece.first_token),
                    factors: factors.wrapping_add(piece.first_token),
                    ..tile(span.first_token + piece.first_token, piece.n_tokens)
                };
                // SAFETY: as above; a piece lies inside its span, since the sizes of pieces divide its width.
                unsafe { kernels.unpacked[piece.tile].1(&tile) };
            }
        }
    });
}

thread_local! {
    /// Each thread's unpacked codes and factors, kept from call to call.
    static UNPACKED: RefCell<(Aligned, Aligned)> = const { RefCell::new((Aligned::EMPTY, Aligned::EMPTY)) };
}

#[cfg(test)]
mod tests;
