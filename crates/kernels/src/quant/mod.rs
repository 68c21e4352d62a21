//! Quantized blocks: what the bytes of a weight file mean, and how such bytes are made.
//!
//! One file is one type: its block struct (ggml's layout, bit for bit), `dequantize` and `quantize`. The table
//! [`CODECS`] lists them with the dense types. Dequantised values equal ggml's to the bit, and quantised bytes equal
//! those of its `ggml_quantize_chunk`, with and without importance; so a file converted here is the file that
//! `llama-quantize` writes. For that the order of every floating-point sum is kept, and speed comes from
//! searching the scales of neighbouring sub-blocks side by side (`scale_search`).
//!
//! No scale is trusted: blocks of any bytes, NaN and infinite scales among them, give numbers and never a panic.
//! Products with quantised activations are not here but in `matmul`. The types of bitsandbytes are no types
//! of weight files of ours and stand beside the table: [`nf4`], and the 8-bit [`DynamicMap`].
//!
//! Source: ggml (MIT), `ggml-common.h` for the layouts and `ggml-quants.c` for the values.

use std::sync::Mutex;

use crate::half;
use crate::isa::{self, Isa};
use crate::{DType, threads};

mod affine_super_block;
mod block;
mod dynamic;
mod iq4_nl;
mod levels;
pub mod nf4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod scale_search;

pub use affine_super_block::scale_and_min;
pub use block::{Block, Importance, blocks, blocks_mut};
pub use dynamic::DynamicMap;
pub use iq4_nl::{BlockIq4Nl, IQ4_NL_VALUES};
pub use q2_k::BlockQ2K;
pub use q3_k::BlockQ3K;
pub use q4_0::BlockQ4_0;
pub use q4_1::BlockQ4_1;
pub use q4_k::BlockQ4K;
pub use q5_0::BlockQ5_0;
pub use q5_1::BlockQ5_1;
pub use q5_k::BlockQ5K;
pub use q6_k::BlockQ6K;
pub use q8_0::BlockQ8_0;

/// One row of the table: how the bytes of one type are read and written.
struct Codec {
    dtype: DType,
    dequantize: fn(&[u8], &mut [f32]),
    quantize: fn(&[f32], Option<&[f32]>, &mut [u8]),
}

/// Every type, in the order of [`DType`].
const CODECS: &[Codec] = &[
    Codec { dtype: DType::F32, dequantize: read_f32, quantize: write_f32 },
    Codec { dtype: DType::F16, dequantize: read_f16, quantize: write_f16 },
    Codec { dtype: DType::BF16, dequantize: read_bf16, quantize: write_bf16 },
    codec::<32, BlockQ4_0>(),
    codec::<32, BlockQ4_1>(),
    codec::<32, BlockQ5_0>(),
    codec::<32, BlockQ5_1>(),
    codec::<32, BlockQ8_0>(),
    codec::<256, BlockQ2K>(),
    codec::<256, BlockQ3K>(),
    codec::<256, BlockQ4K>(),
    codec::<256, BlockQ5K>(),
    codec::<256, BlockQ6K>(),
    codec::<32, BlockIq4Nl>(),
];

const _: () = {
    let mut i = 0;
    while i < CODECS.len() {
        assert!(CODECS[i].dtype as usize == i, "the table is in the order of the types");
        i += 1;
    }
};

const fn codec<const LEN: usize, B: Block<LEN>>() -> Codec {
    Codec { dtype: B::DTYPE, dequantize: dequantize_blocks::<LEN, B>, quantize: quantize_blocks::<LEN, B> }
}

/// Writes the values of `bytes`, whole blocks of `dtype`, to `out`; on the calling thread alone.
///
/// Panics if `bytes` is not as long as `out.len()` values of `dtype` are.
#[track_caller]
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(Some(bytes.len()), dtype.bytes_of(out.len()), "bytes of {} values of {dtype}", out.len());
    (CODECS[dtype as usize].dequantize)(bytes, out);
}

/// Writes `values`, one or more whole rows, to `out` as blocks of `dtype`; on all threads, so never from inside a
/// part of [`threads::run`].
///
/// `importance` has one weight for each column of a row: its length is the row's. The search for scales then keeps
/// the squared error small where the weight is large. F32, F16, BF16 and Q8_0 search nothing, so it changes nothing there.
///
/// Panics if `values` is no whole number of rows, a row no whole number of blocks, or `out` too short or too long.
#[track_caller]
pub fn quantize(dtype: DType, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    assert_eq!(Some(out.len()), dtype.bytes_of(values.len()), "bytes of {} values of {dtype}", values.len());
    // Values that stay on one thread: about 1 ms of work; whole rows, where their mean matters.
    let part_len = match importance {
        None => 1 << 13,
        Some(weights) => {
            let row_len = weights.len();
            assert!(dtype.bytes_of(row_len).is_some(), "a row of {row_len} values cuts a block of {dtype}");
            assert!(values.len().is_multiple_of(row_len), "{} values in rows of {row_len}", values.len());
            (1usize << 13).div_ceil(row_len.max(1)) * row_len.max(dtype.block_len())
        }
    };
    let part_bytes = part_len / dtype.block_len() * dtype.block_bytes();
    let quantize = CODECS[dtype as usize].quantize;
    let parts: Vec<_> =
        values.chunks(part_len).zip(out.chunks_mut(part_bytes)).map(|part| Mutex::new(Some(part))).collect();
    threads::run(parts.len(), |i| {
        if let Some((values, out)) = parts[i].lock().ok().and_then(|mut part| part.take()) {
            quantize(values, importance, out);
        }
    });
}

