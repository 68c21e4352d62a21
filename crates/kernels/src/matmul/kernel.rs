//! The micro-kernels, generic over instruction set and type.
//!
//! One order of operations for each output, whatever the tile it is computed in: the integer sum of a block of 32
//! columns is exact; `sum = fma(f32(integer) scale, activation scale, sum)` block after block from column 0 (with two
//! scales a block, `f32(integer 0) scale 0` plus, fused, `f32(integer 1) scale 1`; then minima, fused, one by one);
//! dense types have one chain of fused multiply-adds over the columns. A bias is added last.

use super::format::Format;
use super::layout::GROUP;
use crate::arch::Simd;

/// Rows times tokens of one weight that one call computes.
pub(crate) struct Tile {
    /// The first group's codes, or its dense elements.
    pub codes: *const u8,
    /// The first group's scales.
    pub scales: *const u8,
    /// Bytes from one group's codes to the next.
    pub codes_stride: usize,
    /// Bytes from one group's scales to the next.
    pub scales_stride: usize,
    /// Blocks of 32 columns; dense: steps of one column, or of two for bf16.
    pub n_steps: usize,
    /// Rows, over one or more groups.
    pub n_rows: usize,
    /// Tokens that are stored; at most the tile's.
    pub n_tokens: usize,
    /// Quantized activations of the tile, [block, token, 32]; dense: the first token's row.
    pub acts: *const u8,
    /// Factors of the tile, [block, 3, token]; see [`Factor`](super::activation::Factor).
    pub factors: *const f32,
    /// Dense: bytes from one token's row to the next.
    pub acts_stride: usize,
    /// The first row's output for the first token.
    pub out: *mut f32,
    /// Floats from one token's outputs to the next.
    pub out_stride: usize,
    /// The first row's bias, or null.
    pub bias: *const f32,
}

