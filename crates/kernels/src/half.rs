//! The 16-bit floats: IEEE half precision (f16) and bfloat16, kept as their bits in `u16`.
//!
//! Narrowing rounds to the nearest, ties to even, with subnormals and infinities; a NaN stays a NaN (quiet, sign and
//! leading payload bits kept), as the F16C instructions have it. Widening is exact. No arithmetic is done in 16 bits.
//!
//! Source: IEEE 754-2008, section 3.6 (binary16) and 4.3.1 (rounding).

use crate::arch::vector::{Vector, per_isa};
use crate::rows::Start;
use crate::{isa, rows, threads};

/// A little-endian 16-bit float inside a block of a file: two bytes without alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Half(pub [u8; 2]);

impl Half {
    /// The half nearest to `x`.
    #[inline(always)]
    pub fn from_f32(x: f32) -> Half {
        Half(f32_to_f16(x).to_le_bytes())
    }

    /// The value, exactly.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        f16_to_f32(u16::from_le_bytes(self.0))
    }
}

/// The value of the half with these bits, exactly.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff) << 13;
    // The exponent's bias grows from 15 to 127; as a product this is right for subnormals too.
    let scaled = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    let quiet = if magnitude > 0x7c00 << 13 { 0x0040_0000 } else { 0 };
    let special = magnitude | 0x7f80_0000 | quiet;
    f32::from_bits(sign | if magnitude >= 0x7c00 << 13 { special } else { scaled })
}

/// The bits of the half nearest to `x`, ties to even.
#[inline(always)]
pub fn f32_to_f16(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16) & 0x8000;
    let magnitude = x.to_bits() & 0x7fff_ffff;
    let half = if magnitude > 0x7f80_0000 {
        0x7e00 | (magnitude >> 13) & 0x01ff
    } else if magnitude < 0x3880_0000 {
        // Below the least normal half, 2^-14: 0.5 has the spacing of subnormal halves, so the sum rounds to it.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits()
    } else {
        let rounded = magnitude + 0x0fff + ((magnitude >> 13) & 1);
        ((rounded - (112 << 23)) >> 13).min(0x7c00)
    };
    (sign | half) as u16
}

/// The value of the bfloat16 with these bits, exactly.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The bits of the bfloat16 nearest to `x`, ties to even.
#[inline(always)]
pub fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let quiet_nan = (bits >> 16) | 0x40;
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    (if bits & 0x7fff_ffff > 0x7f80_0000 { quiet_nan } else { rounded }) as u16
}

/// Widens halves: `out[i] = f16_to_f32(bits[i])`. Panics if the lengths differ.
pub fn f16_slice_to_f32(bits: &[u16], out: &mut [f32]) {
    assert_eq!(bits.len(), out.len(), "halves and floats");
    #[cfg(target_arch = "x86_64")]
    if isa::active() >= isa::Isa::Avx2 {
        // SAFETY: `Isa::Avx2` is active only where AVX and F16C exist; `bits` has as many halves as `out` floats.
        return unsafe { x86::widen_f16(bits.as_ptr().cast(), out) };
    }
    widen(bits, out, f16_to_f32);
}

/// Widens halves as they lie in a file, little-endian. Panics if the lengths differ.
pub fn f16_bytes_to_f32(bytes: &[[u8; 2]], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len(), "halves and floats");
    #[cfg(target_arch = "x86_64")]
    if isa::active() >= isa::Isa::Avx2 {
        // SAFETY: `Isa::Avx2` is active only where AVX and F16C exist; `bytes` has as many halves as `out` floats.
        return unsafe { x86::widen_f16(bytes.as_ptr().cast(), out) };
    }
    widen(bytes, out, |b| f16_to_f32(u16::from_le_bytes(b)));
}

/// Narrows floats: `out[i] = f32_to_f16(values[i])`. Panics if the lengths differ.
pub fn f32_slice_to_f16(values: &[f32], out: &mut [u16]) {
    assert_eq!(values.len(), out.len(), "floats and halves");
    #[cfg(target_arch = "x86_64")]
    if isa::active() >= isa::Isa::Avx2 {
        // SAFETY: `Isa::Avx2` is active only where AVX and F16C exist; `out` has as many halves as `values` floats.
        return unsafe { x86::narrow_f16(values, out.as_mut_ptr().cast()) };
    }
    narrow(values, out, f32_to_f16);
}

