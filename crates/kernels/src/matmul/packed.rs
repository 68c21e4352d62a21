//! Weights repacked for the micro-kernels.

use super::Aligned;
use super::layout::{self, GROUP, Layout};
use crate::dtype::DType;
use crate::{isa, threads};

/// A weight matrix, [N, K] = [outputs, inputs], with its rows interleaved in groups of sixteen.
///
/// It holds the bits of the file and nothing more, except that the last group is filled up to sixteen rows (and odd
/// columns of bf16 up to two), and gives them back: [`Packed::unpack`].
pub struct Packed {
    dtype: DType,
    n_rows: usize,
    n_cols: usize,
    /// Codes of group after group, or dense elements.
    codes: Aligned,
    /// Scale fields of group after group.
    scales: Aligned,
}

/// Rows in the order of the file, to be interleaved.
pub(crate) struct Rows<'a> {
    pub dtype: DType,
    pub n_cols: usize,
    /// At most sixteen rows.
    pub bytes: &'a [u8],
}

impl Packed {
    /// Packs `n_rows` rows of `n_cols` columns, which lie in `bytes` one after the other in ggml's layout.
    ///
    /// Panics if a row is no whole number of blocks or `bytes` has another length than the rows.
    #[track_caller]
    pub fn pack(dtype: DType, n_rows: usize, n_cols: usize, bytes: &[u8]) -> Packed {
        let row_bytes = dtype.bytes_of(n_cols).filter(|_| n_cols > 0);
        let Some(row_bytes) = row_bytes else {
            panic!("a row of {n_cols} columns is no whole number of {dtype} blocks")
        };
        assert_eq!(Some(bytes.len()), row_bytes.checked_mul(n_rows), "bytes of [{n_rows}, {n_cols}] {dtype}");
        let n_groups = n_rows.div_ceil(GROUP);
        let (codes_stride, scales_stride) = strides(dtype, n_cols);
        let mut codes = Aligned::new(n_groups * codes_stride);
        let mut scales = Aligned::new(n_groups * scales_stride);
        // A part is some hundred kilobytes.
        let part_groups = ((256 << 10) / codes_stride.max(1)).max(1);
        let (to_codes, to_scales) = (codes.parts(), scales.parts());
        threads::run(n_groups.div_ceil(part_groups), |part| {
            for group in part * part_groups..((part + 1) * part_groups).min(n_groups) {
                let rows = group * GROUP..((group + 1) * GROUP).min(n_rows);
                let bytes = &bytes[rows.start * row_bytes..rows.end * row_bytes];
                let rows = Rows { dtype, n_cols, bytes };
                // SAFETY: each group is packed by one part, into its own bytes.
                let (codes, scales) = unsafe {
                    let codes = to_codes.slice(group * codes_stride, codes_stride);
                    (codes, to_scales.slice(group * scales_stride, scales_stride))
                };
                #[cfg(target_arch = "x86_64")]
                if isa::active() >= isa::Isa::Avx2 {
                    // SAFETY: the instruction set is available.
                    unsafe { crate::arch::avx2::pack_group(&rows, codes, scales) };
                    continue;
                }
                pack_group(&rows, codes, scales);
            }
        });
        Packed { dtype, n_rows, n_cols, codes, scales }
    }

    /// Outputs.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Inputs.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// The type of the file.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Bytes held in memory.
    pub fn n_bytes(&self) -> usize {
        self.codes.len() + self.scales.len()
    }

    /// Writes row `i`, dequantized exactly, to `out`, [K].
    ///
    /// Panics if there is no such row or `out` has another length.
    #[track_caller]
    pub fn row(&self, i: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.n_cols, "columns of a row");
        let mut bytes = vec![0; self.row_bytes()];
        self.row_of_file(i, &mut bytes);
        super::dequantize(self.dtype, &bytes, out);
    }

    /// The bytes that the weight was packed from.
    pub fn unpack(&self) -> Vec<u8> {
        let row_bytes = self.row_bytes();
        let mut bytes = vec![0; self.n_rows * row_bytes];
        bytes.chunks_exact_mut(row_bytes).enumerate().for_each(|(i, row)| self.row_of_file(i, row));
        bytes
    }

    fn row_bytes(&self) -> usize {
        self.dtype.bytes_of(self.n_cols).expect("`pack` has checked the columns")
    }

    /// The codes and scales of a group onward, and the bytes from one group to the next.
    pub(crate) fn planes(&self, group: usize) -> (*const u8, *const u8, usize, usize) {
        let (codes_stride, scales_stride) = strides(self.dtype, self.n_cols);
        (
            self.codes[group * codes_stride..].as_ptr(),
            self.scales[group * scales_stride..].as_ptr(),
            codes_stride,
            scales_stride,
        )
    }

    /// Row `i` as it was in the file.
    #[track_caller]
    fn row_of_file(&self, i: usize, row: &mut [u8]) {
        assert!(i < self.n_rows, "row {i} of {}", self.n_rows);
        let (codes_stride, scales_stride) = strides(self.dtype, self.n_cols);
        let (group, lane) = (i / GROUP, i % GROUP);
        let codes = &self.codes[group * codes_stride..][..codes_stride];
        let scales = &self.scales[group * scales_stride..][..scales_stride];
        if !self.dtype.is_quantized() {
            let step = dense_step(self.dtype);
            for (k, element) in row.chunks_mut(step).enumerate() {
                element.copy_from_slice(&codes[(k * GROUP + lane) * step..][..element.len()]);
            }
            return;
        }
        let layout = Layout::of(self.dtype);
        let n_words = layout.code_bytes() / GROUP / 4;
        let n_blocks = self.dtype.block_len() / 32;
        for (block, bytes) in row.chunks_exact_mut(self.dtype.block_bytes()).enumerate() {
            let mut words = [0; 64];
            for (part, words) in words.chunks_exact_mut(8).take(n_blocks).enumerate() {
                let at = &codes[(block * n_blocks + part) * layout.code_bytes()..];
                let mut planes = [0; 8];
                for (v, plane) in planes.iter_mut().enumerate().take(n_words) {
                    let word = &at[(v * GROUP + lane) * 4..][..4];
                    *plane = u32::from_le_bytes(word.try_into().expect("four bytes"));
                }
                layout.expand(&planes, words);
            }
            layout::encode(self.dtype, &words, bytes);
            let mut from = block * layout.scale_bytes();
            for &(offset, width, count) in layout.fields {
                for field in bytes[offset..offset + width * count].chunks_exact_mut(width) {
                    field.copy_from_slice(&scales[from + lane * width..][..width]);
                    from += GROUP * width;
                }
            }
        }
    }
}

