//! The order of the work: blocks of the output, blocks of the summed dimension, panels packed one block
//! ahead.
//!
//! Both factors are packed into panels that the tiles read in order (Goto and van de Geijn, "Anatomy of
//! high-performance matrix multiplication", 2008). The threads share what is packed: one fork-join packs the
//! factors of a block and multiplies those of the block before, so that nobody waits for memory alone.

use super::kernel::{self, Block, Kernels, Strip};
use super::operand::{Elements, Operand, Rows, View};
use super::{Precision, Update};
use crate::half::{bf16_to_f32, f32_to_bf16};
use crate::isa::Isa;
use crate::matmul::aligned::Aligned;
use crate::rows::Start;
use std::cell::RefCell;
use std::ops::Range;

/// Words of a panel's row that are packed together: a panel of A stays in the first-level cache.
const STEPS: usize = 384;
/// Rows of the output whose factor A is packed together.
const ROWS: usize = 1536;
/// Columns of the output whose factor B is packed together.
const COLS: usize = 1536;
/// Rows of the output in a part of the work.
const PART_ROWS: usize = 96;
/// Columns of the output in a part of the work: its panels of B stay in the second-level cache.
const PART_COLS: usize = 192;
/// Elements that a part packs.
const PACK_LEN: usize = 16 << 10;
/// Lines of a part whose lines are neighbours: enough to read memory in long runs.
const PACK_LINES: usize = 256;

/// A product, checked.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub precision: Precision,
    pub alpha: f32,
    pub a: View<'a>,
    pub b: Operand<'a>,
    pub update: Update,
    pub bias: Option<&'a [f32]>,
    pub out: Start<f32>,
    pub out_stride: usize,
}

/// How the parts of a fork-join are run.
pub(super) type Run<'a> = &'a dyn Fn(usize, &(dyn Fn(usize) + Sync));

/// Memory for packed factors, kept from call to call.
pub(super) struct Workspace {
    a: [Aligned; 2],
    b: [Aligned; 2],
    rows: Aligned,
}

impl Workspace {
    pub(super) const EMPTY: Workspace = Workspace {
        a: [Aligned::EMPTY, Aligned::EMPTY],
        b: [Aligned::EMPTY, Aligned::EMPTY],
        rows: Aligned::EMPTY,
    };
}

thread_local! {
    /// Floats of elements that are stored or rounded otherwise.
    static FLOATS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// One block of the work.
#[derive(Debug, Clone, PartialEq)]
struct Stage {
    rows: Range<usize>,
    cols: Range<usize>,
    depth: Range<usize>,
    /// Where its factors are packed: which of two buffers.
    a: usize,
    b: usize,
    /// Whether a factor is that of the stage before.
    a_same: bool,
    b_same: bool,
}

/// Cuts `0..n` into ranges of the same number of units, at most `most` long.
fn cut(n: usize, most: usize, unit: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let len = n.div_ceil(n.div_ceil(most).max(1)).next_multiple_of(unit).max(1);
    (0..n).step_by(len).map(move |start| start..n.min(start + len))
}

/// Multiplies. The output and the depth of the product are not empty.
pub(super) fn multiply(isa: Isa, product: &Product, workspace: &mut Workspace, run: Run) {
    let (kernels, rounded) = match product.precision {
        Precision::F32 => (kernel::floats(isa), false),
        Precision::Bf16 => kernel::bf16(isa).map_or((kernel::floats(isa), true), |kernels| (kernels, false)),
    };
    let (n_rows, depth, n_cols) = (product.a.n_rows, product.a.n_cols, product.b.n_cols());
    // Rows that must be decoded are decoded as seldom as can be.
    let (rows_most, cols_most) = match product.b {
        Operand::View(_) => (ROWS, COLS),
        Operand::Rows(_) => (4 * ROWS, n_cols),
        Operand::RowsTransposed(_) => (4 * ROWS, COLS),
    };
    let mut stages: Vec<Stage> = Vec::new();
    for rows in cut(n_rows, rows_most, kernels.n_rows) {
        for cols in cut(n_cols, cols_most, kernels.n_cols) {
            for depth in cut(depth, STEPS * kernels.depth, 2) {
                let mut stage = Stage {
                    rows: rows.clone(),
                    cols: cols.clone(),
                    depth,
                    a: 0,
                    b: 0,
                    a_same: false,
                    b_same: false,
                };
                if let Some(last) = stages.last() {
                    stage.a_same = last.rows == stage.rows && last.depth == stage.depth;
                    stage.b_same = last.cols == stage.cols && last.depth == stage.depth;
                    stage.a = if stage.a_same { last.a } else { 1 - last.a };
                    stage.b = if stage.b_same { last.b } else { 1 - last.b };
                }
                stages.push(stage);
            }
        }
    }
    let n_steps = |stage: &Stage| kernels.n_steps(stage.depth.len());
    let (mut a_len, mut b_len) = (0, 0);
    for stage in &stages {
        a_len = a_len.max(stage.rows.len().next_multiple_of(kernels.n_rows) * n_steps(stage));
        b_len = b_len.max(stage.cols.len().next_multiple_of(kernels.n_rows) * n_steps(stage));
    }
    let [a, b] = [(&mut workspace.a, a_len), (&mut workspace.b, b_len)].map(|(buffers, len)| {
        buffers.each_mut().map(|buffer| {
            buffer.reserve(4 * len);
            Start(buffer.as_mut_ptr().cast::<u32>())
        })
    });
    let packer = Packer { kernels, rounded, a_view: product.a, a, b };
    let mut decoded = match product.b {
        Operand::View(_) => None,
        Operand::Rows(rows) | Operand::RowsTransposed(rows) => {
            Some(Decoded { rows, memory: &mut workspace.rows, held: 0..0 })
        }
    };
    for at in 0..=stages.len() {
        let (next, now) = (stages.get(at), at.checked_sub(1).map(|at| &stages[at]));
        let b_view = next.filter(|next| !next.b_same).map(|next| {
            let (depth, cols) = (next.depth.clone(), next.cols.clone());
            match (product.b, &mut decoded) {
                (Operand::View(view), _) => view.part(depth, cols),
                (Operand::Rows(_), Some(decoded)) => {
                    let n = depth.len();
                    decoded.get(depth, run).part(0..n, cols)
                }
                (Operand::RowsTransposed(_), Some(decoded)) => {
                    let n = cols.len();
                    decoded.get(cols, run).transposed().part(depth, 0..n)
                }
                _ => unreachable!("rows without memory"),
            }
        });
        let pack_a = next.filter(|next| !next.a_same);
        let a_parts = pack_a.map_or(0, |next| Pieces::of_a(&packer, next).n_parts());
        let pack_b = next.filter(|next| !next.b_same);
        let b_parts = b_view.map_or(0, |view| Pieces::of(view.transposed(), kernels.n_cols).n_parts());
        let tiles =
            now.map_or(0, |now| now.rows.len().div_ceil(PART_ROWS) * now.cols.len().div_ceil(PART_COLS));
        run(a_parts + b_parts + tiles, &|part| {
            // SAFETY: each part writes panels or outputs of its own; the panels that are read were packed
            // before.
            unsafe {
                match (pack_a, pack_b, &b_view, now) {
                    (Some(next), ..) if part < a_parts => packer.pack_a(next, part),
                    (_, Some(next), Some(view), _) if part < a_parts + b_parts => {
                        packer.pack_b(next, view, part - a_parts)
                    }
                    (.., Some(now)) => multiply_part(&packer, product, now, part - a_parts - b_parts),
                    _ => unreachable!("a part of nothing"),
                }
            }
        });
    }
}

/// The rows of B that a stage needs, decoded.
struct Decoded<'a> {
    rows: &'a dyn Rows,
    memory: &'a mut Aligned,
    /// Which rows are in the memory.
    held: Range<usize>,
}

