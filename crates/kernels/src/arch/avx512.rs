//! AVX-512: sixteen lanes in one register; with VNNI and BF16 the dot products are single instructions.

use super::Simd;
use crate::matmul::activation::scale_and_inverse;
use crate::matmul::kernel::{Pair, unpacked_sums};
use std::arch::x86_64::*;

/// AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

/// AVX-512 with VNNI and BF16.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Vnni;

/// The operations that both sets share.
macro_rules! common {
    () => {
        type I = __m512i;
        type F = __m512;
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn load(from: *const u8) -> __m512i {
            // SAFETY: 64 bytes may be read.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }

        #[inline(always)]
        unsafe fn load_i8(from: *const u8) -> __m512i {
            // SAFETY: 16 bytes may be read.
            unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())) }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const u8) -> __m512 {
            // SAFETY: 32 bytes may be read.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        }

        #[inline(always)]
        unsafe fn load_f32(from: *const u8) -> __m512 {
            // SAFETY: 64 bytes may be read.
            unsafe { _mm512_loadu_ps(from.cast()) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut u8, x: __m512i) {
            // SAFETY: 64 bytes may be written.
            unsafe { _mm512_storeu_si512(to.cast(), x) }
        }

        #[inline(always)]
        unsafe fn store_f32(to: *mut f32, x: __m512) {
            // SAFETY: 64 bytes may be written.
            unsafe { _mm512_storeu_ps(to, x) }
        }

        #[inline(always)]
        unsafe fn load_table(from: *const u8) -> __m512i {
            // SAFETY: 16 bytes may be read.
            unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(from.cast())) }
        }

        #[inline(always)]
        unsafe fn splat(x: u32) -> __m512i {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm512_set1_epi32(x as i32) }
        }

        #[inline(always)]
        unsafe fn splat_f32(x: f32) -> __m512 {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn and(x: __m512i, y: __m512i) -> __m512i {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm512_and_si512(x, y) }
        }

        #[inline(always)]
        unsafe fn add_i32(x: __m512i, y: __m512i) -> __m512i {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm512_add_epi32(x, y) }
        }

        #[inline(always)]
        unsafe fn or_masked(x: __m512i, y: __m512i, mask: __m512i) -> __m512i {
            // SAFETY: the caller has the instruction set. The table of x | (y & mask), x the highest bit, is 0xf8.
            unsafe { _mm512_ternarylogic_epi32::<0xf8>(x, y, mask) }
        }

        #[inline(always)]
        unsafe fn shl<const N: u32>(x: __m512i) -> __m512i {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm512_slli_epi32::<N>(x) }
        }

        #[inline(always)]
        unsafe fn shr<const N: u32>(x: __m512i) -> __m512i {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm512_srli_epi32::<N>(x) }
        }

        #[inline(always)]
        unsafe fn look_up(table: __m512i, index: __m512i) -> __m512i {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm512_shuffle_epi8(table, index) }
        }

        #[inline(always)]
        unsafe fn to_f32(x: __m512i) -> __m512 {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm512_cvtepi32_ps(x) }
        }

        #[inline(always)]
        unsafe fn mul(x: __m512, y: __m512) -> __m512 {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm512_mul_ps(x, y) }
        }

        #[inline(always)]
        unsafe fn add(x: __m512, y: __m512) -> __m512 {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm512_add_ps(x, y) }
        }

        #[inline(always)]
        unsafe fn mul_add(x: __m512, y: __m512, z: __m512) -> __m512 {
            // SAFETY: the caller has the instruction set.
            unsafe { _mm512_fmadd_ps(x, y, z) }
        }

        #[inline(always)]
        unsafe fn quantize_block(x: &[f32; 32], codes: *mut i8) -> (f32, [i32; 2]) {
            // SAFETY: 32 floats may be read and 32 bytes written.
            unsafe {
                let x = [0, 16].map(|i| _mm512_loadu_ps(x.as_ptr().add(i)));
                // As integers the magnitudes are in the order of their values, and a NaN is above all.
                let size = x.map(|x| _mm512_castps_si512(_mm512_abs_ps(x)));
                let amax = f32::from_bits(_mm512_reduce_max_epu32(_mm512_max_epu32(size[0], size[1])));
                let (scale, inverse) = scale_and_inverse(amax);
                let inverse = _mm512_set1_ps(inverse);
                let rounded = x.map(|x| _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)));
                _mm_storeu_si128(codes.cast(), _mm512_cvtsepi32_epi8(rounded[0]));
                _mm_storeu_si128(codes.cast::<__m128i>().add(1), _mm512_cvtsepi32_epi8(rounded[1]));
                // What does not fit a code, and is another number in the sum, occurs beside a scale that is no number only.
                (scale, rounded.map(|rounded| _mm512_reduce_add_epi32(rounded)))
            }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            // SAFETY: a prefetch never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
    };
}

