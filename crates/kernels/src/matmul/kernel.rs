//! The micro-kernels, generic over instruction set and type.
//!
//! One order of operations for each output, whatever the tile it is computed in: the integer sum of a block of 32
//! columns is exact; `sum = fma(f32(integer) scale, activation scale, sum)` block after block from column 0 (with two
//! scales a block, `f32(integer 0) scale 0` plus, fused, `f32(integer 1) scale 1`; then minima, fused, one by one);
//! dense types have one chain of fused multiply-adds over the columns. A bias is added last.

// The lints read copies of an unrolled body that are dead, beyond its bound, and the first as if it were alone.
#![allow(clippy::out_of_bounds_indexing, clippy::unnecessary_min_or_max)]

use super::format::Format;
use super::layout::GROUP;
use crate::arch::{Simd, unroll};

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
    // As many blocks ahead as for the codes.
    let scales_ahead = (PREFETCH / code_bytes).div_ceil(F::BLOCKS) * scale_bytes;
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
                    unroll!(LINE < scale_bytes.div_ceil(64), {
                        S::prefetch(scales.wrapping_add(scales_ahead + 64 * LINE));
                    });
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
                            } else if TN == 1 {
                                // Two chains, for the latency; integer sums are exact in any order.
                                let mut other = S::splat(0);
                                unroll!(J < 4, {
                                    sum = dot::<S, F>(sum, w[J], a.add(4 * J));
                                    other = dot::<S, F>(other, w[4 + J], a.add(16 + 4 * J));
                                });
                                S::mul(S::to_f32(S::add_i32(sum, other)), f.scale[0])
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
    // SAFETY: the caller's promise: as many outputs and biases exist from `row` on as rows.
    unsafe {
        let out = tile.out.add(token * tile.out_stride + row);
        let bias = if tile.bias.is_null() { tile.bias } else { tile.bias.add(row) };
        if tile.n_rows - row >= S::LANES {
            if !bias.is_null() {
                sum = S::add(sum, S::load_f32(bias.cast()));
            }
            S::store_f32(out, sum);
        } else {
            let mut lanes = [0.0; GROUP];
            S::store_f32(lanes.as_mut_ptr(), sum);
            store_some(&lanes, tile.n_rows - row, bias, out);
        }
    }
}

/// Stores the first `n` lanes, with the bias added if it is not null.
///
/// # Safety
/// `n` outputs and biases exist.
#[inline(never)]
unsafe fn store_some(lanes: &[f32; GROUP], n: usize, bias: *const f32, out: *mut f32) {
    for (i, lane) in lanes.iter().enumerate().take(n) {
        // SAFETY: the caller's promise.
        unsafe { *out.add(i) = if bias.is_null() { *lane } else { *lane + *bias.add(i) } };
    }
}

/// Tokens in a tile of activations that meets unpacked weights; kernels take a part of it.
pub(crate) const WIDTH: usize = 12;

/// Bytes of a block of 32 columns of a group of unpacked weights: codes, and factors (two scales, two minima).
pub(crate) const UNPACKED_CODES: usize = 8 * VECTOR;
pub(crate) const UNPACKED_FACTORS: usize = 4 * VECTOR;

/// Bytes of sixteen lanes.
pub(crate) const VECTOR: usize = 64;

/// Unpacks `n_blocks` blocks of a group to one byte a code and one float a factor, for many tokens.
///
/// # Safety
/// The planes are readable, [`UNPACKED_CODES`] and [`UNPACKED_FACTORS`] bytes a block writable, and the CPU has `S`.
#[inline(always)]
pub(crate) unsafe fn unpack<S: Simd, F: Format<S>>(
    mut codes: *const u8,
    mut scales: *const u8,
    n_blocks: usize,
    mut to_codes: *mut u8,
    mut to_factors: *mut f32,
) {
    let code_bytes = F::LAYOUT.code_bytes();
    // SAFETY: the caller's promise.
    unsafe {
        for _ in 0..n_blocks / F::BLOCKS {
            for lane in (0..GROUP).step_by(S::LANES) {
                let decoded = F::scales(scales, lane);
                for block in 0..F::BLOCKS {
                    let from = codes.add(block * code_bytes);
                    S::prefetch(from.wrapping_add(PREFETCH));
                    let w = F::codes(from.add(4 * lane));
                    unroll!(J < 8, {
                        S::store(to_codes.add(block * UNPACKED_CODES + J * VECTOR + 4 * lane), w[J]);
                    });
                    let f = F::factors(&decoded, block);
                    let to = to_factors.add(block * UNPACKED_FACTORS / 4 + lane);
                    S::store_f32(to, f.scale[0]);
                    if F::HALVES {
                        S::store_f32(to.add(GROUP), f.scale[1]);
                    }
                    if F::MINS {
                        S::store_f32(to.add(2 * GROUP), f.min[0]);
                        S::store_f32(to.add(3 * GROUP), f.min[1]);
                    }
                }
            }
            codes = codes.add(F::BLOCKS * code_bytes);
            scales = scales.add(F::LAYOUT.scale_bytes());
            to_codes = to_codes.add(F::BLOCKS * UNPACKED_CODES);
            to_factors = to_factors.add(F::BLOCKS * UNPACKED_FACTORS / 4);
        }
    }
}