impl Decoded<'_> {
    /// These rows as a matrix.
    fn get(&mut self, which: Range<usize>, run: Run) -> View<'_> {
        let n_cols = self.rows.n_cols();
        if self.held != which {
            self.memory.reserve(4 * which.len() * n_cols);
            let start = Start(self.memory.as_mut_ptr().cast::<f32>());
            run(which.len(), &|i| {
                // SAFETY: each row has its own place in the buffer, whose bytes are floats as well.
                let row = unsafe { std::slice::from_raw_parts_mut(start.at(i * n_cols), n_cols) };
                self.rows.read(which.start + i, row);
            });
            self.held = which.clone();
        }
        // SAFETY: written by the parts.
        let floats = unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), which.len() * n_cols) };
        View::new(floats, which.len(), n_cols)
    }
}

/// Packs factors.
struct Packer<'a> {
    kernels: Kernels,
    /// Whether floats are rounded to bf16 first.
    rounded: bool,
    a_view: View<'a>,
    a: [Start<u32>; 2],
    b: [Start<u32>; 2],
}

/// How a factor, its lines being rows, is cut into parts that are packed together.
struct Pieces<'a> {
    view: View<'a>,
    /// Lines of a panel.
    width: usize,
    /// Lines of a part: whole panels.
    n_lines: usize,
    /// Elements of each line in a part: whole words.
    depth: usize,
}

impl<'a> Pieces<'a> {
    fn of(view: View<'a>, width: usize) -> Pieces<'a> {
        let depth = if view.row_stride == 1 { PACK_LEN / PACK_LINES } else { view.n_cols };
        let n_lines = (PACK_LEN / depth.min(view.n_cols).max(1) / width).max(1) * width;
        Pieces { view, width, n_lines, depth }
    }

    fn of_a(packer: &Packer<'a>, stage: &Stage) -> Pieces<'a> {
        Pieces::of(packer.a_view.part(stage.rows.clone(), stage.depth.clone()), packer.kernels.n_rows)
    }

    fn n_parts(&self) -> usize {
        self.view.n_rows.div_ceil(self.n_lines) * self.view.n_cols.div_ceil(self.depth)
    }
}

impl Packer<'_> {
    /// # Safety
    /// Nobody else uses the part's panels.
    unsafe fn pack_a(&self, stage: &Stage, part: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.pack(&Pieces::of_a(self, stage), self.a[stage.a], part) }
    }

