//! Q4_1: 32 values of 4 bits with one scale and one offset; 5 bits a value.

use super::block::{Block, Importance};
use super::levels::{inverse_or_zero, pack_nibbles, range, truncate, unpack_nibbles};
use super::scale_search::{Candidates, Error, affine};
use crate::DType;
use crate::half::Half;

/// `x = scale * level + min`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BlockQ4_1 {
    /// Scale.
    pub scale: Half,
    /// Value of level 0.
    pub min: Half,
    /// Level `i` in the low half of byte `i`, level `i + 16` in the high half.
    pub levels: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ4_1>() == 20);

/// What is tried where importance is given; Q5_1 and the K types try the same.
pub(super) const CANDIDATES: Candidates =
    Candidates { first: -0.9, step: 0.05, n_steps: 36, error: Error::Squared };

// SAFETY: repr(C) of byte arrays.
unsafe impl Block<32> for BlockQ4_1 {
    const DTYPE: DType = DType::Q4_1;

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32; 32]) {
        let (scale, min, levels) = (self.scale.to_f32(), self.min.to_f32(), unpack_nibbles(&self.levels));
        *out = levels.map(|level| f32::from(level) * scale + min);
    }

    /// Without importance, the range of the values becomes the range of the levels.
    #[inline(always)]
    fn quantize(values: &[f32; 32], importance: Option<Importance<'_, 32>>) -> BlockQ4_1 {
        if let Some(importance) = importance {
            let weights = importance.of(values, importance.row_mean_square).map(|w| [w]);
            let found = affine(15, &values.map(|x| [x]), &weights, CANDIDATES);
            return BlockQ4_1 {
                scale: Half::from_f32(found.scale[0]),
                min: Half::from_f32(-found.min[0]),
                levels: pack_nibbles(&found.levels.map(|[level]| level)),
            };
        }
        let (min, max) = range(values);
        let scale = (max - min) / 15.0;
        let inverse = inverse_or_zero(scale);
        let levels = values.map(|x| (truncate((x - min) * inverse + 0.5) as i8).min(15) as u8);
        BlockQ4_1 { scale: Half::from_f32(scale), min: Half::from_f32(min), levels: pack_nibbles(&levels) }
    }
}
