//! Tiles of the output, and how factors are packed for them.
//!
//! Packed factors consist of panels: `n_steps` groups of words. A panel of A is a vector of rows, for two
//! tiles; one of B has the columns of a tile, the last one fewer where that saves a vector.

// The lints read copies of an unrolled body that are dead, beyond its bound.
#![allow(clippy::out_of_bounds_indexing)]

use crate::arch::product::{Floats, Product};
use crate::arch::unroll;
use crate::arch::vector::{self as v, Vector};
use crate::isa::Isa;

/// A block of the output: some panels of A times some panels of B.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// The first panel of A; the following ones behind it.
    pub a: *const u32,
    /// The first panel of B; the following ones behind it.
    pub b: *const u32,
    /// Words of each row or column that are multiplied.
    pub n_steps: usize,
    /// Words of each column in a panel of B.
    pub b_steps: usize,
    /// Columns from the first one on that panels of B were made for.
    pub b_cols: usize,
    /// Rows of the output; the last panel may be partly unused.
    pub n_rows: usize,
    /// Columns of the output.
    pub n_cols: usize,
    pub alpha: f32,
    /// Whether the product is added to what is in the output.
    pub add: bool,
    /// Of the first column, or null.
    pub bias: *const f32,
    pub out: *mut f32,
    pub out_stride: usize,
}

/// Part of a factor to be packed: floats of rows of A or columns of B (lines), along the summed dimension
/// (depth).
#[derive(Clone, Copy)]
pub(super) struct Strip {
    pub from: *const f32,
    /// From one line to the next; this or `depth_stride` is 1.
    pub line_stride: usize,
    pub depth_stride: usize,
    pub n_lines: usize,
    pub depth: usize,
    /// Lines of a panel.
    pub width: usize,
    /// Words of each line in its panel, of which these may be a part.
    pub n_steps: usize,
    /// Where the first line's words go.
    pub to: *mut u32,
}

/// The kernels of an instruction set and a precision.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    /// Rows of a panel of A, and numbers in a vector.
    pub n_rows: usize,
    /// Columns of a panel of B: whole vectors.
    pub n_cols: usize,
    /// Elements in a word.
    pub depth: usize,
    /// Computes a block.
    pub multiply: unsafe fn(&Block),
    /// Packs rows of A or columns of B.
    pub pack: unsafe fn(&Strip),
}

impl Kernels {
    /// Words for each row or column of `depth` elements.
    pub fn n_steps(&self, depth: usize) -> usize {
        depth.div_ceil(self.depth)
    }
}

/// The kernels that compute in f32.
pub(super) fn floats(isa: Isa) -> Kernels {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Vnni => avx512::FLOATS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx2Vnni => avx2::FLOATS,
        _ => portable::FLOATS,
    }
}

/// The kernels that compute in bf16, where there are instructions for it.
pub(super) fn bf16(isa: Isa) -> Option<Kernels> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => Some(avx512_bf16::PAIRS),
        _ => None,
    }
}

