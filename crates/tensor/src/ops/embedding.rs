//! Rows of a table by token id.

use crate::{Tensor, Weight};

/// Row `id` of the table for each id, dequantised. table: [V, D], ids: [T] → [T, D]. Panics if an id is no row.
#[track_caller]
pub fn embedding(table: &Weight, ids: &[u32]) -> Tensor {
    let (n_rows, row_len) = (table.n_out(), table.n_in());
    Tensor::build([ids.len(), row_len], |out| {
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(row_len)) {
            assert!((id as usize) < n_rows, "id {id} in a table of {n_rows} rows");
            table.packed().row(id as usize, out);
        }
    })
}
