//! General products of matrices, for training: `C = alpha A B + bias`, or that added to C.
//!
//! The three products of a linear layer `Y = X Wᵀ`, `W: [N, K]` row by row: forward `B = W.transposed()`, the
//! gradient of the input `dX = dY W`, and that of the weight `dW += dYᵀ X` with `A = dY.transposed()`.
//!
//! An element's sum is taken in an order that depends on K alone: the numbers of rows, columns and threads do
//! not change a bit of it. Between instruction sets results differ by rounding. Infinities and NaN reach what
//! they should; in [`Precision::Bf16`] the instructions for it take subnormal numbers for zeros.
//!
//! What it does not do: split K between threads; skip packing where a product has few rows.

mod blocked;
mod kernel;
mod operand;
pub(crate) mod tiles;

pub use operand::{Elements, Operand, Rows, View};

use crate::isa::{self, Isa};
use crate::rows::Start;
use crate::threads;
use blocked::{Product, Run, Workspace};
use std::cell::RefCell;

/// In what numbers a product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// Both factors rounded to bfloat16 (nearest, ties to even), products summed in f32.
    Bf16,
}

/// What happens to the numbers that are in the output before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// They are replaced; they need not be numbers.
    Set,
    /// The product is added to them.
    Add,
}

/// `out = alpha · a · b + bias` (with [`Update::Add`] plus what `out` was).
///
/// `a: [M, K]`, `b: [K, N]`, `bias: [N]`; `out`: M rows that begin `out_stride` apart with `[N]` each; what
/// lies behind a row's N elements is left alone. With K = 0 the product is 0. Panics if the shapes or lengths
/// do not fit.
#[track_caller]
#[allow(clippy::too_many_arguments)]
pub fn gemm(
    precision: Precision,
    alpha: f32,
    a: View,
    b: Operand,
    update: Update,
    bias: Option<&[f32]>,
    out: &mut [f32],
    out_stride: usize,
) {
    gemm_on(isa::active(), &threads_run, precision, alpha, a, b, update, bias, out, out_stride)
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = const { RefCell::new(Workspace::EMPTY) };
}

fn threads_run(n_parts: usize, part: &(dyn Fn(usize) + Sync)) {
    threads::run(n_parts, part)
}

fn serial_run(n_parts: usize, part: &(dyn Fn(usize) + Sync)) {
    (0..n_parts).for_each(part)
}

/// Products of two elements below which other threads are not asked to help; some microseconds.
const PARALLEL_LEN: usize = 1 << 19;

#[track_caller]
#[allow(clippy::too_many_arguments)]
fn gemm_on(
    isa: Isa,
    run: Run,
    precision: Precision,
    alpha: f32,
    a: View,
    b: Operand,
    update: Update,
    bias: Option<&[f32]>,
    out: &mut [f32],
    out_stride: usize,
) {
    let (m, k, n) = check(&a, &b, bias, out, out_stride);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        for row in out.chunks_mut(out_stride.max(n)).take(m) {
            for (j, out) in row[..n].iter_mut().enumerate() {
                let old = if update == Update::Add { *out } else { 0.0 };
                *out = old + bias.map_or(0.0, |bias| bias[j]);
            }
        }
        return;
    }
    let out = Start(out.as_mut_ptr());
    let product = Product { precision, alpha, a, b, update, bias, out, out_stride };
    let run = if m.saturating_mul(k).saturating_mul(n) < PARALLEL_LEN { &serial_run } else { run };
    WORKSPACE.with_borrow_mut(|workspace| blocked::multiply(isa, &product, workspace, run));
}

/// The sizes (M, K, N) of a product that fits together.
#[track_caller]
fn check(
    a: &View,
    b: &Operand,
    bias: Option<&[f32]>,
    out: &[f32],
    out_stride: usize,
) -> (usize, usize, usize) {
    let (m, k, n) = (a.n_rows, a.n_cols, b.n_cols());
    assert_eq!(k, b.n_rows(), "a product of [{m}, {k}] with [{}, {n}]", b.n_rows());
    assert!(bias.is_none_or(|bias| bias.len() == n), "{} biases of {n}", bias.map_or(0, <[f32]>::len));
    assert!(m <= 1 || out_stride >= n, "rows of {n} every {out_stride} outputs");
    let needed = if m == 0 || n == 0 { 0 } else { (m - 1) * out_stride + n };
    assert!(out.len() >= needed, "{} outputs for [{m}, {n}], {needed} needed", out.len());
    (m, k, n)
}

#[cfg(test)]
mod tests;
