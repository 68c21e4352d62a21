//! Rows of a table by token id.

use rhetor_kernels::embedding;

use crate::{Tensor, Weight, tape};

/// Row `id` of the table for each id, dequantised. table: [V, D], ids: [T] → [T, D]. Panics if an id is no row.
#[track_caller]
pub fn embedding(table: &Weight, ids: &[u32]) -> Tensor {
    let (n_rows, row_len) = (table.n_out(), table.n_in());
    let out = Tensor::build([ids.len(), row_len], |out| {
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(row_len)) {
            assert!((id as usize) < n_rows, "id {id} in a table of {n_rows} rows");
            table.row(id as usize, out);
        }
    });
    let Some(parameter) = table.wanted().cloned() else { return out };
    let ids = ids.to_vec();
    tape::push(out, move |dy, _| {
        parameter.add_gradient(|table| embedding::scatter_add(&ids, dy.data(), table));
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise, parameter};

    #[test]
    fn gradients_of_repeated_ids_add_up() {
        let table = parameter("table", &[5, 3], noise(&[5, 3], 1).data().to_vec());
        let weight = Weight::Trained(table.clone());
        check(&[], &[table], |_| embedding(&weight, &[4, 0, 4, 2]));
    }
}
