//! Vectors of AVX-512.

use super::vector::Vector;
use std::arch::x86_64::*;

/// Sixteen lanes in a register of 512 bits.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(pub(super) __m512);

/// Swaps rows and columns of sixteen vectors.
#[inline(always)]
pub(super) fn transpose(rows: &mut [Avx512; 16]) {
    // SAFETY: as for the methods below.
    unsafe {
        let r = rows.map(|row| row.0);
        // Columns of two rows, then of four, inside each 128 bits.
        let pairs: [__m512d; 16] = std::array::from_fn(|i| {
            let (a, b) = (r[i & !1], r[i | 1]);
            _mm512_castps_pd(if i % 2 == 0 { _mm512_unpacklo_ps(a, b) } else { _mm512_unpackhi_ps(a, b) })
        });
        // fours[4 q + c]: column c of each 128 bits, rows 4 q to 4 q + 3.
        let fours: [__m512; 16] = std::array::from_fn(|i| {
            let (q, c) = (i & !3, i & 3);
            let (a, b) = (pairs[q + c / 2], pairs[q + c / 2 + 2]);
            _mm512_castpd_ps(if c % 2 == 0 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) })
        });
        // Then whole 128 bits: eights[8 h + 4 odd + c], the even or odd quarters of rows 8 h to 8 h + 7.
        let eights: [__m512; 16] = std::array::from_fn(|i| {
            let (h, odd, c) = (i & 8, i & 4 != 0, i & 3);
            let (a, b) = (fours[h + c], fours[h + 4 + c]);
            if odd { _mm512_shuffle_f32x4::<0xdd>(a, b) } else { _mm512_shuffle_f32x4::<0x88>(a, b) }
        });
        // Column 4 l + c is quarter l.
        *rows = std::array::from_fn(|i| {
            let (l, c) = (i / 4, i & 3);
            let (a, b) = (eights[4 * (l & 1) + c], eights[8 + 4 * (l & 1) + c]);
            Avx512(if l < 2 {
                _mm512_shuffle_f32x4::<0x88>(a, b)
            } else {
                _mm512_shuffle_f32x4::<0xdd>(a, b)
            })
        });
    }
}

// SAFETY: bodies reach this type only through `per_isa!`, under the target features that it names; each `unsafe`
// below relies on that, and loads and stores on their caller's promise.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Vector for Avx512 {
    const LANES: usize = 16;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        unsafe { Avx512(_mm512_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        unsafe { Avx512(_mm512_loadu_ps(p)) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        unsafe { Avx512(_mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        unsafe { Avx512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())))) }
    }
    #[inline(always)]
    unsafe fn look_up_nibbles(table: &[f32; 16], p: *const u8) -> [Self; 2] {
        unsafe {
            let (table, bytes) = (_mm512_loadu_ps(table.as_ptr()), _mm_loadu_si128(p.cast()));
            let mask = _mm_set1_epi8(15);
            let (high, low) = (_mm_and_si128(_mm_srli_epi16::<4>(bytes), mask), _mm_and_si128(bytes, mask));
            [_mm_unpacklo_epi8(high, low), _mm_unpackhi_epi8(high, low)]
                .map(|index| Avx512(_mm512_permutexvar_ps(_mm512_cvtepu8_epi32(index), table)))
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { _mm512_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    fn load_slice(x: &[f32], fill: f32) -> Self {
        unsafe {
            if x.len() >= 16 {
                return Self::load(x.as_ptr());
            }
            let mask = (1u16 << x.len()) - 1;
            Avx512(_mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, x.as_ptr()))
        }
    }
    #[inline(always)]
    fn store_slice(self, x: &mut [f32]) {
        unsafe {
            // A store with a mask takes longer, and later loads do not see it early.
            if x.len() >= 16 {
                return self.store(x.as_mut_ptr());
            }
            _mm512_mask_storeu_ps(x.as_mut_ptr(), (1u16 << x.len()) - 1, self.0)
        }
    }
    #[inline(always)]
    fn transpose(rows: &mut [Self; 16]) {
        transpose(rows)
    }
    #[inline(always)]
    fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        unsafe { Avx512(_mm512_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        unsafe { Avx512(_mm512_sub_ps(self.0, other.0)) }
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        unsafe { Avx512(_mm512_mul_ps(self.0, other.0)) }
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        unsafe { Avx512(_mm512_div_ps(self.0, other.0)) }
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        unsafe { Avx512(_mm512_max_ps(self.0, other.0)) }
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        unsafe { Avx512(_mm512_min_ps(self.0, other.0)) }
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        unsafe { Avx512(_mm512_sqrt_ps(self.0)) }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe { Avx512(_mm512_fmadd_ps(self.0, b.0, c.0)) }
    }
    #[inline(always)]
    fn round(self) -> Self {
        unsafe { Avx512(_mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(self.0)) }
    }
    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        unsafe { Avx512(_mm512_scalef_ps(_mm512_set1_ps(1.0), self.0)) }
    }
    #[inline(always)]
    fn abs(self) -> Self {
        unsafe { Avx512(_mm512_abs_ps(self.0)) }
    }
    #[inline(always)]
    fn copy_sign(self, sign: Self) -> Self {
        let mask = Self::splat(-0.0).0;
        unsafe { Avx512(_mm512_or_ps(_mm512_andnot_ps(mask, self.0), _mm512_and_ps(mask, sign.0))) }
    }
    #[inline(always)]
    fn select_less(self, limit: Self, a: Self, b: Self) -> Self {
        unsafe { Avx512(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, limit.0), b.0, a.0)) }
    }
    #[inline(always)]
    fn reduce_add(self) -> f32 {
        unsafe {
            let (low, high) = (_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            let x = _mm256_add_ps(low, high);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }
    }
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        unsafe {
            let (low, high) = (_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            let x = _mm256_max_ps(low, high);
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        }
    }
}
