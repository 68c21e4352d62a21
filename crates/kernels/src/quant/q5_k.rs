//! Q5_K: super-blocks of 256 values of 5 bits, in 8 sub-blocks with scale and offset; 5.5 bits a value.

use super::affine_super_block::{self, scale_and_min};
use super::block::{Block, Importance};
use super::scale_search::{Candidates, Error};
use crate::DType;
use crate::half::Half;

/// `x = scale * sub_scale * level - min * sub_min`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BlockQ5K {
    /// What the sub-blocks' scales are multiples of.
    pub scale: Half,
    /// What the sub-blocks' offsets are multiples of.
    pub min: Half,
    /// Scales and offsets of the 8 sub-blocks; [`scale_and_min`] takes them out.
    pub sub_scales: [u8; 12],
    /// The fifth bits: that of value `i` of sub-block `s` is bit `s` of byte `i`.
    pub high: [u8; 32],
    /// The low four bits, 32 bytes for each pair of sub-blocks: the first has the low halves, the second the high halves.
    pub low: [u8; 128],
}

const _: () = assert!(size_of::<BlockQ5K>() == 176);

const CANDIDATES: Candidates = Candidates { first: -0.5, step: 0.1, n_steps: 15, error: Error::Squared };

// SAFETY: repr(C) of byte arrays.
unsafe impl Block<256> for BlockQ5K {
    const DTYPE: DType = DType::Q5K;

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32; 256]) {
        let (scale, min) = (self.scale.to_f32(), self.min.to_f32());
        let (pairs, _) = self.low.as_chunks::<32>();
        for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (sub_scale, sub_min) = scale_and_min(&self.sub_scales, sub);
            let (d, m) = (scale * f32::from(sub_scale), min * f32::from(sub_min));
            let shift = sub % 2 * 4;
            for ((out, low), high) in out.iter_mut().zip(&pairs[sub / 2]).zip(&self.high) {
                *out = d * f32::from((low >> shift) & 15 | ((high >> sub) & 1) << 4) - m;
            }
        }
    }

    #[inline(always)]
    fn quantize(values: &[f32; 256], importance: Option<Importance<'_, 256>>) -> BlockQ5K {
        let found = affine_super_block::quantize(31, values, importance, CANDIDATES);
        let l = &found.levels;
        let low = std::array::from_fn(|i| {
            let first = i / 32 * 64 + i % 32;
            l[first] & 15 | (l[first + 32] & 15) << 4
        });
        let high = std::array::from_fn(|i| (0..8).fold(0, |bits, s| bits | (l[32 * s + i] >> 4) << s));
        BlockQ5K { scale: found.scale, min: found.min, sub_scales: found.sub_scales, high, low }
    }
}
