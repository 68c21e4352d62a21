//! What Q4_K and Q5_K share: 8 sub-blocks of 32 values, each with a scale and an offset of 6 bits.

use std::array::from_fn;

use super::block::Importance;
use super::levels::{nearest, side_by_side};
use super::q4_1;
use super::scale_search::{Candidates, affine, positive};
use crate::half::Half;

/// A super-block before its levels are packed: `x = scale * sub_scale * level - min * sub_min`.
pub(super) struct AffineSuperBlock {
    pub scale: Half,
    pub min: Half,
    /// Scales and offsets of the sub-blocks; [`scale_and_min`] takes them out.
    pub sub_scales: [u8; 12],
    pub levels: [u8; 256],
}

/// The 6-bit scale and offset of sub-block `sub` (0 to 7) of a Q4_K or Q5_K block.
///
/// The first four of each are the low six bits of a byte; the high bits of these bytes are the high bits of the last four.
#[inline(always)]
pub fn scale_and_min(sub_scales: &[u8; 12], sub: usize) -> (u8, u8) {
    let s = sub_scales;
    if sub < 4 {
        (s[sub] & 63, s[sub + 4] & 63)
    } else {
        (s[sub + 4] & 15 | (s[sub - 4] >> 6) << 4, s[sub + 4] >> 4 | (s[sub] >> 6) << 4)
    }
}

/// The inverse of [`scale_and_min`].
#[inline(always)]
fn pack_scales_and_mins(scales: [u8; 8], mins: [u8; 8]) -> [u8; 12] {
    from_fn(|i| match i {
        0..4 => scales[i] | (scales[i + 4] >> 4) << 6,
        4..8 => mins[i - 4] | (mins[i] >> 4) << 6,
        _ => scales[i - 4] & 15 | (mins[i - 4] & 15) << 4,
    })
}

/// Quantises to levels from 0 to `top`; `plain` is what is tried without importance.
#[inline(always)]
pub(super) fn quantize(
    top: i32,
    values: &[f32; 256],
    importance: Option<Importance<'_, 256>>,
    plain: Candidates,
) -> AffineSuperBlock {
    let lanes: [[f32; 8]; 32] = side_by_side(values);
    let found;
    let (scale, sub_scales, min, sub_mins);
    match importance {
        None => {
            let mut squares = [0f32; 8];
            lanes.iter().for_each(|row| (0..8).for_each(|s| squares[s] += row[s] * row[s]));
            let size = squares.map(|sum| (sum / 32.0).sqrt());
            let weights = lanes.map(|row| from_fn(|s| size[s] + row[s].abs()));
            found = affine(top, &lanes, &weights, plain);
            (scale, sub_scales) = six_bits(found.scale);
            (min, sub_mins) = six_bits(found.min);
        }
        Some(importance) => {
            let squares = values.iter().fold(0f32, |sum, x| sum + x * x);
            let weights: [[f32; 8]; 32] = side_by_side(&importance.of(values, 2.0 * squares / 256.0));
            let mut totals = [0f32; 8];
            weights.iter().for_each(|row| (0..8).for_each(|s| totals[s] += row[s]));
            found = affine(top, &lanes, &weights, q4_1::CANDIDATES);
            (scale, sub_scales) = positive(63, &found.scale, &totals);
            (min, sub_mins) = positive(63, &found.min, &totals);
        }
    }
    let (scale, min) = (Half::from_f32(scale), Half::from_f32(min));
    let sub_scales = pack_scales_and_mins(sub_scales.map(|s| s.min(63)), sub_mins.map(|m| m.min(63)));

    // The levels are chosen anew for the scales as they are stored.
    let mut levels = [0; 256];
    for sub in 0..8 {
        let (sub_scale, sub_min) = scale_and_min(&sub_scales, sub);
        let d = scale.to_f32() * f32::from(sub_scale);
        let m = min.to_f32() * f32::from(sub_min);
        for i in 0..32 {
            let level = nearest((values[32 * sub + i] + m) / d).clamp(0, top) as u8;
            levels[32 * sub + i] = if d != 0.0 { level } else { found.levels[i][sub] };
        }
    }
    AffineSuperBlock { scale, min, sub_scales, levels }
}

/// Stores eight positive numbers as multiples (0 to 63) of one: the greatest is 63 of it.
#[inline(always)]
fn six_bits(values: [f32; 8]) -> (f32, [u8; 8]) {
    let max = values.iter().fold(0f32, |max, &x| if x > max { x } else { max });
    let inverse = if max > 0.0 { 63.0 / max } else { 0.0 };
    (max / 63.0, values.map(|x| nearest(inverse * x) as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_and_offsets_come_out_as_they_went_in() {
        let scales = [0, 63, 17, 42, 33, 1, 62, 15];
        let mins = [5, 16, 63, 0, 48, 63, 31, 32];
        let packed = pack_scales_and_mins(scales, mins);
        for sub in 0..8 {
            assert_eq!(scale_and_min(&packed, sub), (scales[sub], mins[sub]));
        }
    }
}
