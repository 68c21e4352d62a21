//! The quantized types as the micro-kernels read them: how a block's codes and scales come out of the packed planes.
//!
//! A group is sixteen rows. For each 32 columns (a block) the plane of codes holds, in the order low bits, high bits,
//! vectors of sixteen 32-bit lanes, lane = row. The codes of a block are eight vectors; vector `j`, byte `b` is
//! column `4 j + b`:
//! - 8 bits: the eight vectors.
//! - 4 bits: vector `v` of 4 holds `j = v` in its low and `j = v + 4` in its high nibbles.
//! - 2 bits: vector `v` of 2 holds `j = 4 v + i` in its bits `2 i` and `2 i + 1`; as low bits or above 4 low bits.
//! - 1 bit above the low bits: one vector, `j` in its bit `j`.
//!
//! The plane of scales holds, for each block of the file (32 or 256 columns), its scale fields in the order of
//! [`Layout::fields`], each sixteen times, row after row.

use super::layout::Layout;
use crate::arch::Simd;
use crate::dtype::DType;

/// The factors of one block for a vector of rows: `value = scale[h] code + min[h]`, `h` = half of the block; types with
/// one scale a block use only the first. The offset of symmetric types is in the activations' part.
pub(crate) struct Factors<F> {
    pub scale: [F; 2],
    pub min: [F; 2],
}

/// A quantized type.
pub(crate) trait Format<S: Simd> {
    const DTYPE: DType;
    const LAYOUT: Layout = Layout::of(Self::DTYPE);
    /// Blocks of 32 columns in a block of the file.
    const BLOCKS: usize = Self::DTYPE_BLOCK / 32;
    const DTYPE_BLOCK: usize = super::layout::block_len(Self::DTYPE);
    /// Whether a block has two scales.
    const HALVES: bool = false;
    /// Whether values have a minimum instead of a constant offset.
    const MINS: bool = false;
    /// Whether codes reach 128.
    const WIDE: bool = false;
    /// Decoded scales of a block of the file.
    type Scales;

    /// The codes of the block at `codes`, which is already at the first lane wanted.
    ///
    /// # Safety
    /// The block's plane is readable and the CPU has `S`.
    unsafe fn codes(codes: *const u8) -> [S::I; 8];

    /// Decodes the scales of the file's block at `scales` for the lanes from `lane`.
    ///
    /// # Safety
    /// The block's plane is readable and the CPU has `S`.
    unsafe fn scales(scales: *const u8, lane: usize) -> Self::Scales;

    /// The factors of block `block` of the file's block.
    ///
    /// # Safety
    /// The CPU has `S`.
    unsafe fn factors(scales: &Self::Scales, block: usize) -> Factors<S::F>;
}

/// Bytes between the vectors of a plane.
const VECTOR: usize = 64;

#[inline(always)]
unsafe fn nibbles<S: Simd>(codes: *const u8) -> [S::I; 8] {
    // SAFETY: the caller's promise.
    unsafe {
        let mask = S::splat(0x0f0f_0f0f);
        let x = [0, 1, 2, 3].map(|v| S::load(codes.add(v * VECTOR)));
        let low = |v: usize| S::and(x[v], mask);
        let high = |v: usize| S::and(S::shr::<4>(x[v]), mask);
        [low(0), low(1), low(2), low(3), high(0), high(1), high(2), high(3)]
    }
}

/// Four codes of 2 bits from one vector.
#[inline(always)]
unsafe fn crumbs<S: Simd>(x: S::I) -> [S::I; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let mask = S::splat(0x0303_0303);
        [
            S::and(x, mask),
            S::and(S::shr::<2>(x), mask),
            S::and(S::shr::<4>(x), mask),
            S::and(S::shr::<6>(x), mask),
        ]
    }
}

/// Sets bit 4 of the codes from the plane's one vector of high bits.
#[inline(always)]
unsafe fn with_bit_4<S: Simd>(codes: [S::I; 8], high: *const u8) -> [S::I; 8] {
    // SAFETY: the caller's promise.
    unsafe {
        let (c, x, mask) = (codes, S::load(high), S::splat(0x1010_1010));
        [
            S::or_masked(c[0], S::shl::<4>(x), mask),
            S::or_masked(c[1], S::shl::<3>(x), mask),
            S::or_masked(c[2], S::shl::<2>(x), mask),
            S::or_masked(c[3], S::shl::<1>(x), mask),
            S::or_masked(c[4], x, mask),
            S::or_masked(c[5], S::shr::<1>(x), mask),
            S::or_masked(c[6], S::shr::<2>(x), mask),
            S::or_masked(c[7], S::shr::<3>(x), mask),
        ]
    }
}

