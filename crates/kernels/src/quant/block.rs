//! What all block structs have in common, and the one cast between them and bytes.

use crate::DType;

/// A block of `LEN` neighbouring values as it lies in a file.
///
/// # Safety
/// The struct is `repr(C)`, has alignment 1 and no padding, and every pattern of bytes is one of its values.
pub unsafe trait Block<const LEN: usize>: Copy + Send + Sync + 'static {
    /// The type whose block this is; `DTYPE.block_len()` is `LEN`.
    const DTYPE: DType;

    /// Writes the block's values.
    fn dequantize(&self, out: &mut [f32; LEN]);

    /// The block that stands for `values`, its scales chosen with regard to `importance`.
    fn quantize(values: &[f32; LEN], importance: Option<Importance<'_, LEN>>) -> Self;
}

/// How much the error of each value of a block matters.
#[derive(Debug, Clone, Copy)]
pub struct Importance<'a, const LEN: usize> {
    /// One weight a value: the mean square of the activations that meet it, as importance files have it.
    pub weights: &'a [f32; LEN],
    /// The mean of the squared values of the whole row.
    pub row_mean_square: f32,
}

impl<const LEN: usize> Importance<'_, LEN> {
    /// Weights of the error: importance times the size of the value, smoothed by `mean_square` as a floor.
    #[inline(always)]
    pub(super) fn of(&self, values: &[f32; LEN], mean_square: f32) -> [f32; LEN] {
        std::array::from_fn(|i| self.weights[i] * (mean_square + values[i] * values[i]).sqrt())
    }
}

/// Views `bytes` as blocks. Panics if they are no whole number of blocks.
#[track_caller]
pub fn blocks<const LEN: usize, B: Block<LEN>>(bytes: &[u8]) -> &[B] {
    let n_blocks = count::<LEN, B>(bytes.len());
    // SAFETY: by the promise of `Block`, any bytes are a block and no alignment is needed; `n_blocks` fit.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), n_blocks) }
}

/// Views `bytes` as blocks to be written. Panics if they are no whole number of blocks.
#[track_caller]
pub fn blocks_mut<const LEN: usize, B: Block<LEN>>(bytes: &mut [u8]) -> &mut [B] {
    let n_blocks = count::<LEN, B>(bytes.len());
    // SAFETY: as in `blocks`; a block has no padding, so all bytes stay initialised.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), n_blocks) }
}

#[track_caller]
fn count<const LEN: usize, B: Block<LEN>>(n_bytes: usize) -> usize {
    const { assert!(align_of::<B>() == 1) };
    assert_eq!(n_bytes % size_of::<B>(), 0, "bytes of whole blocks of {}", B::DTYPE);
    n_bytes / size_of::<B>()
}
