//! Changes to some columns of a result: what adapters do to linear layers.

use rhetor_kernels::add;

use crate::{Tensor, Vector, tape};

/// `y[:, start..start + n] += factor · x`, in place if nobody else holds `y`. y: [T, C], x: [T, n] → [T, C]
#[track_caller]
pub fn add_columns(y: Tensor, start: usize, x: &Tensor, factor: f32) -> Tensor {
    let (row_len, len) = (y.row_len(), x.row_len());
    assert!(start + len <= row_len, "columns {start}..{} of {:?}", start + len, y.shape());
    assert_eq!(y.n_rows(), x.n_rows(), "rows of a sum");
    let (to_y, to_x) = (y.tracked(), x.tracked());
    let mut out = y.into_unique();
    add::add_columns(out.unique_data(), row_len, start, x.data(), factor);
    if !(to_y.is_wanted() || to_x.is_wanted()) {
        return out;
    }
    tape::push(out, move |d, gradients| {
        if to_x.is_wanted() {
            let dx = Tensor::build([d.n_rows(), len], |dx| {
                for (dx, d) in dx.chunks_exact_mut(len).zip(d.data().chunks_exact(row_len)) {
                    dx.iter_mut().zip(&d[start..]).for_each(|(dx, d)| *dx = factor * d);
                }
            });
            gradients.add(&to_x, dx);
        }
        gradients.add(&to_y, d);
    })
}

/// `y[:, start..start + n] *= by · constant`, in place if nobody else holds `y`. y: [T, C], by, constant: [n] → [T, C]
///
/// `constant` gets no gradient; `None` is 1 everywhere.
#[track_caller]
pub fn scale_columns(y: Tensor, start: usize, by: &Vector, constant: Option<Vec<f32>>) -> Tensor {
    let (row_len, len) = (y.row_len(), by.len());
    assert!(start + len <= row_len, "columns {start}..{} of {:?}", start + len, y.shape());
    let mut factors = by.with(<[f32]>::to_vec);
    if let Some(constant) = &constant {
        add::mul(&mut factors, constant);
    }
    let from = y.tracked();
    let wanted = by.wanted().cloned();
    let before = wanted.is_some().then(|| y.detached());
    let mut out = y.into_unique();
    add::scale_columns(out.unique_data(), row_len, start, &factors);
    if !(from.is_wanted() || wanted.is_some()) {
        return out;
    }
    tape::push(out, move |d, gradients| {
        if let (Some(parameter), Some(before)) = (wanted, before) {
            let mut sums = vec![0.0; len];
            for i in 0..d.n_rows() {
                let pair = before.row(i)[start..].iter().zip(&d.row(i)[start..]);
                sums.iter_mut().zip(pair).for_each(|(sum, (y, d))| *sum += y * d);
            }
            if let Some(constant) = &constant {
                add::mul(&mut sums, constant);
            }
            parameter.add_gradient(|gradient| add::add(gradient, &sums));
        }
        if from.is_wanted() {
            let mut d = d.into_unique();
            add::scale_columns(d.unique_data(), row_len, start, &factors);
            gradients.add(&from, d);
        }
    })
}

/// `y[:, start..start + n] += factor · v` in every row, in place if nobody else holds `y`. y: [T, C], v: [n] → [T, C]
#[track_caller]
pub fn add_vector(y: Tensor, start: usize, v: &Vector, factor: f32) -> Tensor {
    let (row_len, len) = (y.row_len(), v.len());
    assert!(start + len <= row_len, "columns {start}..{} of {:?}", start + len, y.shape());
    let from = y.tracked();
    let wanted = v.wanted().cloned();
    let mut out = y.into_unique();
    v.with(|v| {
        for row in out.unique_data().chunks_exact_mut(row_len) {
            row[start..].iter_mut().zip(v).for_each(|(y, v)| *y += factor * v);
        }
    });
    if !(from.is_wanted() || wanted.is_some()) {
        return out;
    }
    tape::push(out, move |d, gradients| {
        if let Some(parameter) = wanted {
            let mut sums = vec![0.0; len];
            for d in d.data().chunks_exact(row_len) {
                sums.iter_mut().zip(&d[start..]).for_each(|(sum, d)| *sum += factor * d);
            }
            parameter.add_gradient(|gradient| add::add(gradient, &sums));
        }
        gradients.add(&from, d);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise, parameter};

    #[test]
    fn gradients_equal_central_differences() {
        let (y, x) = (noise(&[3, 7], 1), noise(&[3, 2], 2));
        check(&[y.clone(), x], &[], |x| add_columns(x[0].clone(), 4, &x[1], 0.5));
        let by = parameter("by", &[3], vec![0.5, -1.0, 2.0]);
        let vector = Vector::Trained(by.clone());
        check(std::slice::from_ref(&y), std::slice::from_ref(&by), |x| {
            scale_columns(x[0].clone(), 1, &vector, None)
        });
        let constant = vec![3.0, 0.5, 1.0];
        check(std::slice::from_ref(&y), std::slice::from_ref(&by), |x| {
            scale_columns(x[0].clone(), 4, &vector, Some(constant.clone()))
        });
        check(&[y], &[by], |x| add_vector(x[0].clone(), 2, &vector, -0.5));
    }
}
