//! The instruction sets: one type each, which implements the few vector operations that the kernels are written in.
//!
//! A kernel is one generic function over [`Simd`]; it becomes fast code where a function of the instruction set's
//! own file, compiled with those CPU features, inlines it.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

use crate::matmul::activation::quantize_block;
use crate::matmul::kernel::{Pair, unpacked_sums};

/// Repeats the body for constants from 0 to below the bound, which is at most 16.
macro_rules! unroll {
    ($i:ident < $bound:expr, $body:block) => {
        unroll!(@ $i, $bound, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $i:ident, $bound:expr, $body:block, $($n:literal)*) => {
        $(if $n < $bound { const $i: usize = $n; $body })*
    };
}
pub(crate) use unroll;

/// Vectors of [`Simd::LANES`] 32-bit lanes, as integers (also seen as four bytes a lane) and as floats.
///
/// # Safety
/// Every operation may only be called where the CPU has the type's instruction set; those that take a pointer
/// read or write as many bytes behind it as they say, without alignment.
pub(crate) trait Simd: Copy {
    /// Integer lanes.
    type I: Copy;
    /// Float lanes.
    type F: Copy;
    /// 32-bit lanes in a vector; divides 16.
    const LANES: usize;

    /// Loads `LANES` lanes.
    unsafe fn load(from: *const u8) -> Self::I;
    /// Loads `LANES` signed bytes, one to a lane.
    unsafe fn load_i8(from: *const u8) -> Self::I;
    /// Loads `LANES` halves (f16) as floats.
    unsafe fn load_f16(from: *const u8) -> Self::F;
    /// Loads `LANES` floats.
    unsafe fn load_f32(from: *const u8) -> Self::F;
    /// Stores `LANES` lanes.
    unsafe fn store(to: *mut u8, x: Self::I);
    /// Stores `LANES` floats.
    unsafe fn store_f32(to: *mut f32, x: Self::F);
    /// Loads 16 bytes, repeated in every 128 bits of the vector.
    unsafe fn load_table(from: *const u8) -> Self::I;

    /// The same 32 bits in every lane.
    unsafe fn splat(x: u32) -> Self::I;
    /// The same float in every lane.
    unsafe fn splat_f32(x: f32) -> Self::F;

    /// `x & y`.
    unsafe fn and(x: Self::I, y: Self::I) -> Self::I;
    /// `x + y`, wrapping.
    unsafe fn add_i32(x: Self::I, y: Self::I) -> Self::I;
    /// `x | (y & mask)`.
    unsafe fn or_masked(x: Self::I, y: Self::I, mask: Self::I) -> Self::I;
    /// Each lane shifted left.
    unsafe fn shl<const N: u32>(x: Self::I) -> Self::I;
    /// Each lane shifted right, zeros coming in.
    unsafe fn shr<const N: u32>(x: Self::I) -> Self::I;
    /// Each byte of `index`, below 16, replaced by that byte of the table.
    unsafe fn look_up(table: Self::I, index: Self::I) -> Self::I;

    /// `sum + w[0] a[0] + .. + w[3] a[3]` in each lane: unsigned bytes of `w` below 128 times the four signed
    /// bytes at `a`. Exact.
    unsafe fn dot(sum: Self::I, w: Self::I, a: *const u8) -> Self::I;
    /// As `dot`, for all unsigned bytes.
    unsafe fn dot_wide(sum: Self::I, w: Self::I, a: *const u8) -> Self::I;
    /// `sum + w[0] a[0] + w[1] a[1]` in each lane: two bf16 of `w` times the two bf16 at `a`.
    unsafe fn dot_bf16(sum: Self::F, w: Self::I, a: *const u8) -> Self::F;

    /// Signed lanes to floats.
    unsafe fn to_f32(x: Self::I) -> Self::F;
    /// `x * y`.
    unsafe fn mul(x: Self::F, y: Self::F) -> Self::F;
    /// `x + y`.
    unsafe fn add(x: Self::F, y: Self::F) -> Self::F;
    /// `x * y + z`, rounded once where the instruction set can.
    unsafe fn mul_add(x: Self::F, y: Self::F, z: Self::F) -> Self::F;
    /// Quantizes a block of 32 activations to `codes`: its scale, and the sums of the codes of its halves; by default
    /// what [`quantize_block`] does.
    #[inline(always)]
    unsafe fn quantize_block(x: &[f32; 32], codes: *mut i8) -> (f32, [i32; 2]) {
        // SAFETY: 32 bytes may be written.
        unsafe { quantize_block(x, &mut *codes.cast()) }
    }
    /// The sums of two groups of unpacked rows and `TN` tokens: by default what [`unpacked_sums`] does.
    #[inline(always)]
    unsafe fn unpacked_sums<const WIDE: bool, const HALVES: bool, const MINS: bool, const TN: usize>(
        pair: &Pair,
    ) -> [[Self::F; TN]; 2] {
        // SAFETY: the caller's promise.
        unsafe { unpacked_sums::<Self, WIDE, HALVES, MINS, TN>(pair) }
    }
    /// Asks for the cache line at `at`, which need not exist.
    unsafe fn prefetch(at: *const u8);
}

#[cfg(target_arch = "x86_64")]
mod product_avx512;
#[cfg(target_arch = "x86_64")]
mod vector_avx2;
#[cfg(target_arch = "x86_64")]
mod vector_avx512;

pub(crate) mod math;
pub(crate) mod product;
pub(crate) mod vector;
