//! Selected rows.

use crate::{Tensor, tape};

/// Rows `indices` of `x`, in that order. x: [T, D] → [N, D]
#[track_caller]
pub fn rows(x: &Tensor, indices: &[usize]) -> Tensor {
    let out = Tensor::build([indices.len(), x.row_len()], |out| {
        for (&i, out) in indices.iter().zip(out.chunks_exact_mut(x.row_len())) {
            out.copy_from_slice(x.row(i));
        }
    });
    if !x.is_tracked() {
        return out;
    }
    let (to, shape, indices) = (x.tracked(), [x.n_rows(), x.row_len()], indices.to_vec());
    tape::push(out, move |dy, gradients| {
        let dx = Tensor::build(shape, |dx| {
            dx.fill(0.0);
            for (&i, dy) in indices.iter().zip(dy.data().chunks_exact(shape[1])) {
                let row = &mut dx[i * shape[1]..][..shape[1]];
                row.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy);
            }
        });
        gradients.add(&to, dx);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise};

    #[test]
    fn rows_come_in_the_order_asked_for() {
        let x = Tensor::from_vec((0..6).map(|i| i as f32).collect(), [3, 2]);
        assert_eq!(rows(&x, &[2, 0]).data(), &[4.0, 5.0, 0.0, 1.0]);
    }

    #[test]
    fn gradients_of_repeated_rows_add_up() {
        check(&[noise(&[4, 3], 1)], &[], |x| rows(&x[0], &[2, 0, 2]));
    }
}
