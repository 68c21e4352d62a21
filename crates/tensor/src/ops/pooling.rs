//! A sequence as one row.

use crate::{Tensor, tape};

/// The last row of each sequence, the greatest number of each column, and its mean, side by side. x: [ΣT, D] → [B, 3D]
///
/// Source: ULMFiT, arXiv:1801.06146, section 3.3, eq. 4. Panics if a sequence has no rows.
#[track_caller]
pub fn concat_pool(x: &Tensor, lengths: &[usize]) -> Tensor {
    assert_eq!(lengths.iter().sum::<usize>(), x.n_rows(), "lengths of the sequences against the rows");
    assert!(lengths.iter().all(|&len| len > 0), "a sequence without rows among {lengths:?}");
    let d = x.row_len();
    // Where each column of each sequence is greatest: the first such row.
    let mut greatest = vec![0; lengths.len() * d];
    let out = Tensor::build([lengths.len(), 3 * d], |out| {
        let mut first = 0;
        for ((out, greatest), &len) in
            out.chunks_exact_mut(3 * d).zip(greatest.chunks_exact_mut(d)).zip(lengths)
        {
            let (last, rest) = out.split_at_mut(d);
            let (max, mean) = rest.split_at_mut(d);
            last.copy_from_slice(x.row(first + len - 1));
            max.fill(f32::NEG_INFINITY);
            let mut sums = vec![0f64; d];
            for row in first..first + len {
                for (j, &value) in x.row(row).iter().enumerate() {
                    if value > max[j] {
                        (max[j], greatest[j]) = (value, row);
                    }
                    sums[j] += f64::from(value);
                }
            }
            mean.iter_mut().zip(sums).for_each(|(mean, sum)| *mean = (sum / len as f64) as f32);
            first += len;
        }
    });
    if !x.is_tracked() {
        return out;
    }
    let (to, n_rows, lengths) = (x.tracked(), x.n_rows(), lengths.to_vec());
    tape::push(out, move |dy, gradients| {
        let dx = Tensor::build([n_rows, d], |dx| {
            dx.fill(0.0);
            let mut first = 0;
            for (b, &len) in lengths.iter().enumerate() {
                let dy = dy.row(b);
                for j in 0..d {
                    for row in first..first + len {
                        dx[row * d + j] += dy[2 * d + j] / len as f32;
                    }
                    dx[(first + len - 1) * d + j] += dy[j];
                    dx[greatest[b * d + j] * d + j] += dy[d + j];
                }
                first += len;
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
    fn gradients_equal_central_differences() {
        check(&[noise(&[7, 4], 1)], &[], |x| concat_pool(&x[0], &[3, 1, 3]));
    }

    #[test]
    fn last_greatest_and_mean_stand_side_by_side() {
        let x = Tensor::from_vec(vec![1.0, 4.0, 3.0, 2.0, 2.0, 0.0], [3, 2]);
        assert_eq!(concat_pool(&x, &[3]).data(), [2.0, 0.0, 3.0, 4.0, 2.0, 2.0]);
    }
}
