//! NF4, the 4-bit type of QLoRA, to the bit as bitsandbytes has it; and reading FP4.
//!
//! A tensor is flattened and cut into blocks; a block is a scale, its greatest magnitude, and an index of
//! four bits for each value. The 16 values of the code are quantiles of a normal distribution. Double
//! quantisation keeps the scales in eight bits: 4 + 8/64 + 32/(64 · 256) = 4.127 bits for each value. Source:
//! arXiv:2305.14314, section 3.

use super::DynamicMap;
use crate::arch::vector::{Vector, per_isa};
use crate::rows::Start;
use crate::{isa, threads};

/// What the 16 indices stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FourBitCode {
    /// Quantiles of the normal distribution, with an exact 0.
    Nf4,
    /// Sign, two bits of exponent, one of mantissa.
    Fp4,
}

/// The values of NF4. Source: arXiv:2305.14314, appendix E.
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

const FP4: [f32; 16] = [
    0.0,
    0.005_208_333_5,
    0.666_666_7,
    1.0,
    0.333_333_34,
    0.5,
    0.166_666_67,
    0.25,
    -0.0,
    -0.005_208_333_5,
    -0.666_666_7,
    -1.0,
    -0.333_333_34,
    -0.5,
    -0.166_666_67,
    -0.25,
];

impl FourBitCode {
    /// The values of the indices 0..16, relative to the scale of a block.
    pub fn values(self) -> &'static [f32; 16] {
        match self {
            FourBitCode::Nf4 => &NF4,
            FourBitCode::Fp4 => &FP4,
        }
    }
}

/// The scales of the blocks of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Scales {
    /// One for each block.
    Plain(Vec<f32>),
    /// Quantised themselves: signed map [codes] · nested scale + offset.
    Double {
        /// One for each block, an index of [`DynamicMap::signed`].
        codes: Vec<u8>,
        /// One for each [`NESTED_LEN`] blocks.
        nested: Vec<f32>,
        /// The mean of the scales.
        offset: f32,
    },
}

/// Blocks that share a nested scale.
pub const NESTED_LEN: usize = 256;

impl Scales {
    /// The scale of a block.
    #[inline(always)]
    fn get(&self, map: &[f32; 256], block: usize) -> f32 {
        match self {
            Scales::Plain(scales) => scales[block],
            Scales::Double { codes, nested, offset } => {
                map[usize::from(codes[block])] * nested[block / NESTED_LEN] + offset
            }
        }
    }

    /// Double quantisation of plain scales; what is already so stays.
    pub fn double_quantized(self) -> Scales {
        let Scales::Plain(scales) = self else { return self };
        let sum: f64 = scales.iter().map(|&x| f64::from(x)).sum();
        let offset = (sum / scales.len().max(1) as f64) as f32;
        let map = DynamicMap::signed();
        let mut codes = Vec::with_capacity(scales.len());
        let nested = scales
            .chunks(NESTED_LEN)
            .map(|scales| {
                let greatest = scales.iter().fold(0f32, |max, x| max.max((x - offset).abs()));
                let inverse = 1.0 / greatest.max(f32::MIN_POSITIVE);
                codes.extend(scales.iter().map(|x| map.index((x - offset) * inverse)));
                greatest
            })
            .collect();
        Scales::Double { codes, nested, offset }
    }
}

/// A flattened tensor in blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Nf4Blocks {
    code: FourBitCode,
    n_values: usize,
    block_len: usize,
    indices: Vec<u8>,
    scales: Scales,
}

/// Quantises `values` in blocks of `block_len`, the last of which may be shorter, with plain scales; on all
/// threads.
///
/// `block_len` is even; bitsandbytes has 64, or 32 to 4096. Panics otherwise.
#[track_caller]
pub fn quantize(values: &[f32], block_len: usize) -> Nf4Blocks {
    assert!(block_len > 0 && block_len.is_multiple_of(2), "blocks of {block_len} values");
    // The padding of an odd number is the index of 0.
    let mut indices = vec![0x77u8; values.len().div_ceil(2)];
    let mut scales = vec![0f32; values.len().div_ceil(block_len)];
    let part_len = (1usize << 14).div_ceil(block_len) * block_len;
    let (isa, to_indices, to_scales) =
        (isa::active(), Start(indices.as_mut_ptr()), Start(scales.as_mut_ptr()));
    threads::run(values.len().div_ceil(part_len), |part| {
        let first = part * part_len;
        let values = &values[first..values.len().min(first + part_len)];
        // SAFETY: parts have disjoint blocks, a block a scale and, being of even length, bytes of its own.
        let (indices, scales) = unsafe {
            (
                std::slice::from_raw_parts_mut(to_indices.at(first / 2), values.len().div_ceil(2)),
                std::slice::from_raw_parts_mut(
                    to_scales.at(first / block_len),
                    values.len().div_ceil(block_len),
                ),
            )
        };
        quantize_blocks(isa, values, block_len, indices, scales);
    });
    let (code, n_values) = (FourBitCode::Nf4, values.len());
    Nf4Blocks { code, n_values, block_len, indices, scales: Scales::Plain(scales) }
}

