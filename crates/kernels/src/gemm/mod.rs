//! General products of matrices, for training: `C = alpha A B + bias`, or that added to C.
//!
//! The three products of a linear layer `Y = X Wᵀ`, `W: [N, K]` row by row: forward `B = W.transposed()`, the gradient
//! of the input `dX = dY W`, and that of the weight `dW += dYᵀ X` with `A = dY.transposed()`.

mod operand;

pub use operand::{Elements, Operand, Rows, View};

use crate::half::{bf16_to_f32, f32_to_bf16};
use crate::rows::Start;
use crate::threads;

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
/// `a: [M, K]`, `b: [K, N]`, `bias: [N]`; `out`: M rows that begin `out_stride` apart with `[N]` each; what lies behind
/// a row's N elements is left alone. With K = 0 the product is 0. Panics if the shapes or lengths do not fit.
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
    let (m, k, n) = check(&a, &b, bias, out, out_stride);
    let round = |x: f32| if precision == Precision::Bf16 { bf16_to_f32(f32_to_bf16(x)) } else { x };
    // B by columns: [N, K].
    let mut columns = vec![0.0; n * k];
    match b {
        Operand::View(b) => {
            for j in 0..n {
                (0..k).for_each(|p| columns[j * k + p] = b.at(p, j));
            }
        }
        Operand::Rows(rows) => {
            let mut row = vec![0.0; n];
            for p in 0..k {
                rows.read(p, &mut row);
                (0..n).for_each(|j| columns[j * k + p] = row[j]);
            }
        }
        Operand::RowsTransposed(rows) => {
            (0..n).for_each(|j| rows.read(j, &mut columns[j * k..(j + 1) * k]));
        }
    }
    columns.iter_mut().for_each(|x| *x = round(*x));
    let start = Start(out.as_mut_ptr());
    threads::run(m, |i| {
        let row: Vec<f32> = (0..k).map(|p| round(a.at(i, p))).collect();
        // SAFETY: each row of the output is written by one part.
        let out = unsafe { std::slice::from_raw_parts_mut(start.at(i * out_stride), n) };
        for (j, out) in out.iter_mut().enumerate() {
            let sum: f32 = row.iter().zip(&columns[j * k..(j + 1) * k]).map(|(x, y)| x * y).sum();
            let old = if update == Update::Add { *out } else { 0.0 };
            *out = old + (alpha * sum + bias.map_or(0.0, |bias| bias[j]));
        }
    });
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
