//! From a scaled float to the integer level that a block stores, and levels to bits.

/// The nearest integer, ties to even, for |x| <= 2^22.
///
/// Adding 1.5 * 2^23 leaves no room for fractions in the sum's mantissa. Outside that range, and for a NaN, the
/// result is some integer of 23 bits: ggml's, since the same bits are taken.
#[inline(always)]
pub(super) fn nearest(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// `x` without its fraction; `i32::MIN` for a NaN or what no `i32` can hold, as the x86 instruction has it.
#[inline(always)]
pub(super) fn truncate(x: f32) -> i32 {
    if x.abs() < 2_147_483_648.0 { x as i32 } else { i32::MIN }
}

/// `1 / x`, or 0 for 0.
#[inline(always)]
pub(super) fn inverse_or_zero(x: f32) -> f32 {
    if x != 0.0 { 1.0 / x } else { 0.0 }
}

/// The value of the greatest magnitude, with its sign; 0 if all are 0 or NaN. The first of equals.
#[inline(always)]
pub(super) fn extreme(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |extreme: f32, &x| if extreme.abs() < x.abs() { x } else { extreme })
}

/// Least and greatest value.
#[inline(always)]
pub(super) fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::MAX, -f32::MAX), |(min, max), &x| {
        (if x < min { x } else { min }, if x > max { x } else { max })
    })
}

/// The low four bits of each level: level `i` in the low half of byte `i`, level `i + 16` in the high half.
#[inline(always)]
pub(super) fn pack_nibbles(levels: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| (levels[i] & 15) | (levels[i + 16] << 4))
}

/// The inverse of [`pack_nibbles`].
#[inline(always)]
pub(super) fn unpack_nibbles(bytes: &[u8; 16]) -> [u8; 32] {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

/// The fifth bit of each level: bit `i` of a little-endian word is that of level `i`.
#[inline(always)]
pub(super) fn pack_fifth_bits(levels: &[u8; 32]) -> [u8; 4] {
    let bits = (0..32).fold(0u32, |bits, i| bits | u32::from((levels[i] >> 4) & 1) << i);
    bits.to_le_bytes()
}

/// Levels of five bits from their low halves and the word of fifth bits.
#[inline(always)]
pub(super) fn unpack_five_bits(high: [u8; 4], low: &[u8; 16]) -> [u8; 32] {
    let (bits, low) = (u32::from_le_bytes(high), unpack_nibbles(low));
    std::array::from_fn(|i| low[i] | (((bits >> i) << 4) & 16) as u8)
}

/// Levels of two bits, 256 of them in two halves of 128: level `l + 32 k` of a half is pair `k` of byte `l`.
#[inline(always)]
pub(super) fn pack_pairs(levels: &[u8; 256]) -> [u8; 64] {
    std::array::from_fn(|i| {
        let l = &levels[i / 32 * 128 + i % 32..];
        l[0] & 3 | (l[32] & 3) << 2 | (l[64] & 3) << 4 | (l[96] & 3) << 6
    })
}

/// Views 256 values as lanes of sub-blocks side by side: `lanes[i][s]` is value `i` of sub-block `s`.
#[inline(always)]
pub(super) fn side_by_side<const N: usize, const SUBS: usize>(values: &[f32; 256]) -> [[f32; SUBS]; N] {
    const { assert!(N * SUBS == 256) };
    std::array::from_fn(|i| std::array::from_fn(|s| values[s * N + i]))
}
