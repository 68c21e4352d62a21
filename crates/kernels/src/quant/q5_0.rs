//! Q5_0: 32 values of 5 bits with one scale; 5.5 bits a value.

use super::block::{Block, Importance};
use super::levels::{extreme, inverse_or_zero, pack_fifth_bits, pack_nibbles, truncate, unpack_five_bits};
use super::scale_search::symmetric;
use crate::DType;
use crate::half::Half;

/// `x = scale * (level - 16)`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BlockQ5_0 {
    /// Scale.
    pub scale: Half,
    /// The fifth bit of level `i` is bit `i` of this little-endian word.
    pub high: [u8; 4],
    /// The low four bits: level `i` in the low half of byte `i`, level `i + 16` in the high half.
    pub low: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ5_0>() == 22);

impl BlockQ5_0 {
    #[inline(always)]
    fn new(scale: f32, levels: &[u8; 32]) -> BlockQ5_0 {
        BlockQ5_0 { scale: Half::from_f32(scale), high: pack_fifth_bits(levels), low: pack_nibbles(levels) }
    }
}

// SAFETY: repr(C) of byte arrays.
unsafe impl Block<32> for BlockQ5_0 {
    const DTYPE: DType = DType::Q5_0;

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32; 32]) {
        let (scale, levels) = (self.scale.to_f32(), unpack_five_bits(self.high, &self.low));
        *out = levels.map(|level| (i32::from(level) - 16) as f32 * scale);
    }

    /// Without importance, the value of greatest magnitude becomes level 0.
    #[inline(always)]
    fn quantize(values: &[f32; 32], importance: Option<Importance<'_, 32>>) -> BlockQ5_0 {
        if let Some(importance) = importance {
            let weights = importance.of(values, importance.row_mean_square).map(|w| [w]);
            let found = symmetric(16, &values.map(|x| [x]), &weights);
            return BlockQ5_0::new(found.scale[0], &found.levels.map(|[level]| level));
        }
        let scale = extreme(values) / -16.0;
        let inverse = inverse_or_zero(scale);
        BlockQ5_0::new(scale, &values.map(|x| (truncate(x * inverse + 16.5) as i8).min(31) as u8))
    }
}
