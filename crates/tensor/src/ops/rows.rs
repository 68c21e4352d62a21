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

/// Columns `start..start + n` of some rows of `x` become rows of `by`, in place if nobody else holds `x`.
///
/// `rows` are pairs: a row of `x`, no row twice, and the row of `by` that it becomes. x: [T, C], by: [P, n] → [T, C]
#[track_caller]
pub fn replace(x: Tensor, start: usize, rows: &[(usize, usize)], by: &Tensor) -> Tensor {
    let (row_len, len) = (x.row_len(), by.row_len());
    assert!(start + len <= row_len, "columns {start}..{} of {:?}", start + len, x.shape());
    let (to_x, to_by) = (x.tracked(), by.tracked());
    let mut out = x.into_unique();
    let data = out.unique_data();
    for &(row, from) in rows {
        data[row * row_len + start..][..len].copy_from_slice(by.row(from));
    }
    if !(to_x.is_wanted() || to_by.is_wanted()) {
        return out;
    }
    let (rows, shape) = (rows.to_vec(), [by.n_rows(), len]);
    tape::push(out, move |d, gradients| {
        if to_by.is_wanted() {
            let d_by = Tensor::build(shape, |d_by| {
                d_by.fill(0.0);
                for &(row, from) in &rows {
                    let sum = &mut d_by[from * len..][..len];
                    sum.iter_mut().zip(&d.row(row)[start..]).for_each(|(sum, d)| *sum += d);
                }
            });
            gradients.add(&to_by, d_by);
        }
        if to_x.is_wanted() {
            let mut d = d.into_unique();
            let data = d.unique_data();
            rows.iter().for_each(|&(row, _)| data[row * row_len + start..][..len].fill(0.0));
            gradients.add(&to_x, d);
        }
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

    #[test]
    fn replaced_rows_send_their_gradients_to_what_replaced_them() {
        let (x, by) = (noise(&[5, 4], 1), noise(&[2, 3], 2));
        let rows = [(0, 0), (1, 1), (3, 0)];
        let out = replace(x.clone(), 1, &rows, &by);
        assert_eq!(out.row(3), [x.row(3)[0], by.row(0)[0], by.row(0)[1], by.row(0)[2]]);
        assert_eq!(out.row(2), x.row(2));
        check(&[x, by], &[], |x| replace(x[0].clone(), 1, &rows, &x[1]));
    }
}