/// Loads halves from field `field` of 16-bit fields at `scales`.
#[inline(always)]
unsafe fn half_field<S: Simd>(scales: *const u8, offset: usize, lane: usize) -> S::F {
    // SAFETY: the caller's promise.
    unsafe { S::load_f16(scales.add(offset + 2 * lane)) }
}

/// Types of 32 columns with one scale, and perhaps one minimum, in half precision.
macro_rules! simple {
    ($name:ident, $dtype:ident, mins: $mins:literal, wide: $wide:literal, $codes:expr) => {
        pub(crate) struct $name;

        impl<S: Simd> Format<S> for $name {
            const DTYPE: DType = DType::$dtype;
            const MINS: bool = $mins;
            const WIDE: bool = $wide;
            type Scales = [S::F; 2];

            #[inline(always)]
            unsafe fn codes(codes: *const u8) -> [S::I; 8] {
                let decode: unsafe fn(*const u8) -> [S::I; 8] = $codes;
                // SAFETY: the caller's promise.
                unsafe { decode(codes) }
            }

            #[inline(always)]
            unsafe fn scales(scales: *const u8, lane: usize) -> [S::F; 2] {
                // SAFETY: the caller's promise.
                unsafe {
                    let scale = half_field::<S>(scales, 0, lane);
                    [scale, if $mins { half_field::<S>(scales, 32, lane) } else { scale }]
                }
            }

            #[inline(always)]
            unsafe fn factors(scales: &[S::F; 2], _block: usize) -> Factors<S::F> {
                Factors { scale: [scales[0]; 2], min: [scales[1]; 2] }
            }
        }
    };
}

/// The values of IQ4_NL's sixteen codes, plus 128.
static IQ4_NL: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

#[inline(always)]
unsafe fn bytes<S: Simd>(codes: *const u8) -> [S::I; 8] {
    // SAFETY: the caller's promise.
    unsafe { [0, 1, 2, 3, 4, 5, 6, 7].map(|v| S::load(codes.add(v * VECTOR))) }
}

#[inline(always)]
unsafe fn five_bits<S: Simd>(codes: *const u8) -> [S::I; 8] {
    // SAFETY: the caller's promise.
    unsafe { with_bit_4::<S>(nibbles::<S>(codes), codes.add(4 * VECTOR)) }
}

#[inline(always)]
unsafe fn iq4_nl<S: Simd>(codes: *const u8) -> [S::I; 8] {
    // SAFETY: the caller's promise; the table has 16 bytes.
    unsafe {
        let table = S::load_table(IQ4_NL.as_ptr());
        nibbles::<S>(codes).map(|c| S::look_up(table, c))
    }
}

simple!(Q4_0, Q4_0, mins: false, wide: false, nibbles::<S>);
simple!(Q4_1, Q4_1, mins: true, wide: false, nibbles::<S>);
simple!(Q5_0, Q5_0, mins: false, wide: false, five_bits::<S>);
simple!(Q5_1, Q5_1, mins: true, wide: false, five_bits::<S>);
simple!(Q8_0, Q8_0, mins: false, wide: true, bytes::<S>);
simple!(Iq4Nl, Iq4Nl, mins: false, wide: true, iq4_nl::<S>);

/// The sixteen 6-bit numbers that Q3_K, Q4_K and Q5_K keep in 12 bytes, as four vectors of bytes: from the three
/// 32-bit fields at `scales`.
#[inline(always)]
unsafe fn six_bit_fields<S: Simd>(scales: *const u8, lane: usize) -> [S::I; 3] {
    // SAFETY: the caller's promise.
    unsafe { [0, 1, 2].map(|i| S::load(scales.add(i * VECTOR + 4 * lane))) }
}

/// Byte `N` of each lane, unsigned, as a float.
#[inline(always)]
unsafe fn byte<S: Simd, const SHIFT: u32>(x: S::I) -> S::F {
    // SAFETY: the caller's promise.
    unsafe { S::to_f32(S::and(S::shr::<SHIFT>(x), S::splat(0xff))) }
}

/// The four bytes of each lane as floats.
#[inline(always)]
unsafe fn four<S: Simd>(x: S::I) -> [S::F; 4] {
    // SAFETY: the caller's promise.
    unsafe { [byte::<S, 0>(x), byte::<S, 8>(x), byte::<S, 16>(x), S::to_f32(S::shr::<24>(x))] }
}

