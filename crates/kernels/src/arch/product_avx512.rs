//! Pairs of bf16 multiplied by AVX-512 BF16.

use super::product::Product;
use super::vector::Vector;
use super::vector_avx512::Avx512;
use std::arch::x86_64::*;

/// Words that are two bf16. Subnormal numbers count as zeros, as the instructions have it.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Pairs;

/// Two vectors of floats rounded to bf16: those of `low` in the lower half.
#[inline(always)]
fn narrow(low: __m512, high: __m512) -> __m512i {
    // SAFETY: reached where the CPU has AVX-512 BF16 only; both types are 512 bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Numbers i of the lower and of the upper half side by side.
#[inline(always)]
fn interleave(halves: __m512i) -> __m512i {
    // SAFETY: as above.
    unsafe {
        let order = _mm512_set_epi16(
            31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3,
            18, 2, 17, 1, 16, 0,
        );
        _mm512_permutexvar_epi16(order, halves)
    }
}

// SAFETY: reached through functions with the target feature only; each `unsafe` below relies on that, and
// loads and stores on their caller's promise.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Product for Bf16Pairs {
    type Sums = Avx512;
    type Words = __m512i;
    const DEPTH: usize = 2;

    #[inline(always)]
    unsafe fn load(p: *const u32) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(p: *const u32) -> __m512i {
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read()) }
    }
    #[inline(always)]
    fn step(a: __m512i, b: __m512i, sums: Avx512) -> Avx512 {
        let pairs = |words| unsafe { std::mem::transmute::<__m512i, __m512bh>(words) };
        unsafe { Avx512(_mm512_dpbf16_ps(sums.0, pairs(a), pairs(b))) }
    }
    #[inline(always)]
    unsafe fn pack_row(from: &[f32], next: &[f32], to: *mut u32) {
        unsafe {
            let words = interleave(narrow(Avx512::load_slice(from, 0.0).0, Avx512::load_slice(next, 0.0).0));
            _mm512_storeu_si512(to.cast(), words);
        }
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
        let mask = (u64::from(u32::MAX) >> (32 - depth)) as u32;
        let (low, high) = (mask as u16, (mask >> 16) as u16);
        unsafe {
            let mut rows = [Avx512(_mm512_setzero_ps()); 16];
            super::unroll!(I < 16, {
                if I < n_lines {
                    let at = from.wrapping_add(I * stride);
                    let (a, b) =
                        (_mm512_maskz_loadu_ps(low, at), _mm512_maskz_loadu_ps(high, at.wrapping_add(16)));
                    rows[I] = Avx512(_mm512_castsi512_ps(narrow(a, b)));
                }
            });
            super::vector_avx512::transpose(&mut rows);
            super::unroll!(I < 16, {
                if 2 * I < depth {
                    _mm512_storeu_ps(to.add(I * to_stride).cast(), rows[I].0);
                }
            });
        }
    }
}
