//! The order of rows: adapter files keep Hugging Face's, a base has its own for some layers.

use std::sync::Arc;

use crate::row_order::{in_order, inverse, neighbours};

/// Hugging Face's row of each row of a base, where the two are in another order.
pub type RowOrder = Option<Arc<[usize]>>;

/// Rows, from the file's order to the base's.
pub(crate) fn to_base(order: &RowOrder, values: Vec<f32>) -> Vec<f32> {
    match order {
        Some(order) => in_order(&values, order),
        None => values,
    }
}

/// Rows, from the base's order to the file's.
pub(crate) fn to_file(order: &RowOrder, values: Vec<f32>) -> Vec<f32> {
    match order {
        Some(order) => in_order(&values, &inverse(order)),
        None => values,
    }
}

/// The order of `n_rows` rows of heads of `interleaved`, which a base pairs as neighbours.
pub(crate) fn of_heads(interleaved: Option<usize>, n_rows: usize) -> RowOrder {
    interleaved.map(|head_dim| neighbours(n_rows, head_dim).into())
}

/// `[n_rows, n_columns] → [n_columns, n_rows]`
pub(crate) fn transposed(values: &[f32], n_rows: usize, n_columns: usize) -> Vec<f32> {
    assert_eq!(values.len(), n_rows * n_columns, "a matrix of {n_rows} rows and {n_columns} columns");
    (0..n_columns).flat_map(|j| (0..n_rows).map(move |i| values[i * n_columns + j])).collect()
}
