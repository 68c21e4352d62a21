//! The order of rows: adapter files keep Hugging Face's, a GGUF base has its own for queries and keys.

use super::Site;
use crate::convert::{Turn, source_row};

/// Rows of `row_len` elements, from the file's order to the base's.
pub(crate) fn to_base(site: &Site, values: Vec<f32>, row_len: usize) -> Vec<f32> {
    turned(site.interleaved, values, row_len, |head_dim| Turn::ToNeighbours { head_dim })
}

/// Rows of `row_len` elements of heads of `head_dim`, from halves to neighbours.
pub(crate) fn to_neighbours(head_dim: usize, values: Vec<f32>, row_len: usize) -> Vec<f32> {
    turned(Some(head_dim), values, row_len, |head_dim| Turn::ToNeighbours { head_dim })
}

/// Rows of `row_len` elements, from the base's order to the file's. `interleaved` is the site's.
pub(crate) fn to_file(interleaved: Option<usize>, values: Vec<f32>, row_len: usize) -> Vec<f32> {
    turned(interleaved, values, row_len, |head_dim| Turn::ToHalves { head_dim })
}

fn turned(
    interleaved: Option<usize>,
    values: Vec<f32>,
    row_len: usize,
    turn: impl Fn(usize) -> Turn,
) -> Vec<f32> {
    let Some(head_dim) = interleaved else { return values };
    let n_rows = values.len() / row_len.max(1);
    let rows = (0..n_rows).map(|i| source_row(turn(head_dim), i));
    rows.flat_map(|row| values[row * row_len..][..row_len].iter().copied()).collect()
}

/// `[n_rows, n_columns] → [n_columns, n_rows]`
pub(crate) fn transposed(values: &[f32], n_rows: usize, n_columns: usize) -> Vec<f32> {
    assert_eq!(values.len(), n_rows * n_columns, "a matrix of {n_rows} rows and {n_columns} columns");
    (0..n_columns).flat_map(|j| (0..n_rows).map(move |i| values[i * n_columns + j])).collect()
}
