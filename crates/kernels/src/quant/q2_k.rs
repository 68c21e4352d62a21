//! Q2_K: super-blocks of 256 values of 2 bits, in 16 sub-blocks with scale and offset of 4 bits; 2.625 bits a value.

use std::array::from_fn;

use super::block::{Block, Importance};
use super::levels::{nearest, pack_pairs, side_by_side};
use super::q4_1;
use super::scale_search::{Candidates, Error, affine, positive};
use crate::DType;
use crate::half::Half;

/// `x = scale * sub_scale * level - min * sub_min`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BlockQ2K {
    /// Of each sub-block the scale in the low half and the offset in the high half.
    pub sub_scales: [u8; 16],
    /// Levels in two halves of 128: value `l + 32 k` of a half is pair `k` of bits of byte `l` of its 32 bytes.
    pub levels: [u8; 64],
    /// What the sub-blocks' scales are multiples of.
    pub scale: Half,
    /// What the sub-blocks' offsets are multiples of.
    pub min: Half,
}

const _: () = assert!(size_of::<BlockQ2K>() == 84);

const CANDIDATES: Candidates = Candidates { first: -0.5, step: 0.1, n_steps: 15, error: Error::Absolute };

// SAFETY: repr(C) of byte arrays.
unsafe impl Block<256> for BlockQ2K {
    const DTYPE: DType = DType::Q2K;

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32; 256]) {
        let (scale, min) = (self.scale.to_f32(), self.min.to_f32());
        let (bytes, _) = self.levels.as_chunks::<16>();
        for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let d = scale * f32::from(self.sub_scales[sub] & 15);
            let m = min * f32::from(self.sub_scales[sub] >> 4);
            let shift = sub % 8 / 2 * 2;
            *out = bytes[sub / 8 * 2 + sub % 2].map(|byte| d * f32::from((byte >> shift) & 3) - m);
        }
    }

    #[inline(always)]
    fn quantize(values: &[f32; 256], importance: Option<Importance<'_, 256>>) -> BlockQ2K {
        let lanes: [[f32; 16]; 16] = side_by_side(values);
        let found;
        let (scale, sub_scales, min, sub_mins);
        match importance {
            None => {
                found = affine(3, &lanes, &lanes.map(|row| row.map(f32::abs)), CANDIDATES);
                (scale, sub_scales) = four_bits(found.scale);
                (min, sub_mins) = four_bits(found.min);
            }
            Some(importance) => {
                let squares = values.iter().fold(0f32, |sum, x| sum + x * x);
                let weights: [[f32; 16]; 16] = side_by_side(&importance.of(values, squares / 256.0));
                let mut totals = [0f32; 16];
                weights.iter().for_each(|row| (0..16).for_each(|s| totals[s] += row[s]));
                found = affine(3, &lanes, &weights, q4_1::CANDIDATES);
                (scale, sub_scales) = positive(15, &found.scale, &totals);
                (min, sub_mins) = positive(15, &found.min, &totals);
            }
        }
        let (scale, min) = (Half::from_f32(scale), Half::from_f32(min));
        let sub_scales: [u8; 16] = from_fn(|s| sub_scales[s] | sub_mins[s] << 4);

        // The levels are chosen anew for the scales as they are stored.
        let mut levels = [0; 256];
        for sub in 0..16 {
            let d = scale.to_f32() * f32::from(sub_scales[sub] & 15);
            let m = min.to_f32() * f32::from(sub_scales[sub] >> 4);
            for i in 0..16 {
                let level = nearest((values[16 * sub + i] + m) / d).clamp(0, 3) as u8;
                levels[16 * sub + i] = if d != 0.0 { level } else { found.levels[i][sub] };
            }
        }
        BlockQ2K { sub_scales, levels: pack_pairs(&levels), scale, min }
    }
}

/// Stores sixteen positive numbers as multiples (0 to 15) of one: the greatest is 15 of it.
#[inline(always)]
fn four_bits(values: [f32; 16]) -> (f32, [u8; 16]) {
    let max = values.iter().fold(0f32, |max, &x| if x > max { x } else { max });
    if max > 0.0 {
        let inverse = 15.0 / max;
        (max / 15.0, values.map(|x| nearest(inverse * x) as u8))
    } else {
        (0.0, [0; 16])
    }
}
