//! What the products of matrices are written in: words of packed factors, and one step of a sum.
//!
//! A word is 32 bits of a packed matrix: an f32, or two neighbouring bf16 along the dimension that is summed
//! over.

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
    /// Makes a vector of words of floats and of their neighbours along the summed dimension (for `DEPTH` 2),
    /// zeros where these end.
    ///
    /// # Safety
    ///
    /// `to` points to a vector of writable words.
    unsafe fn pack_row(from: &[f32], next: &[f32], to: *mut u32);
    /// Makes words of `n_lines` lines, at most a vector, that lie `stride` apart, of `depth` floats each
    /// along the summed dimension, at most a vector of words: vectors of words that lie `to_stride` apart.
    /// Missing lines become zeros.
    ///
    /// # Safety
    ///
    /// All of these may be read and written.
    unsafe fn pack_square(
        from: *const f32,
        stride: usize,
        n_lines: usize,
        depth: usize,
        to: *mut u32,
        to_stride: usize,
    );
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
    unsafe fn pack_row(from: &[f32], _next: &[f32], to: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe { V::load_slice(from, 0.0).store(to.cast()) }
    }
    #[inline(always)]
    unsafe fn pack_square(
        from: *const f32,
        stride: usize,
        n_lines: usize,
        depth: usize,
        to: *mut u32,
        to_stride: usize,
    ) {
        let mut rows = [V::splat(0.0); 16];
        // SAFETY: the caller's promise.
        unsafe {
            if n_lines == V::LANES && depth == V::LANES {
                super::unroll!(I < V::LANES, { rows[I] = V::load(from.add(I * stride)) });
            } else {
                super::unroll!(I < V::LANES, {
                    if I < n_lines {
                        rows[I] = V::load_slice(std::slice::from_raw_parts(from.add(I * stride), depth), 0.0);
                    }
                });
            }
            V::transpose(&mut rows);
            super::unroll!(I < V::LANES, {
                if I < depth {
                    rows[I].store(to.add(I * to_stride).cast());
                }
            });
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use super::product_avx512::Bf16Pairs;
