//! Q4_0: 32 values of 4 bits with one scale; 4.5 bits a value.

use super::block::{Block, Importance};
use super::levels::{extreme, inverse_or_zero, pack_nibbles, truncate, unpack_nibbles};
use super::scale_search::symmetric;
use crate::DType;
use crate::half::Half;

/// `x = scale * (level - 8)`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// Scale.
    pub scale: Half,
    /// Level `i` in the low half of byte `i`, level `i + 16` in the high half.
    pub levels: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ4_0>() == 18);

// SAFETY: repr(C) of byte arrays.
unsafe impl Block<32> for BlockQ4_0 {
    const DTYPE: DType = DType::Q4_0;

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32; 32]) {
        let (scale, levels) = (self.scale.to_f32(), unpack_nibbles(&self.levels));
        *out = levels.map(|level| (i32::from(level) - 8) as f32 * scale);
    }

    /// Without importance, the value of greatest magnitude becomes level 0.
    #[inline(always)]
    fn quantize(values: &[f32; 32], importance: Option<Importance<'_, 32>>) -> BlockQ4_0 {
        if let Some(importance) = importance {
            let weights = importance.of(values, importance.row_mean_square).map(|w| [w]);
            let found = symmetric(8, &values.map(|x| [x]), &weights);
            return BlockQ4_0 {
                scale: Half::from_f32(found.scale[0]),
                levels: pack_nibbles(&found.levels.map(|[level]| level)),
            };
        }
        let scale = extreme(values) / -8.0;
        let inverse = inverse_or_zero(scale);
        let levels = values.map(|x| (truncate(x * inverse + 8.5) as i8).min(15) as u8);
        BlockQ4_0 { scale: Half::from_f32(scale), levels: pack_nibbles(&levels) }
    }
}
