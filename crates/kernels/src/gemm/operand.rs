//! What products multiply: matrices in someone's memory, and rows that are decoded when they are needed.

use crate::matmul::Packed;

/// Elements of a matrix as they lie in memory.
#[derive(Clone, Copy)]
pub enum Elements<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// The bits of bfloat16s.
    Bf16(&'a [u16]),
}

impl Elements<'_> {
    fn len(&self) -> usize {
        match self {
            Elements::F32(x) => x.len(),
            Elements::Bf16(x) => x.len(),
        }
    }
}

/// A matrix in someone's memory: element (i, j) at `i * row_stride + j * col_stride`; one of the strides is
/// 1.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(super) elements: Elements<'a>,
    pub(super) n_rows: usize,
    pub(super) n_cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> View<'a> {
    /// Rows one after another: `data: [n_rows, n_cols]`. Panics if the length does not fit.
    #[track_caller]
    pub fn new(data: &'a [f32], n_rows: usize, n_cols: usize) -> Self {
        assert_eq!(data.len(), n_rows * n_cols, "elements of [{n_rows}, {n_cols}]");
        Self::strided(data, n_rows, n_cols, n_cols)
    }

    /// Rows that begin `row_stride` apart, the last of which may end with its elements.
    ///
    /// Panics if rows overlap or `data` is too short.
    #[track_caller]
    pub fn strided(data: &'a [f32], n_rows: usize, n_cols: usize, row_stride: usize) -> Self {
        Self::of(Elements::F32(data), n_rows, n_cols, row_stride)
    }

    /// Rows of bfloat16s one after another: `data: [n_rows, n_cols]`. Panics if the length does not fit.
    #[track_caller]
    pub fn bf16(data: &'a [u16], n_rows: usize, n_cols: usize) -> Self {
        assert_eq!(data.len(), n_rows * n_cols, "elements of [{n_rows}, {n_cols}]");
        Self::of(Elements::Bf16(data), n_rows, n_cols, n_cols)
    }

    #[track_caller]
    fn of(elements: Elements<'a>, n_rows: usize, n_cols: usize, row_stride: usize) -> Self {
        assert!(row_stride >= n_cols || n_rows <= 1, "rows of {n_cols} every {row_stride} elements");
        let needed = if n_rows == 0 || n_cols == 0 { 0 } else { (n_rows - 1) * row_stride + n_cols };
        assert!(
            elements.len() >= needed,
            "{} elements of [{n_rows}, {n_cols}], {needed} needed",
            elements.len()
        );
        View { elements, n_rows, n_cols, row_stride, col_stride: 1 }
    }

    /// The same elements as a matrix `[n_cols, n_rows]`.
    pub fn transposed(self) -> Self {
        View {
            n_rows: self.n_cols,
            n_cols: self.n_rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Columns.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }
}

/// Rows that are decoded when they are needed: quantized weights.
pub trait Rows: Sync {
    /// Rows.
    fn n_rows(&self) -> usize;
    /// Columns.
    fn n_cols(&self) -> usize;
    /// Writes row `row` to `out`, `[n_cols]`; called on any thread, inside a product, so it must not start another.
    fn read(&self, row: usize, out: &mut [f32]);
}

impl Rows for Packed {
    fn n_rows(&self) -> usize {
        Packed::n_rows(self)
    }

    fn n_cols(&self) -> usize {
        Packed::n_cols(self)
    }

    fn read(&self, row: usize, out: &mut [f32]) {
        self.row(row, out)
    }
}

/// The second factor of a product.
#[derive(Clone, Copy)]
pub enum Operand<'a> {
    /// A matrix in memory.
    View(View<'a>),
    /// The matrix of these rows.
    Rows(&'a dyn Rows),
    /// The matrix whose columns are these rows.
    RowsTransposed(&'a dyn Rows),
}

impl Operand<'_> {
    /// Rows.
    pub fn n_rows(&self) -> usize {
        match self {
            Operand::View(view) => view.n_rows,
            Operand::Rows(rows) => rows.n_rows(),
            Operand::RowsTransposed(rows) => rows.n_cols(),
        }
    }

    /// Columns.
    pub fn n_cols(&self) -> usize {
        match self {
            Operand::View(view) => view.n_cols,
            Operand::Rows(rows) => rows.n_cols(),
            Operand::RowsTransposed(rows) => rows.n_rows(),
        }
    }
}

impl<'a> From<View<'a>> for Operand<'a> {
    fn from(view: View<'a>) -> Self {
        Operand::View(view)
    }
}
