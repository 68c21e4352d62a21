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

/// Scales that are tried: they map the extreme to 127, or to -127 and up to 7 more or less.
const CANDIDATES: usize = 16;

// SAFETY: repr(C) of byte arrays.
unsafe impl Block<32> for BlockIq4Nl {
    const DTYPE: DType = DType::Iq4Nl;

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32; 32]) {
        let (scale, levels) = (self.scale.to_f32(), unpack_nibbles(&self.levels));
        *out = levels.map(|level| scale * f32::from(IQ4_NL_VALUES[usize::from(level & 15)]));
    }

    /// Tries as many scales without importance as with it, like `llama-quantize`.
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
            levels: pack_nibbles(&values.map(|x| nearest_level(inverse * x))),
        }
    }
}

/// All candidates are tried side by side: one is one lane.
#[inline(always)]
fn best_scale(values: &[f32; 32], weights: &[f32; 32]) -> f32 {
    let extreme = extreme(values);
    if extreme.abs() < TINY {
        return 0.0;
    }
    let lowest = f32::from(IQ4_NL_VALUES[0]);
    let inverse: [f32; CANDIDATES] = std::array::from_fn(|candidate| match candidate {
        0 => 1.0 / (-extreme / lowest),
        _ => (candidate as f32 - 8.0 + lowest) / extreme,
    });
    let (mut sum_qx, mut sum_q2) = ([0f32; CANDIDATES], [0f32; CANDIDATES]);
    for (&x, &w) in values.iter().zip(weights) {
        for c in 0..CANDIDATES {
            let q = nearest_value(inverse[c] * x);
            sum_qx[c] += w * q * x;
            sum_q2[c] += w * q * q;
        }
    }
    let mut scale = if sum_q2[0] > 0.0 { sum_qx[0] / sum_q2[0] } else { 0.0 };
    let mut best = scale * sum_qx[0];
    for c in 1..CANDIDATES {
        if sum_q2[c] > 0.0 && sum_qx[c] * sum_qx[c] > best * sum_q2[c] {
            scale = sum_qx[c] / sum_q2[c];
            best = scale * sum_qx[c];
        }
    }
    scale
}

/// Whether `x` lies on the far side of the middle of gap `gap`; a middle belongs to the greater number, a NaN is large.
#[inline(always)]
fn is_beyond(x: f32, gap: usize) -> bool {
    let middle = f32::from(i16::from(IQ4_NL_VALUES[gap]) + i16::from(IQ4_NL_VALUES[gap + 1])) / 2.0;
    x.is_nan() || x >= middle
}

/// Index of the number nearest to `x`.
#[inline(always)]
fn nearest_level(x: f32) -> u8 {
    (0..15).map(|gap| u8::from(is_beyond(x, gap))).sum()
}

/// The number nearest to `x`: the lowest and the widths of all gaps up to it.
#[inline(always)]
fn nearest_value(x: f32) -> f32 {
    let mut value = f32::from(IQ4_NL_VALUES[0]);
    for gap in 0..15 {
        let width = f32::from(i16::from(IQ4_NL_VALUES[gap + 1]) - i16::from(IQ4_NL_VALUES[gap]));
        value += if is_beyond(x, gap) { width } else { 0.0 };
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_number_is_the_one_at_the_least_distance_as_floats_compute_it() {
        let by_distance =
            |x: f32| IQ4_NL_VALUES.windows(2).position(|gap| x - f32::from(gap[0]) < f32::from(gap[1]) - x);
        let mut check = |x: f32| {
            let level = nearest_level(x);
            assert_eq!(usize::from(level), by_distance(x).unwrap_or(15), "{x}");
            assert_eq!(nearest_value(x), f32::from(IQ4_NL_VALUES[usize::from(level)]), "{x}");
        };
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-45].into_iter().for_each(&mut check);
        for gap in IQ4_NL_VALUES.windows(2) {
            let middle = (f32::from(gap[0]) + f32::from(gap[1])) / 2.0;
            (0..2000).for_each(|i| check(f32::from_bits(middle.to_bits() + i - 1000)));
        }
        (-40_000..40_000).for_each(|i| check(i as f32 / 256.0));
    }
}