per_isa! {
    fn quantize_blocks(values: &[f32], block_len: usize, indices: &mut [u8], scales: &mut [f32]) = quantize_body
}

/// Plain Rust, which the compiler turns into the instruction set's vectors.
#[inline(always)]
fn quantize_body<V: Vector>(values: &[f32], block_len: usize, indices: &mut [u8], scales: &mut [f32]) {
    let blocks = values.chunks(block_len).zip(indices.chunks_mut(block_len / 2));
    for ((values, indices), scale) in blocks.zip(scales) {
        *scale = values.iter().fold(0f32, |max, x| max.max(x.abs()));
        let divisor = scale.max(1e-38);
        // A full block is multiplied by the inverse, a shorter one divided: so bitsandbytes rounds.
        let (divisor, inverse) =
            if values.len() == block_len { (1.0, 1.0 / divisor) } else { (divisor, 1.0) };
        let mut scaled = values.chunks(32);
        for indices in indices.chunks_mut(16) {
            let mut x = [0f32; 32];
            let values = scaled.next().unwrap_or_default();
            x[..values.len()].copy_from_slice(values);
            let levels = x.map(|x| index((x / divisor * inverse).clamp(-1.0, 1.0)));
            indices
                .iter_mut()
                .zip(levels.as_chunks::<2>().0)
                .for_each(|(byte, pair)| *byte = pair[0] << 4 | pair[1]);
        }
    }
}

/// The number of thresholds, the middles between neighbours of the code, strictly below `x`.
#[inline(always)]
fn index(x: f32) -> u8 {
    let mut count = 0;
    for i in 0..15 {
        count += i32::from(x > const { thresholds() }[i]);
    }
    count as u8
}

const fn thresholds() -> [f32; 15] {
    let (mut thresholds, mut i) = ([0f32; 15], 0);
    while i < 15 {
        thresholds[i] = (NF4[i] + NF4[i + 1]) / 2.0;
        i += 1;
    }
    thresholds
}

impl Nf4Blocks {
    /// Blocks as a file of bitsandbytes has them: two indices a byte, the first in the high half.
    ///
    /// Panics if the numbers of bytes, scales and nested scales are not those of `n_values` in blocks of
    /// `block_len`.
    #[track_caller]
    pub fn new(
        code: FourBitCode,
        n_values: usize,
        block_len: usize,
        indices: Vec<u8>,
        scales: Scales,
    ) -> Nf4Blocks {
        assert!(block_len > 0 && block_len.is_multiple_of(2), "blocks of {block_len} values");
        let n_blocks = n_values.div_ceil(block_len);
        assert_eq!(indices.len(), n_values.div_ceil(2), "bytes of {n_values} values");
        let n_scales = match &scales {
            Scales::Plain(scales) => scales.len(),
            Scales::Double { codes, nested, .. } => {
                assert_eq!(nested.len(), n_blocks.div_ceil(NESTED_LEN), "nested scales of {n_blocks} blocks");
                codes.len()
            }
        };
        assert_eq!(n_scales, n_blocks, "scales of {n_values} values in blocks of {block_len}");
        Nf4Blocks { code, n_values, block_len, indices, scales }
    }

    /// The same blocks with quantised scales.
    pub fn double_quantized(self) -> Nf4Blocks {
        Nf4Blocks { scales: self.scales.double_quantized(), ..self }
    }

    /// What the indices stand for.
    pub fn code(&self) -> FourBitCode {
        self.code
    }

    /// Number of values.
    pub fn n_values(&self) -> usize {
        self.n_values
    }

    /// Values of a block.
    pub fn block_len(&self) -> usize {
        self.block_len
    }

