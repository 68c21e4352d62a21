//! Normalisation of each head of queries or keys.

use rhetor_kernels::{layer_norm, rms_norm};

use crate::{Tensor, Vector, tape};

/// What is done to the elements of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x²) + eps) · weight`
    Rms,
    /// `(x − mean) / sqrt(variance + eps) · weight`
    Layer,
}

/// Which columns hold the heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadColumns {
    /// The first column.
    pub start: usize,
    /// Heads, side by side.
    pub n_heads: usize,
    /// d: columns of a head.
    pub head_dim: usize,
}

impl HeadColumns {
    /// Columns that share a weight of `len` elements: all heads do, or each has its own. → first column and width
    fn groups(self, len: usize) -> impl Iterator<Item = (usize, usize)> {
        let width = self.n_heads * self.head_dim;
        let n = if len == self.head_dim { 1 } else { self.n_heads };
        (0..n).map(move |i| (self.start + i * (width / n), width / n))
    }
}

/// Norms each of some heads of each row by itself, in place if nobody else holds `x`. x: [T, C] → [T, C]
///
/// `weight` has `[d]` elements that all heads share, or `[heads · d]`. Source: arXiv:2302.05442, section 2.
#[track_caller]
pub fn head_norm(x: Tensor, heads: HeadColumns, norm: NormKind, weight: &Vector, eps: f32) -> Tensor {
    let HeadColumns { start, n_heads, head_dim } = heads;
    let (row_len, len) = (x.row_len(), weight.len());
    assert!(start + n_heads * head_dim <= row_len, "heads {heads:?} in rows of {row_len}");
    assert!(len == head_dim || len == n_heads * head_dim, "weight of {len} over heads {heads:?}");
    let from = x.tracked();
    let wanted = weight.wanted().cloned();
    let is_kept = from.is_wanted() || wanted.is_some();
    let mut out = x.into_unique();
    let mut before = Vec::new();
    weight.with(|weight| {
        for ((first, width), weight) in heads.groups(len).zip(weight.chunks_exact(head_dim)) {
            let inputs = gather(out.data(), row_len, first, width);
            let mut outputs = vec![0.0; inputs.len()];
            match norm {
                NormKind::Rms => rms_norm::rms_norm(&inputs, weight, eps, &mut outputs),
                NormKind::Layer => layer_norm::layer_norm(&inputs, weight, None, eps, &mut outputs),
            }
            scatter(&outputs, out.unique_data(), row_len, first, width);
            before.extend(is_kept.then_some(inputs));
        }
    });
    if !is_kept {
        return out;
    }
    let weight = weight.clone();
    tape::push(out, move |d, gradients| {
        let mut d = d.into_unique();
        let mut d_weight = vec![0.0; len];
        weight.with(|weight| {
            let weights = weight.chunks_exact(head_dim).zip(d_weight.chunks_exact_mut(head_dim));
            for (((first, width), x), (weight, d_weight)) in heads.groups(len).zip(&before).zip(weights) {
                let dy = gather(d.data(), row_len, first, width);
                let mut dx = vec![0.0; dy.len()];
                match norm {
                    NormKind::Rms => rms_norm::backward(x, weight, eps, &dy, &mut dx, Some(d_weight)),
                    NormKind::Layer => {
                        layer_norm::backward(x, weight, eps, &dy, &mut dx, Some(d_weight), None)
                    }
                }
                scatter(&dx, d.unique_data(), row_len, first, width);
            }
        });
        if let Some(parameter) = wanted {
            parameter.add_gradient(|gradient| gradient.iter_mut().zip(&d_weight).for_each(|(g, d)| *g += d));
        }
        gradients.add(&from, d);
    })
}

/// Columns `first..first + width` of every row, one row after another.
fn gather(x: &[f32], row_len: usize, first: usize, width: usize) -> Vec<f32> {
    x.chunks_exact(row_len).flat_map(|row| &row[first..first + width]).copied().collect()
}

/// The inverse of [`gather`].
fn scatter(columns: &[f32], x: &mut [f32], row_len: usize, first: usize, width: usize) {
    for (row, columns) in x.chunks_exact_mut(row_len).zip(columns.chunks_exact(width)) {
        row[first..first + width].copy_from_slice(columns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise, parameter};
    use crate::ops::norm::rms_norm;

    const HEADS: HeadColumns = HeadColumns { start: 3, n_heads: 2, head_dim: 4 };

    #[test]
    fn each_head_is_normed_as_a_row_and_the_rest_stays() {
        let x = noise(&[2, 12], 1);
        let weight = Vector::from(noise(&[4], 2));
        let y = head_norm(x.clone(), HEADS, NormKind::Rms, &weight, 1e-5);
        for t in 0..2 {
            for head in [3..7, 7..11] {
                let alone = Tensor::from_vec(x.row(t)[head.clone()].to_vec(), [1, 4]);
                assert_eq!(&y.row(t)[head], rms_norm(&alone, &weight, 1e-5).data());
            }
            assert_eq!((&y.row(t)[..3], y.row(t)[11]), (&x.row(t)[..3], x.row(t)[11]));
        }
    }

    #[test]
    fn gradients_equal_central_differences() {
        let x = noise(&[3, 12], 1);
        for norm in [NormKind::Rms, NormKind::Layer] {
            for len in [4, 8] {
                let weight = parameter("weight", &[len], noise(&[len], 2).data().to_vec());
                let vector = Vector::Trained(weight.clone());
                check(std::slice::from_ref(&x), &[weight], |x| {
                    head_norm(x[0].clone(), HEADS, norm, &vector, 1e-2)
                });
            }
        }
    }
}
