//! Q8_0: 32 values of 8 bits with one scale; 8.5 bits a value.

use super::block::{Block, Importance};
use super::levels::{inverse_or_zero, truncate};
use crate::DType;
use crate::half::Half;

/// `x = scale * level`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// Scale.
    pub scale: Half,
    /// Levels, in the order of the values.
    pub levels: [i8; 32],
}

const _: () = assert!(size_of::<BlockQ8_0>() == 34);

// SAFETY: repr(C) of byte arrays.
unsafe impl Block<32> for BlockQ8_0 {
    const DTYPE: DType = DType::Q8_0;

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32; 32]) {
        let scale = self.scale.to_f32();
        *out = self.levels.map(|level| f32::from(level) * scale);
    }

    /// The greatest magnitude becomes level 127 or -127; half a level rounds away from zero.
    #[inline(always)]
    fn quantize(values: &[f32; 32], _: Option<Importance<'_, 32>>) -> BlockQ8_0 {
        let greatest = values.iter().fold(0f32, |max, x| if max > x.abs() { max } else { x.abs() });
        let scale = greatest / 127.0;
        let inverse = inverse_or_zero(scale);
        BlockQ8_0 {
            scale: Half::from_f32(scale),
            levels: values.map(|x| truncate((x * inverse).round()) as i8),
        }
    }
}
