//! Q4_K: super-blocks of 256 values of 4 bits, in 8 sub-blocks with scale and offset; 4.5 bits a value.

use super::affine_super_block::{self, scale_and_min};
use super::block::{Block, Importance};
use super::scale_search::{Candidates, Error};
use crate::DType;
use crate::half::Half;

/// `x = scale * sub_scale * level - min * sub_min`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BlockQ4K {
    /// What the sub-blocks' scales are multiples of.
    pub scale: Half,
    /// What the sub-blocks' offsets are multiples of.
    pub min: Half,
    /// Scales and offsets of the 8 sub-blocks; [`scale_and_min`] takes them out.
    pub sub_scales: [u8; 12],
    /// 32 bytes for each pair of sub-blocks: the first has the low halves, the second the high halves.
    pub levels: [u8; 128],
}

const _: () = assert!(size_of::<BlockQ4K>() == 144);

const CANDIDATES: Candidates = Candidates { first: -1.0, step: 0.1, n_steps: 20, error: Error::Squared };

// SAFETY: repr(C) of byte arrays.
unsafe impl Block<256> for BlockQ4K {
    const DTYPE: DType = DType::Q4K;

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32; 256]) {
        let (scale, min) = (self.scale.to_f32(), self.min.to_f32());
        let (pairs, _) = self.levels.as_chunks::<32>();
        for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (sub_scale, sub_min) = scale_and_min(&self.sub_scales, sub);
            let (d, m) = (scale * f32::from(sub_scale), min * f32::from(sub_min));
            let shift = sub % 2 * 4;
            *out = pairs[sub / 2].map(|byte| d * f32::from((byte >> shift) & 15) - m);
        }
    }

    #[inline(always)]
    fn quantize(values: &[f32; 256], importance: Option<Importance<'_, 256>>) -> BlockQ4K {
        let found = affine_super_block::quantize(15, values, importance, CANDIDATES);
        let l = &found.levels;
        let levels = std::array::from_fn(|i| {
            let first = i / 32 * 64 + i % 32;
            l[first] | l[first + 32] << 4
        });
        BlockQ4K { scale: found.scale, min: found.min, sub_scales: found.sub_scales, levels }
    }
}