/// Repeats the body for constants from 0 to below the bound, which is at most 16.
macro_rules! unroll {
    ($i:ident < $bound:expr, $body:block) => {
        unroll!(@ $i, $bound, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $i:ident, $bound:expr, $body:block, $($n:literal)*) => {
        $(if $n < $bound { const $i: usize = $n; $body })*
    };
}

/// How far ahead of the codes in use the next ones are asked for, in bytes.
const PREFETCH: usize = 4096;

/// A tile of a quantized weight.
///
/// # Safety
/// The pointers of `tile` cover what its counts say, and the CPU has `S`.
#[inline(always)]
pub(crate) unsafe fn quantized<S: Simd, F: Format<S>, const TN: usize>(tile: &Tile) {
    let code_bytes = F::LAYOUT.code_bytes();
    let scale_bytes = F::LAYOUT.scale_bytes();
    // SAFETY: the caller's promise covers every address below.
    unsafe {
        for group in 0..tile.n_rows.div_ceil(GROUP) {
            for lane in (0..GROUP).step_by(S::LANES) {
                let mut codes = tile.codes.add(group * tile.codes_stride + 4 * lane);
                let mut scales = tile.scales.add(group * tile.scales_stride);
                let mut acts = tile.acts;
                let mut factors = tile.factors;
                let mut sums = [S::splat_f32(0.0); TN];
                for _ in 0..tile.n_steps / F::BLOCKS {
                    S::prefetch(scales.wrapping_add(PREFETCH * scale_bytes / code_bytes / F::BLOCKS));
                    let decoded = F::scales(scales, lane);
                    for block in 0..F::BLOCKS {
                        unroll!(LINE < code_bytes / 64, {
                            S::prefetch(codes.wrapping_add(PREFETCH + 64 * LINE));
                        });
                        let w = F::codes(codes);
                        let f = F::factors(&decoded, block);
                        unroll!(T < TN, {
                            let a = acts.add(32 * T);
                            let scale = S::splat_f32(*factors.add(T));
                            let first = *factors.add(TN + T);
                            let start = if F::MINS { 0 } else { first.to_bits() };
                            let mut sum = S::splat(start);
                            let product = if F::HALVES {
                                let second = *factors.add(2 * TN + T);
                                let mut other = S::splat(if F::MINS { 0 } else { second.to_bits() });
                                unroll!(J < 4, {
                                    sum = dot::<S, F>(sum, w[J], a.add(4 * J));
                                    other = dot::<S, F>(other, w[4 + J], a.add(16 + 4 * J));
                                });
                                let product = S::mul(S::to_f32(sum), f.scale[0]);
                                S::mul_add(S::to_f32(other), f.scale[1], product)
                            } else {
                                unroll!(J < 8, {
                                    sum = dot::<S, F>(sum, w[J], a.add(4 * J));
                                });
                                S::mul(S::to_f32(sum), f.scale[0])
                            };
                            sums[T] = S::mul_add(product, scale, sums[T]);
                            if F::MINS {
                                sums[T] = S::mul_add(f.min[0], S::splat_f32(first), sums[T]);
                                if F::HALVES {
                                    let second = *factors.add(2 * TN + T);
                                    sums[T] = S::mul_add(f.min[1], S::splat_f32(second), sums[T]);
                                }
                            }
                        });
                        codes = codes.add(code_bytes);
                        acts = acts.add(32 * TN);
                        factors = factors.add(3 * TN);
                    }
                    scales = scales.add(scale_bytes);
                }
                let row = group * GROUP + lane;
                unroll!(T < TN, {
                    store::<S>(tile, row, T, sums[T]);
                });
            }
        }
    }
}

#[inline(always)]
unsafe fn dot<S: Simd, F: Format<S>>(sum: S::I, w: S::I, a: *const u8) -> S::I {
    // SAFETY: the caller's promise.
    unsafe { if F::WIDE { S::dot_wide(sum, w, a) } else { S::dot(sum, w, a) } }
}

/// Stores a vector of rows of one token, those that exist, with the bias added.
#[inline(always)]
unsafe fn store<S: Simd>(tile: &Tile, row: usize, token: usize, mut sum: S::F) {
    if token >= tile.n_tokens || row >= tile.n_rows {
        return;
    }
    let n = (tile.n_rows - row).min(S::LANES);
    // SAFETY: the caller's promise: `n` outputs and biases exist from `row` on.
    unsafe {
        let out = tile.out.add(token * tile.out_stride + row);
        if n == S::LANES {
            if !tile.bias.is_null() {
                sum = S::add(sum, S::load_f32(tile.bias.add(row).cast()));
            }
            return S::store_f32(out, sum);
        }
        let mut lanes = [0.0; GROUP];
        S::store_f32(lanes.as_mut_ptr(), sum);
        for (i, lane) in lanes.iter().enumerate().take(n) {
            *out.add(i) = if tile.bias.is_null() { *lane } else { *lane + *tile.bias.add(row + i) };
        }
    }
}

/// A type without blocks.
pub(crate) trait Dense<S: Simd> {
    /// Bytes of a step's weights for sixteen rows; a step is 4 bytes of activations.
    const STEP_BYTES: usize;
    /// A vector of a step's weights.
    type W: Copy;

    /// Loads the weights of a step from `at`, whose lanes begin with `lane`.
    ///
    /// # Safety
    /// The step is readable and the CPU has `S`.
    unsafe fn load(at: *const u8, lane: usize) -> Self::W;

    /// `sum` plus the step's products with the activations at `a`.
    ///
    /// # Safety
    /// Four bytes are readable at `a` and the CPU has `S`.
    unsafe fn dot(sum: S::F, w: Self::W, a: *const u8) -> S::F;
}

pub(crate) struct F32;
pub(crate) struct F16;
pub(crate) struct BF16;

impl<S: Simd> Dense<S> for F32 {
    const STEP_BYTES: usize = 64;
    type W = S::F;

    #[inline(always)]
    unsafe fn load(at: *const u8, lane: usize) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { S::load_f32(at.add(4 * lane)) }
    }

    #[inline(always)]
    unsafe fn dot(sum: S::F, w: S::F, a: *const u8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { S::mul_add(w, S::splat_f32(a.cast::<f32>().read_unaligned()), sum) }
    }
}

impl<S: Simd> Dense<S> for F16 {
    const STEP_BYTES: usize = 32;
    type W = S::F;

    #[inline(always)]
    unsafe fn load(at: *const u8, lane: usize) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { S::load_f16(at.add(2 * lane)) }
    }

    #[inline(always)]
    unsafe fn dot(sum: S::F, w: S::F, a: *const u8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { S::mul_add(w, S::splat_f32(a.cast::<f32>().read_unaligned()), sum) }
    }
}

impl<S: Simd> Dense<S> for BF16 {
    const STEP_BYTES: usize = 64;
    type W = S::I;

    #[inline(always)]
    unsafe fn load(at: *const u8, lane: usize) -> S::I {
        // SAFETY: the caller's promise.
        unsafe { S::load(at.add(4 * lane)) }
    }

    #[inline(always)]
    unsafe fn dot(sum: S::F, w: S::I, a: *const u8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { S::dot_bf16(sum, w, a) }
    }
}

/// A tile of a dense weight: four groups at a time, then one by one.
///
/// # Safety
/// The pointers of `tile` cover what its counts say, and the CPU has `S`.
#[inline(always)]
pub(crate) unsafe fn dense<S: Simd, D: Dense<S>, const TN: usize>(tile: &Tile) {
    let n_groups = tile.n_rows.div_ceil(GROUP);
    let mut group = 0;
    // SAFETY: the caller's promise; all groups are below `n_groups`.
    unsafe {
        while group + 4 <= n_groups {
            dense_groups::<S, D, 4, TN>(tile, group);
            group += 4;
        }
        while group < n_groups {
            dense_groups::<S, D, 1, TN>(tile, group);
            group += 1;
        }
    }
}

