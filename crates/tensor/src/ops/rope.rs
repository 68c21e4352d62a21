//! Rotary positions.

use rhetor_kernels::rope::{self, RopeTable};

use crate::Tensor;

/// Rotates the first `n_heads` heads of `head_dim` elements of each row by the row's position, in place if nobody else
/// holds `x`. x: [T, ≥ n_heads·d], positions: [T] → the same shape
#[track_caller]
pub fn rope(x: Tensor, n_heads: usize, head_dim: usize, positions: &[usize], table: &RopeTable) -> Tensor {
    assert_eq!(x.n_rows(), positions.len(), "rows against positions");
    assert!(n_heads * head_dim <= x.row_len(), "{n_heads} heads of {head_dim} in rows of {}", x.row_len());
    let mut out = x.into_unique();
    let row_len = out.row_len();
    rope::rope(out.unique_data(), row_len, n_heads, head_dim, positions, table);
    out
}
