//! Q6_K: super-blocks of 256 values of 6 bits, in 16 sub-blocks with scales of 8 bits; 6.5625 bits a value.

use std::array::from_fn;

use super::block::{Block, Importance};
use super::levels::{extreme, nearest, side_by_side};
use super::scale_search::{TINY, symmetric};
use crate::DType;
use crate::half::Half;

/// `x = scale * sub_scale * (level - 32)`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BlockQ6K {
    /// The low four bits in two halves of 128 values and 64 bytes: value `l` (0 to 63) of a half is the low half of
    /// byte `l`, value `l + 64` its high half.
    pub low: [u8; 128],
    /// The high two bits in two halves of 128: value `l + 32 k` of a half is pair `k` of bits of byte `l` of its 32 bytes.
    pub high: [u8; 64],
    /// Scales of the 16 sub-blocks.
    pub sub_scales: [i8; 16],
    /// What the sub-blocks' scales are multiples of.
    pub scale: Half,
}

const _: () = assert!(size_of::<BlockQ6K>() == 210);

// SAFETY: repr(C) of byte arrays.
unsafe impl Block<256> for BlockQ6K {
    const DTYPE: DType = DType::Q6K;

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32; 256]) {
        let scale = self.scale.to_f32();
        for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (half, part) = (sub / 8, sub % 8);
            let d = scale * f32::from(self.sub_scales[sub]);
            let (low, high) =
                (&self.low[half * 64 + part % 4 * 16..], &self.high[half * 32 + part % 2 * 16..]);
            for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
                let level = (low >> (part / 4 * 4)) & 15 | ((high >> (part / 2 * 2)) & 3) << 4;
                *out = d * f32::from(level as i8 - 32);
            }
        }
    }

    /// The scale of greatest magnitude becomes -128; without importance the weight of a value is its square.
    #[inline(always)]
    fn quantize(values: &[f32; 256], importance: Option<Importance<'_, 256>>) -> BlockQ6K {
        let lanes: [[f32; 16]; 16] = side_by_side(values);
        let weights = match importance {
            None => lanes.map(|row| row.map(|x| x * x)),
            Some(importance) => side_by_side(importance.weights),
        };
        let found = symmetric(32, &lanes, &weights);
        let greatest = extreme(&found.scale);
        if greatest.abs() < TINY {
            return BlockQ6K { low: [0; 128], high: [0; 64], sub_scales: [0; 16], scale: Half::default() };
        }
        let inverse = -128.0 / greatest;
        let scale = Half::from_f32(1.0 / inverse);
        let sub_scales = found.scale.map(|x| nearest(inverse * x).min(127) as i8);

        // The levels are chosen anew for the scales as they are stored.
        let mut levels = [0; 256];
        for sub in 0..16 {
            let d = scale.to_f32() * f32::from(sub_scales[sub]);
            for i in 0..16 {
                let level = (nearest(values[16 * sub + i] / d).clamp(-32, 31) + 32) as u8;
                levels[16 * sub + i] = if d != 0.0 { level } else { found.levels[i][sub] };
            }
        }
        let low = from_fn(|i| {
            let l = &levels[i / 64 * 128 + i % 64..];
            l[0] & 15 | (l[64] & 15) << 4
        });
        let high = from_fn(|i| {
            let l = &levels[i / 32 * 128 + i % 32..];
            l[0] >> 4 | (l[32] >> 4) << 2 | (l[64] >> 4) << 4 | (l[96] >> 4) << 6
        });
        BlockQ6K { low, high, sub_scales, scale }
    }
}
