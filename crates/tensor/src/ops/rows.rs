//! Selected rows.

use crate::Tensor;

/// Rows `indices` of `x`, in that order. x: [T, D] → [N, D]
#[track_caller]
pub fn rows(x: &Tensor, indices: &[usize]) -> Tensor {
    Tensor::build([indices.len(), x.row_len()], |out| {
        for (&i, out) in indices.iter().zip(out.chunks_exact_mut(x.row_len())) {
            out.copy_from_slice(x.row(i));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_the_order_asked_for() {
        let x = Tensor::from_vec((0..6).map(|i| i as f32).collect(), [3, 2]);
        assert_eq!(rows(&x, &[2, 0]).data(), &[4.0, 5.0, 0.0, 1.0]);
    }
}