/// Narrows floats to halves as they lie in a file, little-endian. Panics if the lengths differ.
pub fn f32_slice_to_f16_bytes(values: &[f32], out: &mut [[u8; 2]]) {
    assert_eq!(values.len(), out.len(), "floats and halves");
    #[cfg(target_arch = "x86_64")]
    if isa::active() >= isa::Isa::Avx2 {
        // SAFETY: `Isa::Avx2` is active only where AVX and F16C exist; `out` has as many halves as `values` floats.
        return unsafe { x86::narrow_f16(values, out.as_mut_ptr().cast()) };
    }
    narrow(values, out, |x| f32_to_f16(x).to_le_bytes());
}

/// Widens bfloat16s: `out[i] = bf16_to_f32(bits[i])`. Panics if the lengths differ.
pub fn bf16_slice_to_f32(bits: &[u16], out: &mut [f32]) {
    assert_eq!(bits.len(), out.len(), "bfloat16s and floats");
    widen_bf16_block(isa::active(), bits, out);
}

/// Widens bfloat16s as they lie in a file, little-endian. Panics if the lengths differ.
pub fn bf16_bytes_to_f32(bytes: &[[u8; 2]], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len(), "bfloat16s and floats");
    widen(bytes, out, |b| bf16_to_f32(u16::from_le_bytes(b)));
}

/// Narrows floats: `out[i] = f32_to_bf16(values[i])`. Panics if the lengths differ.
pub fn f32_slice_to_bf16(values: &[f32], out: &mut [u16]) {
    assert_eq!(values.len(), out.len(), "floats and bfloat16s");
    narrow_bf16_block(isa::active(), values, out);
}

/// Narrows floats to bfloat16s as they lie in a file, little-endian. Panics if the lengths differ.
pub fn f32_slice_to_bf16_bytes(values: &[f32], out: &mut [[u8; 2]]) {
    assert_eq!(values.len(), out.len(), "floats and bfloat16s");
    narrow(values, out, |x| f32_to_bf16(x).to_le_bytes());
}

/// Narrows floats as [`f32_slice_to_bf16`] does, on all threads, so never from inside a part of
/// [`threads::run`](crate::threads::run): how activations are kept for the backward pass. Panics if the
/// lengths differ.
#[track_caller]
pub fn narrow_bf16(values: &[f32], out: &mut [u16]) {
    assert_eq!(values.len(), out.len(), "floats and bfloat16s");
    let (isa, start) = (isa::active(), Start(out.as_mut_ptr()));
    threads::run(values.len().div_ceil(PART_LEN), |part| {
        let (first, len) = (part * PART_LEN, PART_LEN.min(values.len() - part * PART_LEN));
        // SAFETY: parts are disjoint ranges of `out`, which is as long as `values`.
        let out = unsafe { std::slice::from_raw_parts_mut(start.at(first), len) };
        narrow_bf16_block(isa, &values[first..first + len], out);
    });
}

/// Widens bfloat16s as [`bf16_slice_to_f32`] does, on all threads, so never from inside a part of
/// [`threads::run`](crate::threads::run). Panics if the lengths differ.
#[track_caller]
pub fn widen_bf16(bits: &[u16], out: &mut [f32]) {
    assert_eq!(bits.len(), out.len(), "bfloat16s and floats");
    let isa = isa::active();
    rows::for_each_block(out, 1, |first, out| widen_bf16_block(isa, &bits[first..first + out.len()], out));
}

/// Values of one part.
const PART_LEN: usize = 16 * 1024;

per_isa! { fn narrow_bf16_block(values: &[f32], out: &mut [u16]) = narrow_bf16_body }
per_isa! { fn widen_bf16_block(bits: &[u16], out: &mut [f32]) = widen_bf16_body }

#[inline(always)]
fn narrow_bf16_body<V: Vector>(values: &[f32], out: &mut [u16]) {
    narrow(values, out, f32_to_bf16);
}

#[inline(always)]
fn widen_bf16_body<V: Vector>(bits: &[u16], out: &mut [f32]) {
    widen(bits, out, bf16_to_f32);
}

/// The loops that the compiler vectorises: integer operations and selects only.
#[inline(always)]
fn widen<T: Copy>(source: &[T], target: &mut [f32], convert: impl Fn(T) -> f32) {
    target.iter_mut().zip(source).for_each(|(out, &x)| *out = convert(x));
}