/// Q4_K and Q5_K: eight scales and eight minima of 6 bits for 256 columns.
macro_rules! k_with_mins {
    ($name:ident, $codes:expr) => {
        pub(crate) struct $name;

        impl<S: Simd> Format<S> for $name {
            const DTYPE: DType = DType::$name;
            const MINS: bool = true;
            type Scales = [[S::F; 2]; 8];

            #[inline(always)]
            unsafe fn codes(codes: *const u8) -> [S::I; 8] {
                let decode: unsafe fn(*const u8) -> [S::I; 8] = $codes;
                // SAFETY: the caller's promise.
                unsafe { decode(codes) }
            }

            #[inline(always)]
            unsafe fn scales(scales: *const u8, lane: usize) -> [[S::F; 2]; 8] {
                // SAFETY: the caller's promise.
                unsafe {
                    let [a, b, c] = six_bit_fields::<S>(scales, lane);
                    let (low_6, low_4, mask) =
                        (S::splat(0x3f3f_3f3f), S::splat(0x0f0f_0f0f), S::splat(0x3030_3030));
                    let first = four::<S>(S::and(a, low_6));
                    let second = four::<S>(S::or_masked(S::and(c, low_4), S::shr::<2>(a), mask));
                    let first_min = four::<S>(S::and(b, low_6));
                    let second_min =
                        four::<S>(S::or_masked(S::and(S::shr::<4>(c), low_4), S::shr::<2>(b), mask));
                    let d = half_field::<S>(scales, 3 * VECTOR, lane);
                    let minus_d_min =
                        S::mul(half_field::<S>(scales, 3 * VECTOR + 32, lane), S::splat_f32(-1.0));
                    let pair = |s: S::F, m: S::F| [S::mul(d, s), S::mul(minus_d_min, m)];
                    [
                        pair(first[0], first_min[0]),
                        pair(first[1], first_min[1]),
                        pair(first[2], first_min[2]),
                        pair(first[3], first_min[3]),
                        pair(second[0], second_min[0]),
                        pair(second[1], second_min[1]),
                        pair(second[2], second_min[2]),
                        pair(second[3], second_min[3]),
                    ]
                }
            }

            #[inline(always)]
            unsafe fn factors(scales: &[[S::F; 2]; 8], block: usize) -> Factors<S::F> {
                let [scale, min] = scales[block];
                Factors { scale: [scale; 2], min: [min; 2] }
            }
        }
    };
}

k_with_mins!(Q4K, nibbles::<S>);
k_with_mins!(Q5K, five_bits::<S>);

pub(crate) struct Q6K;

impl<S: Simd> Format<S> for Q6K {
    const DTYPE: DType = DType::Q6K;
    const HALVES: bool = true;
    type Scales = (*const u8, S::F);

    #[inline(always)]
    unsafe fn codes(codes: *const u8) -> [S::I; 8] {
        // SAFETY: the caller's promise.
        unsafe {
            let c = nibbles::<S>(codes);
            let (x, y) = (S::load(codes.add(4 * VECTOR)), S::load(codes.add(5 * VECTOR)));
            let mask = S::splat(0x3030_3030);
            [
                S::or_masked(c[0], S::shl::<4>(x), mask),
                S::or_masked(c[1], S::shl::<2>(x), mask),
                S::or_masked(c[2], x, mask),
                S::or_masked(c[3], S::shr::<2>(x), mask),
                S::or_masked(c[4], S::shl::<4>(y), mask),
                S::or_masked(c[5], S::shl::<2>(y), mask),
                S::or_masked(c[6], y, mask),
                S::or_masked(c[7], S::shr::<2>(y), mask),
            ]
        }
    }

    #[inline(always)]
    unsafe fn scales(scales: *const u8, lane: usize) -> (*const u8, S::F) {
        // SAFETY: the caller's promise. Sixteen fields of one byte come before the half.
        unsafe { (scales.add(lane), half_field::<S>(scales, 256, lane)) }
    }

    #[inline(always)]
    unsafe fn factors(&(scales, d): &(*const u8, S::F), block: usize) -> Factors<S::F> {
        // SAFETY: the caller's promise.
        unsafe {
            let scale = |h: usize| S::mul(d, S::to_f32(S::load_i8(scales.add((2 * block + h) * 16))));
            Factors { scale: [scale(0), scale(1)], min: [d; 2] }
        }
    }
}

