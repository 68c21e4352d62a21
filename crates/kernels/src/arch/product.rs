//! What the products of matrices are written in: words of packed factors, and one step of a sum.
//!
//! A word is 32 bits of a packed matrix: an f32, or two neighbouring bf16 along the dimension that is summed over.

use super::vector::Vector;

/// How a tile multiplies and how its factors are packed.
///
/// # Safety
///
/// As for [`Vector`]: methods may only be called where the CPU has the type's instructions.
pub(crate) unsafe trait Product: Copy {
    /// The sums; as many lanes as `Words` has words.
    type Sums: Vector;
    /// A vector of words.
    type Words: Copy;
    /// Elements of the summed dimension in a word: 1 or 2.
    const DEPTH: usize;

    /// Reads a vector of words.
    ///
    /// # Safety
    ///
    /// `p` points to as many readable words as `Sums` has lanes.
    unsafe fn load(p: *const u32) -> Self::Words;
    /// The word at `p` in every lane.
    ///
    /// # Safety
    ///
    /// `p` points to a readable word.
    unsafe fn splat(p: *const u32) -> Self::Words;
    /// `sums + a · b` in each lane.
    fn step(a: Self::Words, b: Self::Words, sums: Self::Sums) -> Self::Sums;
    /// Makes words of a vector of floats at each of `DEPTH` pointers, neighbours along the summed dimension.
    ///
    /// # Safety
    ///
    /// `from` and `next` point to a vector of readable floats (`next` only for `DEPTH` 2), `to` to one of writable words.
    unsafe fn pack_row(from: *const f32, next: *const f32, to: *mut u32);
    /// Makes words of a vector of lines that lie `stride` apart and as many words of each along the summed dimension:
    /// vectors of words that lie `to_stride` apart.
    ///
    /// # Safety
    ///
    /// All of these may be read and written.
    unsafe fn pack_square(from: *const f32, stride: usize, to: *mut u32, to_stride: usize);
}

/// Words that are floats.
#[derive(Clone, Copy)]
pub(crate) struct Floats<V>(V);

// SAFETY: needs nothing but `V`.
unsafe impl<V: Vector> Product for Floats<V> {
    type Sums = V;
    type Words = V;
    const DEPTH: usize = 1;

    #[inline(always)]
    unsafe fn load(p: *const u32) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(p: *const u32) -> V {
        // SAFETY: the caller's promise.
        V::splat(unsafe { p.cast::<f32>().read() })
    }
    #[inline(always)]
    fn step(a: V, b: V, sums: V) -> V {
        a.mul_add(b, sums)
    }
    #[inline(always)]
    unsafe fn pack_row(from: *const f32, _next: *const f32, to: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe { V::load(from).store(to.cast()) }
    }
    #[inline(always)]
    unsafe fn pack_square(from: *const f32, stride: usize, to: *mut u32, to_stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut rows = [V::splat(0.0); 16];
            super::unroll!(I < V::LANES, {
                rows[I] = V::load(from.add(I * stride));
            });
            V::transpose(&mut rows);
            super::unroll!(I < V::LANES, {
                rows[I].store(to.add(I * to_stride).cast());
            });
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use super::product_avx512::Bf16Pairs;