#[inline(always)]
fn narrow<T>(source: &[f32], target: &mut [T], convert: impl Fn(f32) -> T) {
    target.iter_mut().zip(source).for_each(|(out, &x)| *out = convert(x));
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{f16_to_f32, f32_to_f16};
    use std::arch::x86_64::*;

    /// # Safety
    /// The CPU has AVX and F16C; `halves` points to `out.len()` halves, which need no alignment.
    #[target_feature(enable = "avx,f16c")]
    pub unsafe fn widen_f16(halves: *const u16, out: &mut [f32]) {
        let mut chunks = out.chunks_exact_mut(8);
        let mut i = 0;
        for chunk in &mut chunks {
            // SAFETY: eight halves from `i` on are inside the source and eight floats inside the chunk.
            unsafe {
                _mm256_storeu_ps(chunk.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(halves.add(i).cast())))
            };
            i += 8;
        }
        for out in chunks.into_remainder() {
            // SAFETY: `i` is below the number of halves.
            *out = f16_to_f32(unsafe { halves.add(i).read_unaligned() });
            i += 1;
        }
    }

    /// # Safety
    /// The CPU has AVX and F16C; `halves` points to room for `values.len()` halves, which needs no alignment.
    #[target_feature(enable = "avx,f16c")]
    pub unsafe fn narrow_f16(values: &[f32], halves: *mut u16) {
        let chunks = values.chunks_exact(8);
        let rest = chunks.remainder();
        let mut i = 0;
        for chunk in chunks {
            // SAFETY: eight floats are inside the chunk and eight halves from `i` on inside the target.
            unsafe {
                let rounded = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(chunk.as_ptr()));
                _mm_storeu_si128(halves.add(i).cast(), rounded);
            }
            i += 8;
        }
        for &x in rest {
            // SAFETY: `i` is below the number of values.
            unsafe { halves.add(i).write_unaligned(f32_to_f16(x)) };
            i += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: f32, b: f32) -> bool {
        a.to_bits() == b.to_bits()
    }

    /// The definition, in f64: sign, exponent, mantissa.
    fn half_by_definition(bits: u16) -> f64 {
        let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
        let (exponent, mantissa) = (i32::from(bits >> 10) & 0x1f, f64::from(bits & 0x3ff));
        match exponent {
            0 => sign * mantissa * 2f64.powi(-24),
            31 if mantissa == 0.0 => sign * f64::INFINITY,
            31 => f64::NAN,
            _ => sign * (1024.0 + mantissa) * 2f64.powi(exponent - 25),
        }
    }

    #[test]
    fn every_half_widens_to_its_definition_and_comes_back() {
        for bits in 0..=u16::MAX {
            let (x, expected) = (f16_to_f32(bits), half_by_definition(bits));
            if expected.is_nan() {
                assert!(x.is_nan());
                assert_eq!(f32_to_f16(x), bits | 0x200, "a NaN comes back quiet");
            } else {
                assert_eq!(f64::from(x), expected);
                assert_eq!(x.is_sign_negative(), bits & 0x8000 != 0);
                assert_eq!(f32_to_f16(x), bits);
            }
        }
    }

    #[test]
    fn every_midpoint_between_halves_goes_to_the_even_one() {
        for bits in 0..0x7c00u16 {
            // The neighbour of the greatest half, 65504, counts as 65536 for rounding.
            let above = if bits == 0x7bff { 65536.0 } else { half_by_definition(bits + 1) };
            let middle = ((half_by_definition(bits) + above) / 2.0) as f32;
            let even = if bits % 2 == 0 { bits } else { bits + 1 };
            for (sign, x) in [(0, middle), (0x8000, -middle)] {
                assert_eq!(f32_to_f16(x), sign | even, "{middle}");
            }
            assert_eq!(f32_to_f16(f32::from_bits(middle.to_bits() - 1)), bits);
            assert_eq!(f32_to_f16(f32::from_bits(middle.to_bits() + 1)), bits + 1);
        }
    }

    #[test]
    fn what_is_too_large_becomes_infinite_and_what_is_too_small_zero() {
        let cases = [
            (f32::INFINITY, 0x7c00),
            (f32::NEG_INFINITY, 0xfc00),
            (f32::MAX, 0x7c00),
            (65520.0, 0x7c00),
            (65519.996, 0x7bff),
            (1e-45, 0),
            (-1e-45, 0x8000),
            (f32::from_bits(0x7f80_0001), 0x7e00),
            (f32::from_bits(0xffc0_0000), 0xfe00),
        ];
        for (x, bits) in cases {
            assert_eq!(f32_to_f16(x), bits, "{x}");
        }
    }

    #[test]
    fn every_bfloat16_comes_back_and_midpoints_go_to_even() {
        for bits in 0..=u16::MAX {
            let x = bf16_to_f32(bits);
            if x.is_nan() {
                assert_eq!(f32_to_bf16(x), bits | 0x40);
                continue;
            }
            assert_eq!(f32_to_bf16(x), bits);
            if x.is_finite() {
                let middle = f32::from_bits(x.to_bits() | 0x8000);
                assert_eq!(f32_to_bf16(middle), bits + bits % 2);
                assert_eq!(f32_to_bf16(f32::from_bits(middle.to_bits() - 1)), bits);
                assert_eq!(f32_to_bf16(f32::from_bits(middle.to_bits() + 1)), bits + 1);
            }
        }
    }

    #[test]
    fn slices_convert_like_single_values_at_every_length() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        for n in [0, 1, 7, 8, 9, 1000, all.len()] {
            let bits = &all[all.len() - n..];
            let bytes: Vec<[u8; 2]> = bits.iter().map(|b| b.to_le_bytes()).collect();
            let mut out = vec![0.0; n];
            f16_slice_to_f32(bits, &mut out);
            assert!(out.iter().zip(bits).all(|(&x, &b)| same(x, f16_to_f32(b))));
            f16_bytes_to_f32(&bytes, &mut out);
            assert!(out.iter().zip(bits).all(|(&x, &b)| same(x, f16_to_f32(b))));
            bf16_slice_to_f32(bits, &mut out);
            assert!(out.iter().zip(bits).all(|(&x, &b)| same(x, bf16_to_f32(b))));
            bf16_bytes_to_f32(&bytes, &mut out);
            assert!(out.iter().zip(bits).all(|(&x, &b)| same(x, bf16_to_f32(b))));
        }
        // Floats all over the range, NaNs among them: a multiplicative walk through the bit patterns.
        let floats: Vec<f32> =
            (0..100_003u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761))).collect();
        for n in [0, 1, 7, 8, 9, floats.len()] {
            let (values, mut bits, mut bytes) = (&floats[..n], vec![0; n], vec![[0; 2]; n]);
            f32_slice_to_f16(values, &mut bits);
            f32_slice_to_f16_bytes(values, &mut bytes);
            let expected: Vec<u16> = values.iter().map(|&x| f32_to_f16(x)).collect();
            assert_eq!(bits, expected);
            assert_eq!(bytes, expected.iter().map(|b| b.to_le_bytes()).collect::<Vec<_>>());
            f32_slice_to_bf16(values, &mut bits);
            f32_slice_to_bf16_bytes(values, &mut bytes);
            let expected: Vec<u16> = values.iter().map(|&x| f32_to_bf16(x)).collect();
            assert_eq!(bits, expected);
            assert_eq!(bytes, expected.iter().map(|b| b.to_le_bytes()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn great_slices_are_cut_over_threads_without_a_seam() {
        let n = 100_003;
        let values: Vec<f32> = (0..n as u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761))).collect();
        let expected: Vec<u16> = values.iter().map(|&x| f32_to_bf16(x)).collect();
        let mut bits = vec![0; n];
        narrow_bf16(&values, &mut bits);
        assert_eq!(bits, expected);
        let mut out = vec![0.0; n];
        widen_bf16(&bits, &mut out);
        assert!(out.iter().zip(&bits).all(|(&x, &b)| same(x, bf16_to_f32(b))));
        for isa in isa::Isa::available() {
            let (mut narrow, mut wide) = (vec![0; 1000], vec![0.0; 1000]);
            narrow_bf16_block(isa, &values[..1000], &mut narrow);
            widen_bf16_block(isa, &bits[..1000], &mut wide);
            assert!(narrow == expected[..1000] && wide.iter().zip(&out).all(|(&x, &y)| same(x, y)));
        }
    }
}