pub(crate) struct Q3K;

impl<S: Simd> Format<S> for Q3K {
    const DTYPE: DType = DType::Q3K;
    const HALVES: bool = true;
    type Scales = [[S::F; 2]; 8];

    #[inline(always)]
    unsafe fn codes(codes: *const u8) -> [S::I; 8] {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b, c, d] = crumbs::<S>(S::load(codes));
            let [e, f, g, h] = crumbs::<S>(S::load(codes.add(VECTOR)));
            let (x, mask) = (S::load(codes.add(2 * VECTOR)), S::splat(0x0404_0404));
            [
                S::or_masked(a, S::shl::<2>(x), mask),
                S::or_masked(b, S::shl::<1>(x), mask),
                S::or_masked(c, x, mask),
                S::or_masked(d, S::shr::<1>(x), mask),
                S::or_masked(e, S::shr::<2>(x), mask),
                S::or_masked(f, S::shr::<3>(x), mask),
                S::or_masked(g, S::shr::<4>(x), mask),
                S::or_masked(h, S::shr::<5>(x), mask),
            ]
        }
    }

    #[inline(always)]
    unsafe fn scales(scales: *const u8, lane: usize) -> [[S::F; 2]; 8] {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b, c] = six_bit_fields::<S>(scales, lane);
            let (low_4, mask) = (S::splat(0x0f0f_0f0f), S::splat(0x3030_3030));
            let d = half_field::<S>(scales, 3 * VECTOR, lane);
            let offset = S::splat_f32(-32.0);
            let scale = |x: S::F| S::mul(d, S::add(x, offset));
            let s = four::<S>(S::or_masked(S::and(a, low_4), S::shl::<4>(c), mask));
            let t = four::<S>(S::or_masked(S::and(b, low_4), S::shl::<2>(c), mask));
            let u = four::<S>(S::or_masked(S::and(S::shr::<4>(a), low_4), c, mask));
            let v = four::<S>(S::or_masked(S::and(S::shr::<4>(b), low_4), S::shr::<2>(c), mask));
            [
                [scale(s[0]), scale(s[1])],
                [scale(s[2]), scale(s[3])],
                [scale(t[0]), scale(t[1])],
                [scale(t[2]), scale(t[3])],
                [scale(u[0]), scale(u[1])],
                [scale(u[2]), scale(u[3])],
                [scale(v[0]), scale(v[1])],
                [scale(v[2]), scale(v[3])],
            ]
        }
    }

    #[inline(always)]
    unsafe fn factors(scales: &[[S::F; 2]; 8], block: usize) -> Factors<S::F> {
        Factors { scale: scales[block], min: scales[block] }
    }
}

pub(crate) struct Q2K;

impl<S: Simd> Format<S> for Q2K {
    const DTYPE: DType = DType::Q2K;
    const HALVES: bool = true;
    const MINS: bool = true;
    type Scales = (*const u8, S::F, S::F);

    #[inline(always)]
    unsafe fn codes(codes: *const u8) -> [S::I; 8] {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b, c, d] = crumbs::<S>(S::load(codes));
            let [e, f, g, h] = crumbs::<S>(S::load(codes.add(VECTOR)));
            [a, b, c, d, e, f, g, h]
        }
    }

    #[inline(always)]
    unsafe fn scales(scales: *const u8, lane: usize) -> (*const u8, S::F, S::F) {
        // SAFETY: the caller's promise. Sixteen fields of one byte come before the two halves.
        unsafe {
            let minus_d_min = S::mul(half_field::<S>(scales, 288, lane), S::splat_f32(-1.0));
            (scales.add(lane), half_field::<S>(scales, 256, lane), minus_d_min)
        }
    }

    #[inline(always)]
    unsafe fn factors(&(scales, d, minus_d_min): &(*const u8, S::F, S::F), block: usize) -> Factors<S::F> {
        // SAFETY: the caller's promise.
        unsafe {
            let (low, mask) = (S::splat(0x0f), S::splat(0x0f));
            let field = |h: usize| S::load_i8(scales.add((2 * block + h) * 16));
            let scale = |h: usize| S::mul(d, S::to_f32(S::and(field(h), low)));
            let min = |h: usize| S::mul(minus_d_min, S::to_f32(S::and(S::shr::<4>(field(h)), mask)));
            Factors { scale: [scale(0), scale(1)], min: [min(0), min(1)] }
        }
    }
}
