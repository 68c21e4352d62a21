//! Q3_K: super-blocks of 256 values of 3 bits, in 16 sub-blocks with scales of 6 bits; 3.4375 bits a value.

use std::array::from_fn;

use super::block::{Block, Importance};
use super::levels::{extreme, nearest, pack_pairs, side_by_side};
use super::scale_search::{symmetric, symmetric_by_moves};
use crate::DType;
use crate::half::Half;

/// `x = scale * (sub_scale - 32) * (level - 4)`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BlockQ3K {
    /// The third bits: that of value `i + 32 k` is bit `k` of byte `i`.
    pub high: [u8; 32],
    /// The low two bits in two halves of 128: value `l + 32 k` of a half is pair `k` of bits of byte `l` of its 32 bytes.
    pub low: [u8; 64],
    /// Scales of the 16 sub-blocks; [`BlockQ3K::sub_scale`] takes them out.
    pub sub_scales: [u8; 12],
    /// What the sub-blocks' scales are multiples of.
    pub scale: Half,
}

const _: () = assert!(size_of::<BlockQ3K>() == 110);

impl BlockQ3K {
    /// The signed scale, -32 to 31, of sub-block `sub` (0 to 15).
    ///
    /// Its low four bits are a half of one of the first eight bytes, its high two bits a pair of one of the last four.
    #[inline(always)]
    pub fn sub_scale(&self, sub: usize) -> i8 {
        let low = (self.sub_scales[sub % 8] >> (sub / 8 * 4)) & 15;
        let high = (self.sub_scales[8 + sub % 4] >> (sub / 4 * 2)) & 3;
        (low | high << 4) as i8 - 32
    }
}

/// Packs scales to which 32 has been added.
#[inline(always)]
fn pack_sub_scales(scales: [u8; 16]) -> [u8; 12] {
    from_fn(|i| {
        if i < 8 {
            scales[i] & 15 | (scales[i + 8] & 15) << 4
        } else {
            (0..4).fold(0, |bits, k| bits | (scales[i - 8 + 4 * k] >> 4) << (2 * k))
        }
    })
}

// SAFETY: repr(C) of byte arrays.
unsafe impl Block<256> for BlockQ3K {
    const DTYPE: DType = DType::Q3K;

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32; 256]) {
        let scale = self.scale.to_f32();
        for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let d = scale * f32::from(self.sub_scale(sub));
            let (low, high) = (&self.low[sub / 8 * 32 + sub % 2 * 16..], &self.high[sub % 2 * 16..]);
            for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
                let level = (low >> (sub % 8 / 2 * 2)) & 3 | ((high >> (sub / 2)) & 1) << 2;
                *out = d * f32::from(level as i8 - 4);
            }
        }
    }

    #[inline(always)]
    fn quantize(values: &[f32; 256], importance: Option<Importance<'_, 256>>) -> BlockQ3K {
        let lanes: [[f32; 16]; 16] = side_by_side(values);
        let found;
        let (scale, sub_scales): (f32, [u8; 16]);
        match importance {
            None => {
                found = symmetric_by_moves(4, &lanes);
                let greatest = extreme(&found.scale);
                let inverse = -32.0 / greatest;
                (scale, sub_scales) = if greatest == 0.0 {
                    // All bits zero, which stands for scales of -32 times 0.
                    (0.0, [0; 16])
                } else {
                    let multiple = |x: f32| i32::from(nearest(inverse * x) as i8).clamp(-32, 31);
                    (1.0 / inverse, found.scale.map(|x| (multiple(x) + 32) as u8))
                };
            }
            Some(importance) => {
                let squares = values.iter().fold(0f32, |sum, x| sum + x * x);
                let weights: [[f32; 16]; 16] = side_by_side(&importance.of(values, 2.0 * squares / 256.0));
                let mut totals = [0f32; 16];
                weights.iter().for_each(|row| (0..16).for_each(|s| totals[s] += row[s]));
                found = symmetric(4, &lanes, &weights);
                let scales = symmetric(32, &found.scale.map(|x| [x]), &totals.map(|w| [w]));
                (scale, sub_scales) = (scales.scale[0], scales.levels.map(|[level]| level));
            }
        }
        let scale = Half::from_f32(scale);
        let mut block =
            BlockQ3K { high: [0; 32], low: [0; 64], sub_scales: pack_sub_scales(sub_scales), scale };

        // The levels are chosen anew for the scales as they are stored.
        let mut levels = [0; 256];
        for sub in 0..16 {
            let d = scale.to_f32() * f32::from(block.sub_scale(sub));
            for i in 0..16 {
                let level = (nearest(values[16 * sub + i] / d).clamp(-4, 3) + 4) as u8;
                levels[16 * sub + i] = if d != 0.0 { level } else { found.levels[i][sub] };
            }
        }
        block.high = from_fn(|i| (0..8).fold(0, |bits, k| bits | (levels[32 * k + i] >> 2) << k));
        block.low = pack_pairs(&levels);
        block
    }
}
