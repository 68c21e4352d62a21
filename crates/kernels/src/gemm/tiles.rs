//! Products of small blocks inside other kernels, which pack a factor once and multiply it often.

use super::Precision;
use super::kernel::{self, Block, Kernels, Strip};
use crate::half::{bf16_to_f32, f32_to_bf16};
use crate::isa::Isa;

/// The kernels of an instruction set for a precision.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    kernels: Kernels,
    /// Whether floats are rounded to bf16 before they are packed, for lack of instructions.
    rounded: bool,
}

/// Rows of floats, `[n_rows, n_cols]`, that begin `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Floats<'a> {
    pub data: &'a [f32],
    pub n_rows: usize,
    pub n_cols: usize,
    pub stride: usize,
}

/// A packed factor.
#[derive(Clone, Copy)]
pub(crate) struct Factor<'a> {
    pub words: &'a [u32],
    /// Rows of A or columns of B.
    pub n_lines: usize,
    /// Elements of each.
    pub depth: usize,
}

/// Where a block's product goes.
pub(crate) struct Output<'a> {
    pub data: &'a mut [f32],
    pub stride: usize,
    /// Whether the product is added to what is there.
    pub add: bool,
}

/// Which dimension of a factor's rows is summed over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Summed {
    /// Along a row.
    Columns,
    /// From row to row.
    Rows,
}

impl Tiles {
    pub fn of(isa: Isa, precision: Precision) -> Tiles {
        let floats = kernel::floats(isa);
        match precision {
            Precision::F32 => Tiles { kernels: floats, rounded: false },
            Precision::Bf16 => {
                kernel::bf16(isa).map_or(Tiles { kernels: floats, rounded: true }, |kernels| Tiles {
                    kernels,
                    rounded: false,
                })
            }
        }
    }

    /// Words that a packed factor needs: `n_lines` rows of A or columns of B, `depth` elements each.
    pub fn len(&self, n_lines: usize, depth: usize) -> usize {
        n_lines.next_multiple_of(self.kernels.n_rows) * self.kernels.n_steps(depth)
    }

    /// Packs a first factor. Panics if `to` is too short.
    pub fn pack_a<'a>(&self, from: Floats, summed: Summed, to: &'a mut [u32]) -> Factor<'a> {
        self.pack(from, summed, self.kernels.n_rows, to)
    }

    /// Packs a second factor. Panics if `to` is too short.
    pub fn pack_b<'a>(&self, from: Floats, summed: Summed, to: &'a mut [u32]) -> Factor<'a> {
        self.pack(from, summed, self.kernels.n_cols, to)
    }

    fn pack<'a>(&self, from: Floats, summed: Summed, width: usize, to: &'a mut [u32]) -> Factor<'a> {
        let Floats { data, n_rows, n_cols, stride } = from;
        assert!(
            data.len() >= n_rows.saturating_sub(1) * stride + n_cols && (n_cols > 0 && stride >= n_cols),
            "rows of a factor"
        );
        let rounded: Vec<f32>;
        let (data, stride) = if self.rounded {
            let rows = data.chunks(stride).take(n_rows).flat_map(|row| &row[..n_cols]);
            rounded = rows.map(|&x| bf16_to_f32(f32_to_bf16(x))).collect();
            (&rounded[..], n_cols)
        } else {
            (data, stride)
        };
        let (n_lines, depth, line_stride, depth_stride) = match summed {
            Summed::Columns => (n_rows, n_cols, stride, 1),
            Summed::Rows => (n_cols, n_rows, 1, stride),
        };
        assert!(to.len() >= self.len(n_lines, depth), "room for a packed factor");
        let n_steps = self.kernels.n_steps(depth);
        let (from, start) = (data.as_ptr(), to.as_mut_ptr());
        let strip = Strip { from, line_stride, depth_stride, n_lines, depth, width, n_steps, to: start };
        // SAFETY: the source and the room for its words have just been checked.
        unsafe { (self.kernels.pack)(&strip) };
        Factor { words: to, n_lines, depth }
    }

    /// `out = alpha · a · b`, or that added to it: rows of `n_cols` that begin `out_stride` apart.
    ///
    /// `b` may have been packed with more columns and more depth than are used: the first ones are. Panics if
    /// the lengths do not fit.
    pub fn multiply(&self, alpha: f32, a: Factor, b: Factor, n_cols: usize, out: Output) {
        let (n_rows, depth) = (a.n_lines, a.depth);
        if n_rows == 0 || n_cols == 0 {
            return;
        }
        assert!(
            a.words.len() >= self.len(n_rows, depth) && b.words.len() >= self.len(b.n_lines, b.depth),
            "words"
        );
        assert!(b.depth >= depth && b.n_lines >= n_cols, "a product beyond its factors");
        assert!(
            out.stride >= n_cols && out.data.len() >= (n_rows - 1) * out.stride + n_cols,
            "outputs of a block"
        );
        let block = Block {
            a: a.words.as_ptr(),
            b: b.words.as_ptr(),
            n_steps: self.kernels.n_steps(depth),
            b_steps: self.kernels.n_steps(b.depth),
            b_cols: b.n_lines,
            n_rows,
            n_cols,
            alpha,
            add: out.add,
            bias: std::ptr::null(),
            out: out.data.as_mut_ptr(),
            out_stride: out.stride,
        };
        // SAFETY: the factors hold what the counts say, and the outputs are there.
        unsafe { (self.kernels.multiply)(&block) }
    }
}