    /// Two indices a byte, the first in the high half.
    pub fn indices(&self) -> &[u8] {
        &self.indices
    }

    /// The scales of the blocks.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// Bytes of indices and scales.
    pub fn n_bytes(&self) -> usize {
        let scales = match &self.scales {
            Scales::Plain(scales) => 4 * scales.len(),
            Scales::Double { codes, nested, .. } => codes.len() + 4 * nested.len() + 4,
        };
        self.indices.len() + scales
    }

    /// Writes the values from number `first` on to `out`; on the calling thread alone.
    ///
    /// Panics if there are not so many.
    #[track_caller]
    pub fn read(&self, first: usize, out: &mut [f32]) {
        assert!(first + out.len() <= self.n_values, "{first} + {} of {} values", out.len(), self.n_values);
        read_values(isa::active(), self, first, out);
    }

    /// Writes all values to `out`; on all threads. Panics if the number is another.
    #[track_caller]
    pub fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.n_values, "values");
        let isa = isa::active();
        crate::rows::for_each_block(out, self.block_len, |first, out| {
            read_values(isa, self, first * self.block_len, out)
        });
    }
}

per_isa! { fn read_values(blocks: &Nf4Blocks, first: usize, out: &mut [f32]) = read_body }

#[inline(always)]
fn read_body<V: Vector>(blocks: &Nf4Blocks, first: usize, out: &mut [f32]) {
    let (code, map) = (blocks.code.values(), DynamicMap::signed().values());
    let (mut i, mut rest) = (first, out);
    while !rest.is_empty() {
        let block = i / blocks.block_len;
        let n = rest.len().min((block + 1) * blocks.block_len - i);
        let (out, next) = rest.split_at_mut(n);
        read_block::<V>(code, &blocks.indices, i, blocks.scales.get(map, block), out);
        (i, rest) = (i + n, next);
    }
}

/// Writes the values from number `first` on, all of one block.
#[inline(always)]
fn read_block<V: Vector>(code: &[f32; 16], indices: &[u8], first: usize, scale: f32, out: &mut [f32]) {
    let one = |i: usize| code[usize::from((indices[i / 2] >> (4 * (1 - i % 2))) & 15)] * scale;
    let mut done = 0;
    if first % 2 == 1 && !out.is_empty() {
        out[0] = one(first);
        done = 1;
    }
    let factor = V::splat(scale);
    while done + 2 * V::LANES <= out.len() {
        let bytes = &indices[(first + done) / 2..][..V::LANES];
        // SAFETY: the slice holds LANES bytes.
        let [a, b] = unsafe { V::look_up_nibbles(code, bytes.as_ptr()) };
        a.mul(factor).store_slice(&mut out[done..]);
        b.mul(factor).store_slice(&mut out[done + V::LANES..]);
        done += 2 * V::LANES;
    }
    for (i, x) in out.iter_mut().enumerate().skip(done) {
        *x = one(first + i);
    }
}

/// A weight `[N, K]` in 4 bits, read row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Nf4 {
    n_rows: usize,
    n_cols: usize,
    blocks: Nf4Blocks,
}

impl Nf4 {
    /// The weight whose rows, one behind the other, are `blocks`. Panics if their number is another.
    #[track_caller]
    pub fn new(n_rows: usize, n_cols: usize, blocks: Nf4Blocks) -> Nf4 {
        assert_eq!(n_rows * n_cols, blocks.n_values, "values of [{n_rows}, {n_cols}]");
        Nf4 { n_rows, n_cols, blocks }
    }

    /// The weight as QLoRA keeps it: blocks of 64, double quantisation. Panics if the lengths do not fit.
    #[track_caller]
    pub fn quantize(n_rows: usize, n_cols: usize, values: &[f32]) -> Nf4 {
        Nf4::new(n_rows, n_cols, quantize(values, 64).double_quantized())
    }

    /// N.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// K.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// The values as blocks.
    pub fn blocks(&self) -> &Nf4Blocks {
        &self.blocks
    }

    /// Writes a row to `out: [K]`; on the calling thread alone. Panics if there is no such row.
    #[track_caller]
    pub fn read(&self, row: usize, out: &mut [f32]) {
        assert!(
            row < self.n_rows && out.len() == self.n_cols,
            "row {row} of [{}, {}]",
            self.n_rows,
            self.n_cols
        );
        self.blocks.read(row * self.n_cols, out);
    }
}

#[cfg(test)]
pub(super) mod tests;