#[inline(always)]
unsafe fn dense_groups<S: Simd, D: Dense<S>, const R: usize, const TN: usize>(tile: &Tile, group: usize) {
    // SAFETY: the caller's promise covers every address below.
    unsafe {
        for lane in (0..GROUP).step_by(S::LANES) {
            let mut codes = tile.codes.add(group * tile.codes_stride);
            // Tokens beyond the last repeat it; their results are not stored.
            let mut acts = [tile.acts; TN];
            unroll!(T < TN, {
                acts[T] = tile.acts.add(T.min(tile.n_tokens - 1) * tile.acts_stride);
            });
            let mut sums = [[S::splat_f32(0.0); TN]; R];
            for step in 0..tile.n_steps {
                let mut w = [D::load(codes, lane); R];
                unroll!(G < R, {
                    let at = codes.add(G * tile.codes_stride);
                    S::prefetch(at.wrapping_add(PREFETCH / R));
                    w[G] = D::load(at, lane);
                });
                unroll!(T < TN, {
                    unroll!(G < R, {
                        sums[G][T] = D::dot(sums[G][T], w[G], acts[T].add(4 * step));
                    });
                });
                codes = codes.add(D::STEP_BYTES);
            }
            unroll!(T < TN, {
                unroll!(G < R, {
                    store::<S>(tile, (group + G) * GROUP + lane, T, sums[G][T]);
                });
            });
        }
    }
}

/// A tile's kernel; see [`quantized`] and [`dense`] for its contract.
pub(crate) type TileFn = unsafe fn(&Tile);

/// The kernels of one type for one instruction set: tokens in a tile, ascending from 1, and the function.
pub(crate) type Tiles = &'static [(usize, TileFn)];

/// Makes the module's `tiles(dtype)` and its activation functions for one instruction set.
macro_rules! entries {
    ($simd:ty, [$($tn:literal)*], [$($dense_tn:literal)*] $(, $features:literal)?) => {
        use crate::dtype::DType;
        use crate::matmul::format::{self, Format};
        use crate::matmul::kernel::{self, Dense, Tile, Tiles};

        $(#[target_feature(enable = $features)])?
        unsafe fn quantized<F: Format<$simd>, const TN: usize>(tile: &Tile) {
            // SAFETY: the caller's promise.
            unsafe { kernel::quantized::<$simd, F, TN>(tile) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn dense<D: Dense<$simd>, const TN: usize>(tile: &Tile) {
            // SAFETY: the caller's promise.
            unsafe { kernel::dense::<$simd, D, TN>(tile) }
        }

        /// Quantizes one token's row; see [`crate::matmul::activation::quantize_row`].
        ///
        /// # Safety
        /// The CPU has the instruction set.
        $(#[target_feature(enable = $features)])?
        pub(crate) unsafe fn quantize_row(x: &[f32], out: &mut crate::matmul::activation::RowOut) {
            crate::matmul::activation::quantize_row(x, out)
        }

        /// Interleaves rows; see [`crate::matmul::packed::pack_group`].
        ///
        /// # Safety
        /// The CPU has the instruction set.
        $(#[target_feature(enable = $features)])?
        pub(crate) unsafe fn pack_group(rows: &crate::matmul::packed::Rows, codes: &mut [u8], scales: &mut [u8]) {
            crate::matmul::packed::pack_group(rows, codes, scales)
        }

        /// The kernels of a type.
        pub(crate) fn tiles(dtype: DType) -> Tiles {
            macro_rules! q { ($f:ty) => { &[$(($tn, quantized::<$f, $tn>)),*] } }
            macro_rules! d { ($f:ty) => { &[$(($dense_tn, dense::<$f, $dense_tn>)),*] } }
            match dtype {
                DType::F32 => d!(kernel::F32),
                DType::F16 => d!(kernel::F16),
                DType::BF16 => d!(kernel::BF16),
                DType::Q4_0 => q!(format::Q4_0),
                DType::Q4_1 => q!(format::Q4_1),
                DType::Q5_0 => q!(format::Q5_0),
                DType::Q5_1 => q!(format::Q5_1),
                DType::Q8_0 => q!(format::Q8_0),
                DType::Q2K => q!(format::Q2K),
                DType::Q3K => q!(format::Q3K),
                DType::Q4K => q!(format::Q4K),
                DType::Q5K => q!(format::Q5K),
                DType::Q6K => q!(format::Q6K),
                DType::Iq4Nl => q!(format::Iq4Nl),
            }
        }
    };
}
pub(crate) use entries;
