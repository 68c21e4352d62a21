//! Rotary positions.

use rhetor_kernels::rope::{self, RopeTable};
use std::sync::Arc;

use crate::{Tensor, tape};

/// Rotates the first `n_heads` heads of `head_dim` elements of each row by the row's position, in place if nobody else
/// holds `x`. x: [T, ≥ n_heads·d], positions: [T] → the same shape
#[track_caller]
pub fn rope(
    x: Tensor,
    n_heads: usize,
    head_dim: usize,
    positions: &[usize],
    table: &Arc<RopeTable>,
) -> Tensor {
    assert_eq!(x.n_rows(), positions.len(), "rows against positions");
    assert!(n_heads * head_dim <= x.row_len(), "{n_heads} heads of {head_dim} in rows of {}", x.row_len());
    let from = x.tracked();
    let mut out = x.into_unique();
    let row_len = out.row_len();
    rope::rope(out.unique_data(), row_len, n_heads, head_dim, positions, table);
    if !from.is_wanted() {
        return out;
    }
    let (positions, table) = (positions.to_vec(), table.clone());
    tape::push(out, move |dy, gradients| {
        let mut dx = dy.into_unique();
        rope::backward(dx.unique_data(), row_len, n_heads, head_dim, &positions, &table);
        gradients.add(&from, dx);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise};
    use rhetor_kernels::rope::{RopeOptions, RopeOrder, RopeScaling};

    #[test]
    fn gradients_equal_central_differences() {
        for order in [RopeOrder::Half, RopeOrder::Interleaved] {
            let options =
                RopeOptions { theta: 100.0, rotary_dim: 4, order, context: 16, scaling: RopeScaling::None };
            let table = Arc::new(RopeTable::new(options));
            check(&[noise(&[3, 14], 1)], &[], |x| rope(x[0].clone(), 2, 6, &[0, 3, 9], &table));
        }
    }
}
