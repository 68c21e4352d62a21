//! Matrices of linear layers: packed as they are stored, decoded when they are needed, or trained.

use rhetor_kernels::gemm::{Operand, Precision, Rows, View};
use rhetor_kernels::matmul::Packed;
use std::sync::Arc;

use crate::Parameter;

/// A matrix `[out, in]`; clones share it.
#[derive(Clone)]
pub enum Weight {
    /// Of any stored type, packed for the kernels. Gradients pass through it with products in this precision.
    Packed(Arc<Packed>, Precision),
    /// Decoded row by row inside the products, which are computed in this precision.
    Rows(Arc<dyn Rows + Send + Sync>, Precision),
    /// Changed by training.
    Trained(Parameter),
}

impl Weight {
    /// Extent of the input.
    pub fn n_in(&self) -> usize {
        match self {
            Weight::Packed(packed, _) => packed.n_cols(),
            Weight::Rows(rows, _) => rows.n_cols(),
            Weight::Trained(parameter) => parameter.shape()[1],
        }
    }

    /// Extent of the output.
    pub fn n_out(&self) -> usize {
        match self {
            Weight::Packed(packed, _) => packed.n_rows(),
            Weight::Rows(rows, _) => rows.n_rows(),
            Weight::Trained(parameter) => parameter.shape()[0],
        }
    }

    /// How products with it are computed, where a gradient passes or it trains.
    pub fn precision(&self) -> Precision {
        match self {
            Weight::Packed(_, precision) | Weight::Rows(_, precision) => *precision,
            Weight::Trained(parameter) => parameter.precision(),
        }
    }

    /// The packed elements, if it is packed.
    pub fn as_packed(&self) -> Option<&Packed> {
        match self {
            Weight::Packed(packed, _) => Some(packed),
            _ => None,
        }
    }

    /// Row `i`, in `f32`, to `out`: `[in]`.
    #[track_caller]
    pub fn row(&self, i: usize, out: &mut [f32]) {
        match self {
            Weight::Packed(packed, _) => packed.row(i, out),
            Weight::Rows(rows, _) => rows.read(i, out),
            Weight::Trained(parameter) => {
                let n_in = self.n_in();
                out.copy_from_slice(&parameter.read()[i * n_in..][..n_in]);
            }
        }
    }

    /// The parameter, if it wants a gradient now.
    pub(crate) fn wanted(&self) -> Option<&Parameter> {
        match self {
            Weight::Trained(parameter) if parameter.is_wanted() => Some(parameter),
            _ => None,
        }
    }

    /// Calls `f` with the matrix as the right operand of a product, `[out, in]` or turned to `[in, out]`.
    pub(crate) fn with_operand<R>(&self, turn: Turn, f: impl FnOnce(Precision, Operand) -> R) -> R {
        fn operand(rows: &dyn Rows, turn: Turn) -> Operand<'_> {
            match turn {
                Turn::None => Operand::Rows(rows),
                Turn::Transposed => Operand::RowsTransposed(rows),
            }
        }
        match self {
            Weight::Packed(packed, precision) => f(*precision, operand(&**packed, turn)),
            Weight::Rows(rows, precision) => f(*precision, operand(&**rows, turn)),
            Weight::Trained(parameter) => {
                let values = parameter.read();
                let view = View::new(&values, self.n_out(), self.n_in());
                let view = if turn == Turn::Transposed { view.transposed() } else { view };
                f(parameter.precision(), Operand::View(view))
            }
        }
    }
}

/// Whether a matrix stands as it is stored or transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    None,
    Transposed,
}

impl From<Packed> for Weight {
    fn from(packed: Packed) -> Weight {
        Weight::Packed(Arc::new(packed), Precision::F32)
    }
}
