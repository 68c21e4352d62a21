//! AVX2: eight lanes, so that a group of sixteen rows is done in two halves; with AVX-VNNI the dot products of
//! bytes are single instructions.

use super::Simd;
use crate::matmul::packed;
use std::arch::x86_64::*;

/// AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// AVX2 with AVX-VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Vnni;

/// The operations that both sets share.
macro_rules! common {
    () => {
        type I = __m256i;
        type F = __m256;
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn load(from: *const u8) -> __m256i {
            // SAFETY: 32 bytes may be read.
            unsafe { _mm256_loadu_si256(from.cast()) }
        }

        #[inline(always)]
        unsafe fn load_i8(from: *const u8) -> __m256i {
            // SAFETY: 8 bytes may be read.
            unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())) }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const u8) -> __m256 {
            // SAFETY: 16 bytes may be read.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }

        #[inline(always)]
        unsafe fn load_f32(from: *const u8) -> __m256 {
            // SAFETY: 32 bytes may be read.
            unsafe { _mm256_loadu_ps(from.cast()) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut u8, x: __m256i) {
            // SAFETY: 32 bytes may be written.
            unsafe { _mm256_storeu_si256(to.cast(), x) }
        }

        #[inline(always)]
        unsafe fn store_f32(to: *mut f32, x: __m256) {
            // SAFETY: 32 bytes may be written.
            unsafe { _mm256_storeu_ps(to, x) }
        }

        #[inline(always)]
        unsafe fn load_table(from: *const u8) -> __m256i {
            // SAFETY: 16 bytes may be read.
            unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast())) }
        }

        #[inline(always)]
        unsafe fn splat(x: u32) -> __m256i {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm256_set1_epi32(x as i32) }
        }

        #[inline(always)]
        unsafe fn splat_f32(x: f32) -> __m256 {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm256_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn and(x: __m256i, y: __m256i) -> __m256i {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm256_and_si256(x, y) }
        }

        #[inline(always)]
        unsafe fn add_i32(x: __m256i, y: __m256i) -> __m256i {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm256_add_epi32(x, y) }
        }

        #[inline(always)]
        unsafe fn or_masked(x: __m256i, y: __m256i, mask: __m256i) -> __m256i {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm256_or_si256(x, _mm256_and_si256(y, mask)) }
        }

        #[inline(always)]
        unsafe fn shl<const N: u32>(x: __m256i) -> __m256i {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm256_sll_epi32(x, _mm_cvtsi32_si128(N as i32)) }
        }

        #[inline(always)]
        unsafe fn shr<const N: u32>(x: __m256i) -> __m256i {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm256_srl_epi32(x, _mm_cvtsi32_si128(N as i32)) }
        }

        #[inline(always)]
        unsafe fn look_up(table: __m256i, index: __m256i) -> __m256i {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm256_shuffle_epi8(table, index) }
        }

        #[inline(always)]
        unsafe fn dot_bf16(sum: __m256, w: __m256i, a: *const u8) -> __m256 {
            // SAFETY: 4 bytes may be read.
            unsafe {
                let a = a.cast::<u32>().read_unaligned();
                let low = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(w));
                let high =
                    _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32(0xffff_0000_u32 as i32)));
                let sum = _mm256_fmadd_ps(low, _mm256_set1_ps(f32::from_bits(a << 16)), sum);
                _mm256_fmadd_ps(high, _mm256_set1_ps(f32::from_bits(a & 0xffff_0000)), sum)
            }
        }

        #[inline(always)]
        unsafe fn to_f32(x: __m256i) -> __m256 {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm256_cvtepi32_ps(x) }
        }

        #[inline(always)]
        unsafe fn mul(x: __m256, y: __m256) -> __m256 {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm256_mul_ps(x, y) }
        }

        #[inline(always)]
        unsafe fn add(x: __m256, y: __m256) -> __m256 {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm256_add_ps(x, y) }
        }

        #[inline(always)]
        unsafe fn mul_add(x: __m256, y: __m256, z: __m256) -> __m256 {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm256_fmadd_ps(x, y, z) }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            // SAFETY: a prefetch never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
    };
}

impl Simd for Avx2Vnni {
    common!();

    #[inline(always)]
    unsafe fn dot(sum: __m256i, w: __m256i, a: *const u8) -> __m256i {
        // SAFETY: 4 bytes may be read.
        unsafe { _mm256_dpbusd_avx_epi32(sum, w, _mm256_set1_epi32(a.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn dot_wide(sum: __m256i, w: __m256i, a: *const u8) -> __m256i {
        // SAFETY: the same contract.
        unsafe { Self::dot(sum, w, a) }
    }
}

impl Simd for Avx2 {
    common!();

    #[inline(always)]
    unsafe fn dot(sum: __m256i, w: __m256i, a: *const u8) -> __m256i {
        // SAFETY: 4 bytes may be read. With `w` below 128 no pair overflows 16 bits.
        unsafe {
            let a = _mm256_set1_epi32(a.cast::<i32>().read_unaligned());
            let pairs = _mm256_maddubs_epi16(w, a);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn dot_wide(sum: __m256i, w: __m256i, a: *const u8) -> __m256i {
        // SAFETY: 4 bytes may be read. Even and odd bytes are widened to 16 bits and summed in 32.
        unsafe {
            let a = _mm256_set1_epi32(a.cast::<i32>().read_unaligned());
            let even = _mm256_madd_epi16(
                _mm256_and_si256(w, _mm256_set1_epi16(0xff)),
                _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(a)),
            );
            let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(w), _mm256_srai_epi16::<8>(a));
            _mm256_add_epi32(sum, _mm256_add_epi32(even, odd))
        }
    }
}

/// Interleaves the rows of a group with the compiler's vectors; see [`packed::pack_group`].
///
/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn pack_group(rows: &packed::Rows, codes: &mut [u8], scales: &mut [u8]) {
    packed::pack_group(rows, codes, scales)
}

/// AVX2 with AVX-VNNI.
pub(crate) mod vnni {
    use super::Avx2Vnni;
    crate::matmul::entries!(Avx2Vnni, features: ["avx2,fma,f16c,avxvnni"], packed: [1], unpacked: [2], halves: [2], dense: [1 2]);
}

/// AVX2 without it.
pub(crate) mod plain {
    use super::Avx2;
    crate::matmul::entries!(Avx2, features: ["avx2,fma,f16c"], packed: [1], unpacked: [2], halves: [2], dense: [1 2]);
}
