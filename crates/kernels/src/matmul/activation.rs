//! The activations as the quantized kernels read them: signed bytes with a scale for each 32 columns.
//!
//! `x = scale code`, `scale = amax / 127`, codes rounded to the nearest, ties to even. A block with a NaN has the
//! scale NaN, one with an infinity has the scale infinity: outputs are then NaN, never a plausible number.
//!
//! In memory tokens lie tile by tile, each tile [block, token, 32] bytes, so that a kernel reads one stream; beside
//! it, for each [`Factor`] that the weights of a call need, [block, 3, token] numbers of 32 bits.

use crate::arch::Simd;
use crate::dtype::DType;

/// What a type wants to know of a block of activations besides codes and scale: the second and third number of its
/// factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Factor {
    /// Minus the offset of the weights' codes times the sum of the block's codes: where the integer sum starts.
    Offset(i32),
    /// The same, for each half of the block.
    HalfOffset(i32),
    /// The sum of the block's codes times the scale, for the minimum.
    Min,
    /// The same, for each half.
    HalfMin,
}

impl Factor {
    /// What `dtype` needs; none for dense types.
    pub fn of(dtype: DType) -> Option<Factor> {
        Some(match dtype {
            DType::F32 | DType::F16 | DType::BF16 => return None,
            DType::Q4_0 => Factor::Offset(8),
            DType::Q5_0 => Factor::Offset(16),
            DType::Q8_0 | DType::Iq4Nl => Factor::Offset(128),
            DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => Factor::Min,
            DType::Q3K => Factor::HalfOffset(4),
            DType::Q6K => Factor::HalfOffset(32),
            DType::Q2K => Factor::HalfMin,
        })
    }

    /// The second and third number of a block with that scale and those sums of its halves. Beside a scale that is no
    /// number the sums may be anything.
    #[inline(always)]
    pub fn numbers(self, scale: f32, sums: [i32; 2]) -> [u32; 2] {
        match self {
            Factor::Offset(offset) => [sums[0].wrapping_add(sums[1]).wrapping_mul(-offset) as u32, 0],
            Factor::HalfOffset(offset) => sums.map(|sum| sum.wrapping_mul(-offset) as u32),
            Factor::Min => [(sums[0].wrapping_add(sums[1]) as f32 * scale).to_bits(), 0],
            Factor::HalfMin => sums.map(|sum| (sum as f32 * scale).to_bits()),
        }
    }
}

/// Where [`quantize_row`] writes one token: slices that begin with the tile's, and the token's place in the tile.
pub(crate) struct RowOut<'a> {
    /// Token in the tile.
    pub token: usize,
    /// Tokens in the tile.
    pub n_tokens: usize,
    /// The tile's codes, [block, token, 32].
    pub codes: *mut i8,
    /// For each factor that is wanted: the tile's numbers, [block, 3, token].
    pub factors: &'a [(Factor, *mut u32)],
}

/// Quantizes one token's row of whole blocks.
///
/// # Safety
/// The pointers of `out` cover the tile, nobody else uses the token's part of it, and the CPU has `S`.
#[inline(always)]
pub(crate) unsafe fn quantize_row<S: Simd>(x: &[f32], out: &mut RowOut) {
    for (block, x) in x.as_chunks::<32>().0.iter().enumerate() {
        // SAFETY: the caller's promise: the block's place of this token lies inside the tile.
        unsafe {
            let (scale, sums) = S::quantize_block(x, out.codes.add((block * out.n_tokens + out.token) * 32));
            for &(factor, to) in out.factors {
                let to = to.add(3 * block * out.n_tokens + out.token);
                let [first, second] = factor.numbers(scale, sums);
                to.write(scale.to_bits());
                to.add(out.n_tokens).write(first);
                to.add(2 * out.n_tokens).write(second);
            }
        }
    }
}

/// Quantizes a block; returns its scale and the sums of the codes of its halves.
#[inline(always)]
pub(crate) fn quantize_block(x: &[f32; 32], codes: &mut [i8; 32]) -> (f32, [i32; 2]) {
    // As integers the magnitudes are in the order of their values, and a NaN is above all.
    let amax = f32::from_bits(x.iter().fold(0, |max, x| max.max(x.to_bits() & 0x7fff_ffff)));
    let (scale, inverse) = scale_and_inverse(amax);
    // Adding 1.5 * 2^23 rounds to an integer in the lowest bits.
    *codes = x.map(|x| (x * inverse + 12_582_912.0).to_bits() as i8);
    let sum = |codes: &[i8]| codes.iter().map(|&code| i32::from(code)).sum::<i32>();
    (scale, [sum(&codes[..16]), sum(&codes[16..])])
}

/// A block's scale and what its values are multiplied with; 0 where that would be no number.
#[inline(always)]
pub(crate) fn scale_and_inverse(amax: f32) -> (f32, f32) {
    let scale = amax / 127.0;
    (scale, if scale.is_normal() { 127.0 / amax } else { 0.0 })
}