/// Two groups of an unpacked weight that meet some tokens of a tile of [`WIDTH`].
pub(crate) struct Pair {
    /// Codes of the groups, from the first lane wanted.
    pub codes: [*const u8; 2],
    /// Factors of the groups, from the first lane wanted.
    pub scales: [*const u8; 2],
    /// The first token's activations.
    pub acts: *const u8,
    /// The first token's factors.
    pub factors: *const f32,
    /// Blocks of 32 columns; at least one.
    pub n_steps: usize,
}

/// A tile of an unpacked weight: `TN` tokens of a tile of [`WIDTH`], two groups at a time; their number is even.
///
/// # Safety
/// The pointers of `tile` cover what its counts say, and the CPU has `S`.
#[inline(always)]
pub(crate) unsafe fn unpacked<
    S: Simd,
    const WIDE: bool,
    const HALVES: bool,
    const MINS: bool,
    const TN: usize,
>(
    tile: &Tile,
) {
    // SAFETY: the caller's promise covers every address below.
    unsafe {
        for group in (0..tile.n_rows.div_ceil(GROUP)).step_by(2) {
            for lane in (0..GROUP).step_by(S::LANES) {
                let codes = tile.codes.add(group * tile.codes_stride + 4 * lane);
                let scales = tile.scales.add(group * tile.scales_stride + 4 * lane);
                let pair = Pair {
                    codes: [codes, codes.add(tile.codes_stride)],
                    scales: [scales, scales.add(tile.scales_stride)],
                    acts: tile.acts,
                    factors: tile.factors,
                    n_steps: tile.n_steps,
                };
                let sums = S::unpacked_sums::<WIDE, HALVES, MINS, TN>(&pair);
                unroll!(T < TN, {
                    unroll!(G < 2, {
                        store::<S>(tile, (group + G) * GROUP + lane, T, sums[G][T]);
                    });
                });
            }
        }
    }
}

/// The sums of a pair of groups.
///
/// # Safety
/// The pointers of `pair` cover what its count says, and the CPU has `S`.
#[inline(always)]
pub(crate) unsafe fn unpacked_sums<
    S: Simd,
    const WIDE: bool,
    const HALVES: bool,
    const MINS: bool,
    const TN: usize,