/// Makes a module with the kernels of an instruction set: tiles of `$rows`, half a vector, times `$vectors`
/// vectors.
macro_rules! kernels {
    ($module:ident, $name:ident, $product:ty, $rows:literal, $vectors:literal, $(#[$feature:meta])?) => {
        mod $module {
            use super::*;

            pub(in crate::gemm) const $name: Kernels = Kernels {
                n_rows: 2 * $rows,
                n_cols: $vectors * <$product as Product>::Sums::LANES,
                depth: <$product as Product>::DEPTH,
                multiply,
                pack,
            };

            $(#[$feature])?
            unsafe fn multiply(block: &Block) {
                // SAFETY: the caller's promise.
                unsafe { multiply_body::<$product, $rows, $vectors>(block) }
            }

            $(#[$feature])?
            unsafe fn pack(strip: &Strip) {
                // SAFETY: the caller's promise.
                unsafe { pack_body::<$product>(strip) }
            }
        }
    };
}

kernels!(portable, FLOATS, Floats<v::Portable>, 4, 1,);
#[cfg(target_arch = "x86_64")]
kernels!(avx2, FLOATS, Floats<v::Avx2>, 4, 3, #[target_feature(enable = "avx2,fma,f16c")]);
#[cfg(target_arch = "x86_64")]
kernels!(avx512, FLOATS, Floats<v::Avx512>, 8, 3,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]);
#[cfg(target_arch = "x86_64")]
kernels!(avx512_bf16, PAIRS, crate::arch::product::Bf16Pairs, 8, 3,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]);

/// # Safety
/// The block's pointers cover what its counts say, and the CPU has `P`.
#[inline(always)]
unsafe fn multiply_body<P: Product, const ROWS: usize, const VECTORS: usize>(block: &Block) {
    let lanes = P::Sums::LANES;
    let n_cols = VECTORS * lanes;
    // SAFETY: the caller's promise.
    unsafe {
        for row in (0..block.n_rows).step_by(ROWS) {
            for col in (0..block.n_cols).step_by(n_cols) {
                let tile = Block {
                    a: block.a.add(row / lanes * lanes * block.n_steps + row % lanes),
                    b: block.b.add(col * block.b_steps),
                    b_cols: n_cols.min((block.b_cols - col).next_multiple_of(lanes)),
                    n_rows: ROWS.min(block.n_rows - row),
                    n_cols: n_cols.min(block.n_cols - col),
                    bias: if block.bias.is_null() { block.bias } else { block.bias.add(col) },
                    out: block.out.add(row * block.out_stride + col),
                    ..*block
                };
                let n_vectors = tile.n_cols.div_ceil(lanes);
                match (tile.n_rows * 2 > ROWS, n_vectors) {
                    (true, 1) => tile_body::<P, ROWS, 1>(&tile),
                    (true, 2) if VECTORS >= 2 => tile_body::<P, ROWS, 2>(&tile),
                    (true, _) => tile_body::<P, ROWS, VECTORS>(&tile),
                    (false, 1) => half_tile::<P, ROWS, 1>(&tile),
                    (false, 2) if VECTORS >= 2 => half_tile::<P, ROWS, 2>(&tile),
                    (false, _) => half_tile::<P, ROWS, VECTORS>(&tile),
                }
            }
        }
    }
}

/// A tile of at most half the rows.
///
/// # Safety
/// As for `tile_body`.
#[inline(always)]
unsafe fn half_tile<P: Product, const ROWS: usize, const VECTORS: usize>(tile: &Block) {
    // SAFETY: the caller's promise; the rows of the tile are enough for its outputs.
    unsafe {
        match ROWS {
            8 => tile_body::<P, 4, VECTORS>(tile),
            _ => tile_body::<P, 2, VECTORS>(tile),
        }
    }
}

/// `N` rows of a panel of A, times `VECTORS` vectors of columns of a panel of B, which has `b_cols`.
///
/// # Safety
/// The pointers of the tile cover what its counts say, and the CPU has `P`.
#[inline(always)]
unsafe fn tile_body<P: Product, const N: usize, const VECTORS: usize>(tile: &Block) {
    let lanes = P::Sums::LANES;
    // SAFETY: the caller's promise.
    unsafe {
        unroll!(I < N, {
            let row = tile.out.wrapping_add(I * tile.out_stride);
            unroll!(J < VECTORS, { P::Sums::prefetch(row.wrapping_add(J * lanes).cast()) });
        });
        let mut sums = [[P::Sums::splat(0.0); VECTORS]; N];
        let (mut a, mut b) = (tile.a, tile.b);
        for _ in 0..tile.n_steps {
            let mut columns = [P::load(b); VECTORS];
            unroll!(J < VECTORS, { columns[J] = P::load(b.add(J * lanes)) });
            unroll!(I < N, {
                let row = P::splat(a.add(I));
                unroll!(J < VECTORS, { sums[I][J] = P::step(row, columns[J], sums[I][J]) });
            });
            a = a.add(lanes);
            b = b.add(tile.b_cols);
        }
        let alpha = P::Sums::splat(tile.alpha);
        let (whole, n_cols) = (tile.n_cols == VECTORS * lanes, tile.n_cols);
        unroll!(I < N, {
            if I < tile.n_rows {
                let row = tile.out.add(I * tile.out_stride);
                unroll!(J < VECTORS, {
                    let at = row.wrapping_add(J * lanes);
                    let bias = tile.bias.wrapping_add(J * lanes);
                    let mut sum = sums[I][J].mul(alpha);
                    if whole {
                        if tile.add {
                            sum = P::Sums::load(at).add(sum);
                        }
                        if !tile.bias.is_null() {
                            sum = sum.add(P::Sums::load(bias));
                        }
                        sum.store(at);
                    } else {
                        let n = n_cols.saturating_sub(J * lanes).min(lanes);
                        let old = std::slice::from_raw_parts_mut(at, n);
                        if tile.add {
                            sum = P::Sums::load_slice(old, 0.0).add(sum);
                        }
                        if !tile.bias.is_null() {
                            sum = sum.add(P::Sums::load_slice(std::slice::from_raw_parts(bias, n), 0.0));
                        }
                        sum.store_slice(old);
                    }
                });
            }
        });
    }
}

/// # Safety
/// The strip's pointers cover what its counts say, and the CPU has `P`.
#[inline(always)]
unsafe fn pack_body<P: Product>(strip: &Strip) {
    let lanes = P::Sums::LANES;
    // SAFETY: the caller's promise.
    unsafe {
        if strip.line_stride == 1 {
            return pack_lines::<P>(strip);
        }
        for line in (0..strip.n_lines).step_by(lanes) {
            let (first, at) = (line / strip.width * strip.width, line % strip.width);
            let columns = Strip {
                from: strip.from.add(line * strip.line_stride),
                n_lines: (strip.n_lines - line).min(lanes),
                width: strip.width.min((strip.n_lines - first).next_multiple_of(lanes)),
                to: strip.to.add(first * strip.n_steps + at),
                ..*strip
            };
            pack_deep::<P>(&columns);
        }
    }
}

/// Packs lines that are neighbours; those that panels lack become zeros.
///
/// Reads in the order of memory, as far as a strip goes, and writes to all panels in turn.
///
/// # Safety
/// As for `pack_body`.
#[inline(always)]
unsafe fn pack_lines<P: Product>(strip: &Strip) {
    let lanes = P::Sums::LANES;
    // SAFETY: the caller's promise.
    unsafe {
        for step in 0..strip.depth.div_ceil(P::DEPTH) {
            let p = step * P::DEPTH;
            let from = strip.from.add(p * strip.depth_stride);
            let has_next = P::DEPTH == 2 && p + 1 < strip.depth;
            let next = from.wrapping_add(strip.depth_stride);
            for first in (0..strip.n_lines).step_by(strip.width) {
                let end = strip.n_lines.min(first + strip.width);
                let width = (end - first).next_multiple_of(lanes);
                let to = strip.to.add(first * strip.n_steps + step * width);
                for line in (first..end).step_by(lanes) {
                    let (n, at, to) = ((end - line).min(lanes), from.add(line), to.add(line - first));
                    for ahead in 0..P::DEPTH {
                        P::Sums::prefetch(at.wrapping_add((AHEAD + ahead) * strip.depth_stride).cast());
                    }
                    let row = std::slice::from_raw_parts(at, n);
                    let next: &[f32] =
                        if has_next { std::slice::from_raw_parts(next.add(line), n) } else { &[] };
                    P::pack_row(row, next, to);
                }
            }
        }
    }
}

/// How many elements along the depth ahead the cache lines of neighbouring lines are asked for.
const AHEAD: usize = 8;

/// Packs a vector of lines each of which is contiguous along the depth; missing ones become zeros.
///
/// # Safety
/// As for `pack_body`.
#[inline(always)]
unsafe fn pack_deep<P: Product>(panel: &Strip) {
    let lanes = P::Sums::LANES;
    let block = lanes * P::DEPTH;
    // SAFETY: the caller's promise.
    unsafe {
        for p in (0..panel.depth).step_by(block) {
            let to = panel.to.add(p / P::DEPTH * panel.width);
            let depth = block.min(panel.depth - p);
            let from = panel.from.add(p);
            P::pack_square(from, panel.line_stride, panel.n_lines, depth, to, panel.width);
        }
    }
}