impl Simd for Avx512Vnni {
    common!();

    #[inline(always)]
    unsafe fn unpacked_sums<const WIDE: bool, const HALVES: bool, const MINS: bool, const TN: usize>(
        pair: &Pair,
    ) -> [[__m512; TN]; 2] {
        let sums = match (HALVES, MINS, TN) {
            (false, false, 6) => ordered::whole,
            (false, true, 6) => ordered::whole_mins,
            (true, false, 4) => ordered::halves,
            (true, true, 4) => ordered::halves_mins,
            // SAFETY: the same contract.
            _ => return unsafe { unpacked_sums::<Self, WIDE, HALVES, MINS, TN>(pair) },
        };
        let mut out = [[0.0; 16]; 12];
        // SAFETY: the functions write `2 * TN` vectors of at most 12, and need what this instruction set has.
        unsafe {
            sums(pair, out.as_mut_ptr().cast());
            let vector = |i: usize| _mm512_loadu_ps(out[i].as_ptr());
            [std::array::from_fn(vector), std::array::from_fn(|t| vector(TN + t))]
        }
    }

    #[inline(always)]
    unsafe fn dot(sum: __m512i, w: __m512i, a: *const u8) -> __m512i {
        // SAFETY: 4 bytes may be read.
        unsafe { _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(a.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn dot_wide(sum: __m512i, w: __m512i, a: *const u8) -> __m512i {
        // SAFETY: the same contract.
        unsafe { Self::dot(sum, w, a) }
    }

    #[inline(always)]
    unsafe fn dot_bf16(sum: __m512, w: __m512i, a: *const u8) -> __m512 {
        // SAFETY: 4 bytes may be read; the vectors of integers and of bf16 are the same 512 bits.
        unsafe {
            let a = _mm512_set1_epi32(a.cast::<i32>().read_unaligned());
            _mm512_dpbf16_ps(
                sum,
                std::mem::transmute::<__m512i, __m512bh>(w),
                std::mem::transmute::<__m512i, __m512bh>(a),
            )
        }
    }
}

impl Simd for Avx512 {
    common!();

    #[inline(always)]
    unsafe fn dot(sum: __m512i, w: __m512i, a: *const u8) -> __m512i {
        // SAFETY: 4 bytes may be read. With `w` below 128 no pair overflows 16 bits.
        unsafe {
            let a = _mm512_set1_epi32(a.cast::<i32>().read_unaligned());
            let pairs = _mm512_maddubs_epi16(w, a);
            _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn dot_wide(sum: __m512i, w: __m512i, a: *const u8) -> __m512i {
        // SAFETY: 4 bytes may be read. Even and odd bytes are widened to 16 bits and summed in 32.
        unsafe {
            let a = _mm512_set1_epi32(a.cast::<i32>().read_unaligned());
            let even = _mm512_madd_epi16(
                _mm512_and_si512(w, _mm512_set1_epi16(0xff)),
                _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(a)),
            );
            let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(w), _mm512_srai_epi16::<8>(a));
            _mm512_add_epi32(sum, _mm512_add_epi32(even, odd))
        }
    }

    #[inline(always)]
    unsafe fn dot_bf16(sum: __m512, w: __m512i, a: *const u8) -> __m512 {
        // SAFETY: 4 bytes may be read.
        unsafe {
            let a = a.cast::<u32>().read_unaligned();
            let low = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(w));
            let high = _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32(0xffff_0000_u32 as i32)));
            let sum = _mm512_fmadd_ps(low, _mm512_set1_ps(f32::from_bits(a << 16)), sum);
            _mm512_fmadd_ps(high, _mm512_set1_ps(f32::from_bits(a & 0xffff_0000)), sum)
        }
    }
}

mod ordered;

/// AVX-512 with VNNI and BF16.
pub(crate) mod vnni {
    use super::Avx512Vnni;
    crate::matmul::entries!(
        Avx512Vnni,
        features: ["avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c"],
        packed: [1 4 8],
        unpacked: [2 6],
        halves: [2 4],
        dense: [1 2 6]
    );
}

/// AVX-512 without them.
pub(crate) mod plain {
    use super::Avx512;
    crate::matmul::entries!(
        Avx512,
        features: ["avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"],
        packed: [1],
        unpacked: [2 6],
        halves: [4],
        dense: [1 6]
    );
}