>(
    pair: &Pair,
) -> [[S::F; TN]; 2] {
    // SAFETY: the caller's promise covers every address below.
    unsafe {
        let (mut codes, mut scales) = (pair.codes, pair.scales);
        let (mut acts, mut factors) = (pair.acts, pair.factors);
        let zero = S::splat_f32(0.0);
        let mut sums = [[zero; TN]; 2];
        for _ in 0..pair.n_steps {
            let mut product = [[zero; TN]; 2];
            for half in 0..if HALVES { 2 } else { 1 } {
                let mut sum = [[S::splat(0); TN]; 2];
                if !MINS {
                    unroll!(T < TN, {
                        let start = S::splat((*factors.add((1 + half) * WIDTH + T)).to_bits());
                        (sum[0][T], sum[1][T]) = (start, start);
                    });
                }
                unroll!(J < 8, {
                    if J < 4 || !HALVES {
                        let w = codes.map(|codes| S::load(codes.add((4 * half + J) * VECTOR)));
                        unroll!(T < TN, {
                            let a = acts.add(32 * T + 16 * half + 4 * J);
                            unroll!(G < 2, {
                                sum[G][T] = if WIDE {
                                    S::dot_wide(sum[G][T], w[G], a)
                                } else {
                                    S::dot(sum[G][T], w[G], a)
                                };
                            });
                        });
                    }
                });
                unroll!(G < 2, {
                    let scale = S::load_f32(scales[G].add(half * VECTOR));
                    unroll!(T < TN, {
                        let sum = S::to_f32(sum[G][T]);
                        product[G][T] = if half == 0 {
                            S::mul(sum, scale)
                        } else {
                            S::mul_add(sum, scale, product[G][T])
                        };
                    });
                });
            }
            unroll!(T < TN, {
                let scale = S::splat_f32(*factors.add(T));
                unroll!(G < 2, {
                    sums[G][T] = S::mul_add(product[G][T], scale, sums[G][T]);
                });
            });
            for half in 0..MINS as usize * (1 + HALVES as usize) {
                unroll!(G < 2, {
                    let min = S::load_f32(scales[G].add((2 + half) * VECTOR));
                    unroll!(T < TN, {
                        let sum = S::splat_f32(*factors.add((1 + half) * WIDTH + T));
                        sums[G][T] = S::mul_add(min, sum, sums[G][T]);
                    });
                });
            }
            codes = codes.map(|codes| codes.add(UNPACKED_CODES));
            scales = scales.map(|scales| scales.add(UNPACKED_FACTORS));
            acts = acts.add(32 * WIDTH);
            factors = factors.add(3 * WIDTH);
        }
        sums
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
                acts[T] =
                    tile.acts.add(if T < tile.n_tokens { T } else { tile.n_tokens - 1 } * tile.acts_stride);
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

/// A tile's kernel; see [`quantized`], [`unpacked`] and [`dense`] for its contract.
pub(crate) type TileFn = unsafe fn(&Tile);

/// Tokens in a tile, ascending, and the kernel.
pub(crate) type Tiles = &'static [(usize, TileFn)];

/// See [`unpack`].
pub(crate) type UnpackFn = unsafe fn(*const u8, *const u8, usize, *mut u8, *mut f32);

/// The kernels of one type for one instruction set.
pub(crate) struct Kernels {
    /// From the packed weight, for few tokens; dense types know nothing else.
    pub direct: Tiles,
    /// For many tokens: unpacks a group, ...
    pub unpack: Option<UnpackFn>,
    /// ... which then meets tile after tile.
    pub unpacked: Tiles,
}

/// Makes a module's functions for one instruction set: its features, and the tokens in the tiles of its kernels from
/// packed, unpacked (with one scale or two a block) and dense weights.
macro_rules! entries {
    (
        $simd:ty,
        features: [$($features:literal)?],
        packed: [$($packed:literal)*],
        unpacked: [$($unpacked:literal)*],
        halves: [$($halves:literal)*],
        dense: [$($dense:literal)*]
    ) => {
        use crate::dtype::DType;
        use crate::matmul::format::{self, Format};
        use crate::matmul::kernel::{self, Dense, Kernels, Tile};

        $(#[target_feature(enable = $features)])?
        unsafe fn quantized<F: Format<$simd>, const TN: usize>(tile: &Tile) {
            // SAFETY: the caller's promise.
            unsafe { kernel::quantized::<$simd, F, TN>(tile) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn unpack<F: Format<$simd>>(codes: *const u8, scales: *const u8, n: usize, to: *mut u8, factors: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe { kernel::unpack::<$simd, F>(codes, scales, n, to, factors) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn unpacked<const WIDE: bool, const HALVES: bool, const MINS: bool, const TN: usize>(tile: &Tile) {
            // SAFETY: the caller's promise.
            unsafe { kernel::unpacked::<$simd, WIDE, HALVES, MINS, TN>(tile) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn dense<D: Dense<$simd>, const TN: usize>(tile: &Tile) {
            // SAFETY: the caller's promise.
            unsafe { kernel::dense::<$simd, D, TN>(tile) }
        }

        /// Quantizes one token's row; see [`crate::matmul::activation::quantize_row`].
        ///
        /// # Safety
        /// Its contract, and the CPU has the instruction set.
        $(#[target_feature(enable = $features)])?
        pub(crate) unsafe fn quantize_row(x: &[f32], out: &mut crate::matmul::activation::RowOut) {
            // SAFETY: the caller's promise.
            unsafe { crate::matmul::activation::quantize_row::<$simd>(x, out) }
        }

        /// The kernels of a type.
        pub(crate) fn kernels(dtype: DType) -> Kernels {
            // Unpacked, a type is known by its number of scales, and by having minima or wide codes.
            macro_rules! q {
                ($f:ident, wide: $wide:literal, halves: $two:tt, mins: $mins:literal) => {
                    Kernels {
                        direct: &[$(($packed, quantized::<format::$f, $packed>)),*],
                        unpack: Some(unpack::<format::$f>),
                        unpacked: q!(@ $wide, $two, $mins),
                    }
                };
                (@ $wide:literal, false, $mins:literal) => {
                    &[$(($unpacked, unpacked::<$wide, false, $mins, $unpacked>)),*]
                };
                (@ $wide:literal, true, $mins:literal) => {
                    &[$(($halves, unpacked::<$wide, true, $mins, $halves>)),*]
                };
            }
            macro_rules! d {
                ($f:ident) => {
                    Kernels { direct: &[$(($dense, dense::<kernel::$f, $dense>)),*], unpack: None, unpacked: &[] }
                };
            }
            match dtype {
                DType::F32 => d!(F32),
                DType::F16 => d!(F16),
                DType::BF16 => d!(BF16),
                DType::Q4_0 => q!(Q4_0, wide: false, halves: false, mins: false),
                DType::Q4_1 => q!(Q4_1, wide: false, halves: false, mins: true),
                DType::Q5_0 => q!(Q5_0, wide: false, halves: false, mins: false),
                DType::Q5_1 => q!(Q5_1, wide: false, halves: false, mins: true),
                DType::Q8_0 => q!(Q8_0, wide: true, halves: false, mins: false),
                DType::Q2K => q!(Q2K, wide: false, halves: true, mins: true),
                DType::Q3K => q!(Q3K, wide: false, halves: true, mins: false),
                DType::Q4K => q!(Q4K, wide: false, halves: false, mins: true),
                DType::Q5K => q!(Q5K, wide: false, halves: false, mins: true),
                DType::Q6K => q!(Q6K, wide: false, halves: true, mins: false),
                DType::Iq4Nl => q!(Iq4Nl, wide: true, halves: false, mins: false),
            }
        }
    };
}
pub(crate) use entries;
