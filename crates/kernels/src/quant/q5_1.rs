//! Q5_1: 32 values of 5 bits with one scale and one offset; 6 bits a value.

use super::block::{Block, Importance};
use super::levels::{inverse_or_zero, pack_fifth_bits, pack_nibbles, range, truncate, unpack_five_bits};
use super::q4_1::CANDIDATES;
use super::scale_search::affine;
use crate::DType;
use crate::half::Half;

/// `x = scale * level + min`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BlockQ5_1 {
    /// Scale.
    pub scale: Half,
    /// Value of level 0.
    pub min: Half,
    /// The fifth bit of level `i` is bit `i` of this little-endian word.
    pub high: [u8; 4],
    /// The low four bits: level `i` in the low half of byte `i`, level `i + 16` in the high half.
    pub low: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ5_1>() == 24);

impl BlockQ5_1 {
    #[inline(always)]
    fn new(scale: f32, min: f32, levels: &[u8; 32]) -> BlockQ5_1 {
        BlockQ5_1 {
            scale: Half::from_f32(scale),
            min: Half::from_f32(min),
            high: pack_fifth_bits(levels),
            low: pack_nibbles(levels),
        }
    }
}

// SAFETY: repr(C) of byte arrays.
unsafe impl Block<32> for BlockQ5_1 {
    const DTYPE: DType = DType::Q5_1;

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32; 32]) {
        let (scale, min) = (self.scale.to_f32(), self.min.to_f32());
        *out = unpack_five_bits(self.high, &self.low).map(|level| f32::from(level) * scale + min);
    }

    /// Without importance, the range of the values becomes the range of the levels.
    #[inline(always)]
    fn quantize(values: &[f32; 32], importance: Option<Importance<'_, 32>>) -> BlockQ5_1 {
        if let Some(importance) = importance {
            let weights = importance.of(values, importance.row_mean_square).map(|w| [w]);
            let found = affine(31, &values.map(|x| [x]), &weights, CANDIDATES);
            return BlockQ5_1::new(found.scale[0], -found.min[0], &found.levels.map(|[level]| level));
        }
        let (min, max) = range(values);
        let scale = (max - min) / 31.0;
        let inverse = inverse_or_zero(scale);
        BlockQ5_1::new(scale, min, &values.map(|x| truncate((x - min) * inverse + 0.5) as u8))
    }
}
