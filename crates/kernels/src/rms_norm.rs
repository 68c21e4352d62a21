//! Root-mean-square normalisation.

use crate::arch::vector::{Vector, at, per_isa, sums};
use crate::{add, isa, rows};

/// y = x / sqrt(mean(x²) + eps) · weight, for each row.
///
/// `x: [T, D]`, `weight: [D]`, `out: [T, D]`. Source: arXiv:1910.07467, eq. 4, with the usual `eps`.
/// Panics if the lengths do not fit.
#[track_caller]
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let d = weight.len();
    assert!(
        x.len() == out.len() && d > 0 && x.len().is_multiple_of(d),
        "x {}, weight {d}, out {}",
        x.len(),
        out.len()
    );
    let isa = isa::active();
    rows::for_each_block(out, d, |first, out| {
        rms_norm_rows(isa, &x[first * d..first * d + out.len()], weight, eps, out)
    });
}

per_isa! { fn rms_norm_rows(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms_norm_body }

#[inline(always)]
fn rms_norm_body<V: Vector>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let d = weight.len();
    for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
        let mut sums = [V::splat(0.0); 4];
        for block in x.chunks(4 * V::LANES) {
            for (sum, lanes) in sums.iter_mut().zip(block.chunks(V::LANES)) {
                let x = V::load_slice(lanes, 0.0);
                *sum = x.mul_add(x, *sum);
            }
        }
        let sum = sums[0].add(sums[1]).add(sums[2].add(sums[3])).reduce_add();
        let scale = V::splat(1.0 / (sum / d as f32 + eps).sqrt());
        for ((x, w), y) in x.chunks(V::LANES).zip(weight.chunks(V::LANES)).zip(out.chunks_mut(V::LANES)) {
            V::load_slice(x, 0.0).mul(scale).mul(V::load_slice(w, 0.0)).store_slice(y);
        }
    }
}

/// The gradient of [`rms_norm`]: writes that of `x` to `dx` and adds that of `weight` to `d_weight`.
///
/// With r = 1 / sqrt(mean(x²) + eps) and g = weight · dy: dx = r (g − x r² mean(g x)), d_weight += Σ dy x r
/// over the rows.
/// `x`, `dy`, `dx`: `[T, D]`, `weight`, `d_weight`: `[D]`. Panics if the lengths do not fit.
#[track_caller]
pub fn backward(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    d_weight: Option<&mut [f32]>,
) {
    let d = weight.len();
    assert!(d > 0 && x.len().is_multiple_of(d), "x {}, weight {d}", x.len());
    assert!(x.len() == dy.len() && x.len() == dx.len(), "x {}, dy {}, dx {}", x.len(), dy.len(), dx.len());
    let isa = isa::active();
    let width = if d_weight.is_some() { d } else { 0 };
    let sum = rows::sum_over_blocks(x.len() / d, 2 * d, [dx], width, |rows, [dx], d_weight| {
        let range = rows.start * d..rows.end * d;
        backward_rows(isa, &x[range.clone()], weight, eps, &dy[range], dx, d_weight);
    });
    if let Some(d_weight) = d_weight {
        add::add(d_weight, &sum);
    }
}

per_isa! {
    fn backward_rows(
        x: &[f32], weight: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], d_weight: &mut [f32]
    ) = backward_body
}

