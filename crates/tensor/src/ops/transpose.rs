//! Rows become columns.

use crate::{Tensor, tape};

/// x: [R, C] → [C, R]
pub fn transpose(x: &Tensor) -> Tensor {
    let (from, out) = (x.tracked(), turned(x));
    if !from.is_wanted() || !tape::is_recording() {
        return out;
    }
    tape::push(out, move |d, gradients| gradients.add(&from, turned(&d)))
}

fn turned(x: &Tensor) -> Tensor {
    let (n_rows, n_columns) = (x.n_rows(), x.row_len());
    Tensor::build([n_columns, n_rows], |out| {
        for row in 0..n_rows {
            x.row(row).iter().enumerate().for_each(|(column, &value)| out[column * n_rows + row] = value);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise};

    #[test]
    fn rows_become_columns() {
        let x = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]);
        let turned = transpose(&x);
        assert_eq!((turned.shape(), turned.data()), (&[3, 2][..], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0][..]));
    }

    #[test]
    fn gradients_equal_central_differences() {
        check(&[noise(&[3, 4], 1)], &[], |x| transpose(&x[0]));
    }
}