    /// # Safety
    /// Nobody else uses the part's panels.
    unsafe fn pack_b(&self, stage: &Stage, view: &View, part: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.pack(&Pieces::of(view.transposed(), self.kernels.n_cols), self.b[stage.b], part) }
    }

    /// # Safety
    /// Nobody else uses the part's panels, and there is room for them.
    unsafe fn pack(&self, pieces: &Pieces, to: Start<u32>, part: usize) {
        let Pieces { view, width, .. } = *pieces;
        let n_deep = view.n_cols.div_ceil(pieces.depth);
        let (line, p) = (part / n_deep * pieces.n_lines, part % n_deep * pieces.depth);
        let lines = line..view.n_rows.min(line + pieces.n_lines);
        let depth = p..view.n_cols.min(p + pieces.depth);
        let n_steps = self.kernels.n_steps(view.n_cols);
        let view = view.part(lines, depth);
        // Panels of one width, then the narrower last one; words of earlier elements stand before these in a
        // panel.
        let whole = view.n_rows / width * width;
        for (lines, width) in [
            (0..whole, width),
            (whole..view.n_rows, (view.n_rows - whole).next_multiple_of(self.kernels.n_rows)),
        ] {
            if lines.is_empty() {
                continue;
            }
            let to = to.at((line + lines.start) * n_steps + self.kernels.n_steps(p) * width);
            let pack = |x: &[f32], view: &View| {
                let strip = Strip {
                    from: x.as_ptr(),
                    line_stride: view.row_stride,
                    depth_stride: view.col_stride,
                    n_lines: view.n_rows,
                    depth: view.n_cols,
                    width,
                    n_steps,
                    to,
                };
                // SAFETY: the strip is some of the part's lines, or a copy of them.
                unsafe { (self.kernels.pack)(&strip) }
            };
            let view = view.part(lines, 0..view.n_cols);
            match view.elements {
                Elements::F32(x) if !self.rounded => pack(x, &view),
                _ => FLOATS.with_borrow_mut(|floats| {
                    let view = view.copied(floats, self.rounded);
                    let Elements::F32(x) = view.elements else { unreachable!("floats") };
                    pack(x, &view)
                }),
            }
        }
    }
}

impl<'a> View<'a> {
    /// Some rows and columns of it.
    pub(super) fn part(self, rows: Range<usize>, cols: Range<usize>) -> View<'a> {
        let at = rows.start * self.row_stride + cols.start * self.col_stride;
        let elements = match self.elements {
            Elements::F32(x) => Elements::F32(&x[at.min(x.len())..]),
            Elements::Bf16(x) => Elements::Bf16(&x[at.min(x.len())..]),
        };
        View { elements, n_rows: rows.len(), n_cols: cols.len(), ..self }
    }

    /// A copy in floats, rounded to bf16 if asked for, its rows contiguous if they were.
    fn copied<'b>(self, floats: &'b mut Vec<f32>, rounded: bool) -> View<'b> {
        let is_transposed = self.col_stride != 1;
        let rows = if is_transposed { self.transposed() } else { self };
        floats.clear();
        for i in 0..rows.n_rows {
            let at = i * rows.row_stride..i * rows.row_stride + rows.n_cols;
            match rows.elements {
                Elements::F32(x) if rounded => {
                    floats.extend(x[at].iter().map(|&x| bf16_to_f32(f32_to_bf16(x))))
                }
                Elements::F32(x) => floats.extend_from_slice(&x[at]),
                Elements::Bf16(x) => floats.extend(x[at].iter().map(|&x| bf16_to_f32(x))),
            }
        }
        let view = View::new(floats, rows.n_rows, rows.n_cols);
        if is_transposed { view.transposed() } else { view }
    }
}

/// Multiplies a part of a stage.
///
/// # Safety
/// The stage's panels are packed, and nobody else uses the part's outputs.
unsafe fn multiply_part(packer: &Packer, product: &Product, stage: &Stage, part: usize) {
    let n_col_parts = stage.cols.len().div_ceil(PART_COLS);
    let (row, col) = (part / n_col_parts * PART_ROWS, part % n_col_parts * PART_COLS);
    let n_steps = packer.kernels.n_steps(stage.depth.len());
    let first = stage.depth.start == 0;
    let (out_row, out_col) = (stage.rows.start + row, stage.cols.start + col);
    let block = Block {
        a: packer.a[stage.a].at(row * n_steps),
        b: packer.b[stage.b].at(col * n_steps),
        n_steps,
        b_steps: n_steps,
        b_cols: stage.cols.len() - col,
        n_rows: PART_ROWS.min(stage.rows.len() - row),
        n_cols: PART_COLS.min(stage.cols.len() - col),
        alpha: product.alpha,
        add: !first || product.update == Update::Add,
        bias: product.bias.filter(|_| first).map_or(std::ptr::null(), |bias| bias[out_col..].as_ptr()),
        out: product.out.at(out_row * product.out_stride + out_col),
        out_stride: product.out_stride,
    };
    // SAFETY: the caller's promise.
    unsafe { (packer.kernels.multiply)(&block) }
}