/// The same blocks come out of every instruction set; wider ones only search more sub-blocks at once.
fn quantize_blocks<const LEN: usize, B: Block<LEN>>(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) {
    let out = blocks_mut::<LEN, B>(out);
    match isa::active() {
        // SAFETY: this instruction set is active, so the CPU has AVX-512 F, BW, DQ and VL.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Vnni => unsafe { quantize_avx512(values, importance, out) },
        // SAFETY: this instruction set is active, so the CPU has AVX2.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx2Vnni => unsafe { quantize_avx2(values, importance, out) },
        _ => quantize_rows(values, importance, out),
    }
}

/// # Safety
/// The CPU has AVX-512 F, BW, DQ and VL.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn quantize_avx512<const LEN: usize, B: Block<LEN>>(
    x: &[f32],
    importance: Option<&[f32]>,
    out: &mut [B],
) {
    quantize_rows(x, importance, out);
}

/// # Safety
/// The CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn quantize_avx2<const LEN: usize, B: Block<LEN>>(
    x: &[f32],
    importance: Option<&[f32]>,
    out: &mut [B],
) {
    quantize_rows(x, importance, out);
}

/// `values`: whole rows of `importance.len()` if there is importance, otherwise whole blocks.
#[inline(always)]
fn quantize_rows<const LEN: usize, B: Block<LEN>>(values: &[f32], importance: Option<&[f32]>, out: &mut [B]) {
    let (values, _) = values.as_chunks::<LEN>();
    // Plain loops: the body of a closure would be compiled apart, without the caller's instruction set.
    let Some(weights) = importance else {
        for (values, out) in values.iter().zip(out) {
            *out = B::quantize(values, None);
        }
        return;
    };
    let (weights, _) = weights.as_chunks::<LEN>();
    for (row, out) in values.chunks(weights.len()).zip(out.chunks_mut(weights.len())) {
        let squares = row.iter().flatten().fold(0.0, |sum, x| sum + x * x);
        let row_mean_square = squares / (row.len() * LEN) as f32;
        for ((values, weights), out) in row.iter().zip(weights).zip(out) {
            *out = B::quantize(values, Some(Importance { weights, row_mean_square }));
        }
    }
}

fn dequantize_blocks<const LEN: usize, B: Block<LEN>>(bytes: &[u8], out: &mut [f32]) {
    let (blocks, (out, _)) = (blocks::<LEN, B>(bytes), out.as_chunks_mut::<LEN>());
    match isa::active() {
        Isa::Scalar => dequantize_each(blocks, out),
        // SAFETY: an instruction set above scalar is active, so the CPU has AVX2.
        #[cfg(target_arch = "x86_64")]
        _ => unsafe { dequantize_avx2(blocks, out) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => dequantize_each(blocks, out),
    }
}

/// # Safety
/// The CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn dequantize_avx2<const LEN: usize, B: Block<LEN>>(blocks: &[B], out: &mut [[f32; LEN]]) {
    dequantize_each(blocks, out);
}

#[inline(always)]
fn dequantize_each<const LEN: usize, B: Block<LEN>>(blocks: &[B], out: &mut [[f32; LEN]]) {
    for (block, out) in blocks.iter().zip(out) {
        block.dequantize(out);
    }
}

fn read_f32(bytes: &[u8], out: &mut [f32]) {
    bytes.as_chunks().0.iter().zip(out).for_each(|(&b, out)| *out = f32::from_le_bytes(b));
}

fn write_f32(values: &[f32], _: Option<&[f32]>, out: &mut [u8]) {
    out.as_chunks_mut().0.iter_mut().zip(values).for_each(|(out, x)| *out = x.to_le_bytes());
}

fn read_f16(bytes: &[u8], out: &mut [f32]) {
    half::f16_bytes_to_f32(bytes.as_chunks().0, out);
}

fn write_f16(values: &[f32], _: Option<&[f32]>, out: &mut [u8]) {
    half::f32_slice_to_f16_bytes(values, out.as_chunks_mut().0);
}

fn read_bf16(bytes: &[u8], out: &mut [f32]) {
    half::bf16_bytes_to_f32(bytes.as_chunks().0, out);
}

fn write_bf16(values: &[f32], _: Option<&[f32]>, out: &mut [u8]) {
    half::f32_slice_to_bf16_bytes(values, out.as_chunks_mut().0);
}

#[cfg(test)]
mod tests;