/// Bytes of a group in the planes of codes and of scales.
fn strides(dtype: DType, n_cols: usize) -> (usize, usize) {
    if !dtype.is_quantized() {
        let step = dense_step(dtype);
        return ((n_cols * dtype.block_bytes()).next_multiple_of(step) * GROUP, 0);
    }
    let layout = Layout::of(dtype);
    (n_cols / 32 * layout.code_bytes(), n_cols / dtype.block_len() * layout.scale_bytes())
}

/// Bytes of a dense row that lie together: two columns of bf16, else one.
fn dense_step(dtype: DType) -> usize {
    if dtype == DType::F16 { 2 } else { 4 }
}

/// Interleaves the rows of a group. The planes must be zero where a group has fewer than sixteen rows.
#[inline(always)]
pub(crate) fn pack_group(rows: &Rows, codes: &mut [u8], scales: &mut [u8]) {
    // The type becomes a constant in each arm, so that the compiler makes straight code of the layout.
    match rows.dtype {
        DType::F32 | DType::BF16 => pack_dense::<4>(rows, codes),
        DType::F16 => pack_dense::<2>(rows, codes),
        DType::Q4_0 => pack_quantized(DType::Q4_0, rows, codes, scales),
        DType::Q4_1 => pack_quantized(DType::Q4_1, rows, codes, scales),
        DType::Q5_0 => pack_quantized(DType::Q5_0, rows, codes, scales),
        DType::Q5_1 => pack_quantized(DType::Q5_1, rows, codes, scales),
        DType::Q8_0 => pack_quantized(DType::Q8_0, rows, codes, scales),
        DType::Q2K => pack_quantized(DType::Q2K, rows, codes, scales),
        DType::Q3K => pack_quantized(DType::Q3K, rows, codes, scales),
        DType::Q4K => pack_quantized(DType::Q4K, rows, codes, scales),
        DType::Q5K => pack_quantized(DType::Q5K, rows, codes, scales),
        DType::Q6K => pack_quantized(DType::Q6K, rows, codes, scales),
        DType::Iq4Nl => pack_quantized(DType::Iq4Nl, rows, codes, scales),
    }
}

#[inline(always)]
fn pack_dense<const STEP: usize>(rows: &Rows, codes: &mut [u8]) {
    let row_bytes = rows.n_cols * rows.dtype.block_bytes();
    // Some columns of all rows at a time, so that what is written stays in the first-level cache.
    const RUN: usize = 64;
    for (run, codes) in codes.chunks_mut(RUN * STEP * GROUP).enumerate() {
        for (lane, row) in rows.bytes.chunks_exact(row_bytes).enumerate() {
            let row = &row[run * RUN * STEP..row_bytes.min((run + 1) * RUN * STEP)];
            let (whole, rest) = row.as_chunks::<STEP>();
            for (element, to) in whole.iter().zip(codes.chunks_exact_mut(STEP * GROUP)) {
                to[lane * STEP..][..STEP].copy_from_slice(element);
            }
            // Half a step of bf16.
            if !rest.is_empty() {
                codes[(whole.len() * GROUP + lane) * STEP..][..rest.len()].copy_from_slice(rest);
            }
        }
    }
}

#[inline(always)]
fn pack_quantized(dtype: DType, rows: &Rows, codes: &mut [u8], scales: &mut [u8]) {
    let layout = Layout::of(dtype);
    let n_blocks = dtype.block_len() / 32;
    let block_bytes = dtype.block_bytes();
    let row_bytes = rows.n_cols / dtype.block_len() * block_bytes;
    let to_codes = codes.chunks_exact_mut(n_blocks * layout.code_bytes());
    let to_scales = scales.chunks_exact_mut(layout.scale_bytes());
    let (mut words, mut planes) = ([0; 64], [0; 8]);
    for (i, (codes, scales)) in to_codes.zip(to_scales).enumerate() {
        for (lane, row) in rows.bytes.chunks_exact(row_bytes).enumerate() {
            let block = &row[i * block_bytes..][..block_bytes];
            layout::decode(dtype, block, &mut words);
            for part in 0..n_blocks {
                let n = layout.squeeze(&words[8 * part..8 * part + 8], &mut planes);
                let to = &mut codes[part * layout.code_bytes()..][..layout.code_bytes()];
                for (v, plane) in planes.iter().enumerate().take(n) {
                    to[(v * GROUP + lane) * 4..][..4].copy_from_slice(&plane.to_le_bytes());
                }
            }
            let mut to = 0;
            for &(offset, width, count) in layout.fields {
                for i in 0..count {
                    let field = &block[offset + i * width..][..width];
                    scales[to + lane * width..][..width].copy_from_slice(field);
                    to += GROUP * width;
                }
            }
        }
    }
}