#[inline(always)]
fn backward_body<V: Vector>(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    d_weight: &mut [f32],
) {
    let d = weight.len();
    for ((x, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
        let [squares, products] = sums!(V, 2, d, |i| {
            let x: V = at(x, i);
            [x.mul(x), x.mul(at(weight, i)).mul(at(dy, i))]
        });
        let r = 1.0 / (squares / d as f32 + eps).sqrt();
        let pull = V::splat(-(r * r) * (products / d as f32));
        let r = V::splat(r);
        for i in (0..d).step_by(V::LANES) {
            let (x, dy): (V, V) = (at(x, i), at(dy, i));
            let g = at::<V>(weight, i).mul(dy);
            x.mul_add(pull, g).mul(r).store_slice(&mut dx[i..]);
            if !d_weight.is_empty() {
                let d_weight = &mut d_weight[i..];
                dy.mul(x).mul_add(r, V::load_slice(d_weight, 0.0)).store_slice(d_weight);
            }
        }
    }
}

/// The formula, literally, in f64.
#[cfg(test)]
fn reference(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let d = weight.len();
    x.chunks(d)
        .flat_map(|x| {
            let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / d as f64;
            let scale = 1.0 / (mean + f64::from(eps)).sqrt();
            x.iter().zip(weight).map(move |(&x, &w)| (f64::from(x) * scale * f64::from(w)) as f32)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{assert_close, dot, gradient, noise, wide};

    #[test]
    fn every_instruction_set_agrees_with_the_formula_to_a_millionth() {
        for d in [1, 7, 8, 15, 16, 17, 64, 100, 576, 1000] {
            let x = noise(3 * d + 1, d as u64);
            let weight = noise(d, 1);
            let expected = reference(&x[1..], &weight, 1e-5);
            for isa in Isa::available() {
                let mut out = vec![0.0; 3 * d];
                rms_norm_rows(isa, &x[1..], &weight, 1e-5, &mut out);
                assert_close(&out, &expected, 1e-6);
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours_or_on_threads() {
        let (d, x) = (576, noise(576 * 100, 5));
        let weight = noise(d, 1);
        let (mut all, mut one) = (vec![0.0; x.len()], vec![0.0; d]);
        rms_norm(&x, &weight, 1e-5, &mut all);
        for i in [0, 50, 99] {
            rms_norm(&x[i * d..][..d], &weight, 1e-5, &mut one);
            assert_eq!(one, all[i * d..][..d]);
        }
    }

    #[test]
    fn a_row_of_zeros_stays_zero_and_a_nan_fills_its_row_only() {
        let mut x = vec![0.0; 40];
        x[25] = f32::NAN;
        let mut out = vec![1.0; 40];
        rms_norm(&x, &[1.0; 20], 1e-5, &mut out);
        assert!(out[..20].iter().all(|&y| y == 0.0) && out[20..].iter().all(|y| y.is_nan()));
    }

    /// The loss Σ dy · rms_norm(x), in f64.
    fn loss(x: &[f64], weight: &[f64], dy: &[f64]) -> f64 {
        let d = weight.len();
        let row = |(x, dy): (&[f64], &[f64])| {
            let scale = 1.0 / (dot(x, x) / d as f64 + 1e-5).sqrt();
            (0..d).map(|i| x[i] * scale * weight[i] * dy[i]).sum::<f64>()
        };
        x.chunks(d).zip(dy.chunks(d)).map(row).sum()
    }

    #[test]
    fn the_gradient_is_the_central_difference() {
        for d in [1, 2, 7, 8, 15, 16, 17, 33, 100] {
            let n_rows = 5;
            let (x, dy, weight) = (noise(n_rows * d + 1, 7), noise(n_rows * d, 8), noise(d, 9));
            let x = &x[1..];
            let (wide_x, wide_dy, wide_weight) = (wide(x), wide(&dy), wide(&weight));
            let expected_dx = gradient(x, |x| loss(x, &wide_weight, &wide_dy));
            let expected_dw = gradient(&weight, |weight| loss(&wide_x, weight, &wide_dy));
            for isa in Isa::available() {
                let (mut dx, mut d_weight) = (vec![9.0; n_rows * d], vec![0.0; d]);
                backward_rows(isa, x, &weight, 1e-5, &dy, &mut dx, &mut d_weight);
                // At d = 1 the gradient is a difference of equals, of the size of 1 / |x|.
                assert_close(&dx, &expected_dx, if d == 1 { 2e-4 } else { 1e-5 });
                assert_close(&d_weight, &expected_dw, 2e-6);
            }
        }
    }

    #[test]
    fn the_gradient_of_weights_is_added_and_does_not_depend_on_threads() {
        let (d, n_rows) = (65, 3000);
        let (x, dy, weight) = (noise(n_rows * d, 7), noise(n_rows * d, 8), noise(d, 9));
        let run = |n_threads| {
            crate::threads::set_threads(n_threads);
            let (mut dx, mut d_weight) = (vec![0.0; n_rows * d], vec![1.0; d]);
            backward(&x, &weight, 1e-5, &dy, &mut dx, Some(&mut d_weight));
            (dx, d_weight)
        };
        let (one, two) = (run(1), run(2));
        assert!(one == two);
        let mut dx = vec![0.0; n_rows * d];
        backward(&x, &weight, 1e-5, &dy, &mut dx, None);
        assert!(dx == one.0);
        let expected: Vec<f32> = (0..d)
            .map(|i| {
                let term = |t: usize| {
                    let row = wide(&x[t * d..][..d]);
                    f64::from(dy[t * d + i]) * row[i] / (dot(&row, &row) / d as f64 + 1e-5).sqrt()
                };
                (1.0 + (0..n_rows).map(term).sum::<f64>()) as f32
            })
            .collect();
        assert_close(&one.1, &expected, 3e-6 * 30.0);
    }
}
