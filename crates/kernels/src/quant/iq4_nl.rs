//! IQ4_NL: 32 values of 4 bits that name one of 16 unevenly spaced numbers, with one scale; 4.5 bits a value.

use super::block::{Block, Importance};
use super::levels::{extreme, inverse_or_zero, pack_nibbles, unpack_nibbles};
use super::scale_search::TINY;
use crate::DType;
use crate::half::Half;

/// `x = scale * IQ4_NL_VALUES[level]`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BlockIq4Nl {
    /// Scale.
    pub scale: Half,
    /// Level `i` in the low half of byte `i`, level `i + 16` in the high half.
    pub levels: [u8; 16],
}

const _: () = assert!(size_of::<BlockIq4Nl>() == 18);

/// The numbers that the levels stand for: dense near zero, where most weights are.
pub const IQ4_NL_VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Candidate scales map the extreme to -127 and up to this many more or less.
const N_CANDIDATES: i32 = 7;

// SAFETY: repr(C) of byte arrays.
unsafe impl Block<32> for BlockIq4Nl {
    const DTYPE: DType = DType::Iq4Nl;

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32; 32]) {
        let (scale, levels) = (self.scale.to_f32(), unpack_nibbles(&self.levels));
        *out = levels.map(|level| scale * f32::from(IQ4_NL_VALUES[usize::from(level & 15)]));
    }

    /// Tries 16 scales with and without importance, as `llama-quantize` does.
    #[inline(always)]
    fn quantize(values: &[f32; 32], importance: Option<Importance<'_, 32>>) -> BlockIq4Nl {
        let weights = match importance {
            Some(importance) => {
                let squares = values.iter().fold(0f32, |sum, x| sum + x * x);
                importance.of(values, squares * (2.0 / 32.0))
            }
            None => values.map(|x| x * x),
        };
        let scale = best_scale(values, &weights);
        let inverse = inverse_or_zero(scale);
        BlockIq4Nl {
            scale: Half::from_f32(scale),
            levels: pack_nibbles(&values.map(|x| nearest_value(inverse * x) as u8)),
        }
    }
}

#[inline(always)]
fn best_scale(values: &[f32; 32], weights: &[f32; 32]) -> f32 {
    let extreme = extreme(values);
    if extreme.abs() < TINY {
        return 0.0;
    }
    let sums = |inverse: f32| {
        values.iter().zip(weights).fold((0f32, 0f32), |(sum_qx, sum_q2), (&x, &w)| {
            let q = f32::from(IQ4_NL_VALUES[nearest_value(inverse * x)]);
            (sum_qx + w * q * x, sum_q2 + w * q * q)
        })
    };
    let lowest = f32::from(IQ4_NL_VALUES[0]);
    let (sum_qx, sum_q2) = sums(1.0 / (-extreme / lowest));
    let mut scale = if sum_q2 > 0.0 { sum_qx / sum_q2 } else { 0.0 };
    let mut best = scale * sum_qx;
    for candidate in -N_CANDIDATES..=N_CANDIDATES {
        let (sum_qx, sum_q2) = sums((candidate as f32 + lowest) / extreme);
        if sum_q2 > 0.0 && sum_qx * sum_qx > best * sum_q2 {
            scale = sum_qx / sum_q2;
            best = scale * sum_qx;
        }
    }
    scale
}

/// Index of the number nearest to `x`; of two equally near the greater. A NaN counts as large.
///
/// Counts the gaps that `x` has more than half crossed.
#[inline(always)]
fn nearest_value(x: f32) -> usize {
    let nearer_to_low = |gap: &[i8]| x - f32::from(gap[0]) < f32::from(gap[1]) - x;
    IQ4_NL_VALUES.windows(2).map(|gap| usize::from(!nearer_to_low(gap))).sum()
}
