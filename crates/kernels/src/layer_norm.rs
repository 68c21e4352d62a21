//! Layer normalisation.

use crate::arch::vector::{Vector, at, per_isa, sums};
use crate::{add, isa, rows};

/// y = (x − mean(x)) / sqrt(var(x) + eps) · weight + bias, for each row, with the biased variance.
///
/// `x: [T, D]`, `weight: [D]`, `bias: [D]` or none, `out: [T, D]`. Source: arXiv:1607.06450, eq. 4.
/// Panics if the lengths do not fit.
#[track_caller]
pub fn layer_norm(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let d = weight.len();
    assert!(
        x.len() == out.len() && d > 0 && x.len().is_multiple_of(d),
        "x {}, weight {d}, out {}",
        x.len(),
        out.len()
    );
    assert!(bias.is_none_or(|bias| bias.len() == d), "weight {d}, bias {}", bias.map_or(0, <[f32]>::len));
    let isa = isa::active();
    rows::for_each_block(out, d, |first, out| {
        layer_norm_rows(isa, &x[first * d..first * d + out.len()], weight, bias, eps, out)
    });
}

per_isa! {
    fn layer_norm_rows(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut [f32]) = layer_norm_body
}

#[inline(always)]
fn layer_norm_body<V: Vector>(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let d = weight.len();
    for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
        let mean = sum::<V>(x, 0.0, |x| x) / d as f32;
        let center = V::splat(mean);
        // A lane past the end reads as the mean, and so adds nothing.
        let variance = sum::<V>(x, mean, |x| x.sub(center).mul(x.sub(center))) / d as f32;
        let scale = V::splat(1.0 / (variance + eps).sqrt());
        for i in (0..d).step_by(V::LANES) {
            let end = d.min(i + V::LANES);
            let y = V::load_slice(&x[i..end], 0.0).sub(center).mul(scale);
            let bias = bias.map_or(V::splat(0.0), |bias| V::load_slice(&bias[i..end], 0.0));
            y.mul_add(V::load_slice(&weight[i..end], 0.0), bias).store_slice(&mut out[i..end]);
        }
    }
}

/// The sum of f over the elements of `x`, the last vector filled up with `fill`.
#[inline(always)]
fn sum<V: Vector>(x: &[f32], fill: f32, f: impl Fn(V) -> V) -> f32 {
    let mut sums = [V::splat(0.0); 4];
    for block in x.chunks(4 * V::LANES) {
        for (sum, lanes) in sums.iter_mut().zip(block.chunks(V::LANES)) {
            *sum = sum.add(f(V::load_slice(lanes, fill)));
        }
    }
    sums[0].add(sums[1]).add(sums[2].add(sums[3])).reduce_add()
}

/// The gradient of [`layer_norm`]: writes that of `x` to `dx`, adds those of `weight` and `bias` to theirs.
///
/// With z = (x − mean(x)) r, r = 1 / sqrt(var(x) + eps) and g = weight · dy:
/// dx = r (g − mean(g) − z mean(g z)), d_weight += Σ dy z and d_bias += Σ dy over the rows. `x`, `dy`, `dx`: `[T, D]`, the others `[D]`.
/// Panics if the lengths do not fit.
#[track_caller]
pub fn backward(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    d_weight: Option<&mut [f32]>,
    d_bias: Option<&mut [f32]>,
) {
    let d = weight.len();
    assert!(d > 0 && x.len().is_multiple_of(d), "x {}, weight {d}", x.len());
    assert!(x.len() == dy.len() && x.len() == dx.len(), "x {}, dy {}, dx {}", x.len(), dy.len(), dx.len());
    let isa = isa::active();
    let width = if d_weight.is_some() || d_bias.is_some() { 2 * d } else { 0 };
    let sum = rows::sum_over_blocks(x.len() / d, 2 * d, [dx], width, |rows, [dx], sums| {
        let range = rows.start * d..rows.end * d;
        backward_rows(isa, &x[range.clone()], weight, eps, &dy[range], dx, sums);
    });
    if let Some(d_weight) = d_weight {
        add::add(d_weight, &sum[..d]);
    }
    if let Some(d_bias) = d_bias {
        add::add(d_bias, &sum[d..]);
    }
}

per_isa! {
    fn backward_rows(
        x: &[f32], weight: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], sums: &mut [f32]
    ) = backward_body
}

/// `sums`: nothing, or the gradients of weight and bias one behind the other.
#[inline(always)]
fn backward_body<V: Vector>(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    sums: &mut [f32],
) {
    let d = weight.len();
    let (d_weight, d_bias) = sums.split_at_mut(sums.len() / 2);
    for ((x, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
        let mean = sum::<V>(x, 0.0, |x| x) / d as f32;
        let center = V::splat(mean);
        let variance = sum::<V>(x, mean, |x| x.sub(center).mul(x.sub(center))) / d as f32;
        let [plain, products] = sums!(V, 2, d, |i| {
            let g = at::<V>(weight, i).mul(at(dy, i));
            [g, g.mul(at::<V>(x, i).sub(center))]
        });
        let r = 1.0 / (variance + eps).sqrt();
        let mean = V::splat(plain / d as f32);
        let pull = V::splat(-r * (products / d as f32));
        let r = V::splat(r);
        for i in (0..d).step_by(V::LANES) {
            let dy: V = at(dy, i);
            let z = at::<V>(x, i).sub(center).mul(r);
            let g = at::<V>(weight, i).mul(dy);
            z.mul_add(pull, g.sub(mean)).mul(r).store_slice(&mut dx[i..]);
            if !d_weight.is_empty() {
                let (d_weight, d_bias) = (&mut d_weight[i..], &mut d_bias[i..]);
                dy.mul_add(z, V::load_slice(d_weight, 0.0)).store_slice(d_weight);
                dy.add(V::load_slice(d_bias, 0.0)).store_slice(d_bias);
            }
        }
    }
}

/// The formula, literally, in f64.
#[cfg(test)]
fn reference(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32) -> Vec<f32> {
    let d = weight.len();
    let row = |x: &[f32]| -> Vec<f32> {
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / d as f64;
        let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / d as f64;
        let scale = 1.0 / (variance + f64::from(eps)).sqrt();
        let y = |i: usize| (f64::from(x[i]) - mean) * scale * f64::from(weight[i]);
        (0..d).map(|i| (y(i) + f64::from(bias.map_or(0.0, |bias| bias[i]))) as f32).collect()
    };
    x.chunks(d).flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{assert_close, dot, gradient, noise, wide};

    #[test]
    fn every_instruction_set_agrees_with_the_formula_to_four_millionths() {
        for d in [1, 7, 8, 15, 16, 17, 64, 100, 768, 1000] {
            let x: Vec<f32> = noise(3 * d + 1, d as u64).iter().map(|x| x + 3.0).collect();
            let (weight, bias) = (noise(d, 1), noise(d, 2));
            for bias in [None, Some(&bias[..])] {
                let expected = reference(&x[1..], &weight, bias, 1e-5);
                for isa in Isa::available() {
                    let mut out = vec![0.0; 3 * d];
                    layer_norm_rows(isa, &x[1..], &weight, bias, 1e-5, &mut out);
                    assert_close(&out, &expected, 4e-6);
                }
            }
        }
    }

    #[test]
    fn a_constant_row_gives_the_bias_and_a_nan_fills_its_row_only() {
        let mut x = vec![3.0; 40];
        x[25] = f32::NAN;
        let mut out = vec![1.0; 40];
        layer_norm(&x, &[1.0; 20], Some(&[0.5; 20]), 1e-5, &mut out);
        assert!(out[..20].iter().all(|&y| y == 0.5) && out[20..].iter().all(|y| y.is_nan()));
    }

    /// The loss Σ dy · layer_norm(x), in f64.
    fn loss(x: &[f64], weight: &[f64], bias: &[f64], dy: &[f64]) -> f64 {
        let d = weight.len();
        let row = |(x, dy): (&[f64], &[f64])| {
            let mean = x.iter().sum::<f64>() / d as f64;
            let variance = dot(x, x) / d as f64 - mean * mean;
            let scale = 1.0 / (variance + 1e-5).sqrt();
            (0..d).map(|i| ((x[i] - mean) * scale * weight[i] + bias[i]) * dy[i]).sum::<f64>()
        };
        x.chunks(d).zip(dy.chunks(d)).map(row).sum()
    }

    #[test]
    fn the_gradient_is_the_central_difference() {
        for d in [3, 7, 8, 15, 16, 17, 33, 100] {
            let n_rows = 5;
            let (x, dy) = (noise(n_rows * d + 1, 7), noise(n_rows * d, 8));
            let (x, weight, bias) = (&x[1..], noise(d, 9), noise(d, 10));
            let (wide_x, wide_dy, wide_weight, wide_bias) = (wide(x), wide(&dy), wide(&weight), wide(&bias));
            let expected_dx = gradient(x, |x| loss(x, &wide_weight, &wide_bias, &wide_dy));
            let expected_dw = gradient(&weight, |weight| loss(&wide_x, weight, &wide_bias, &wide_dy));
            let expected_db = gradient(&bias, |bias| loss(&wide_x, &wide_weight, bias, &wide_dy));
            for isa in Isa::available() {
                let (mut dx, mut sums) = (vec![9.0; n_rows * d], vec![0.0; 2 * d]);
                backward_rows(isa, x, &weight, 1e-5, &dy, &mut dx, &mut sums);
                assert_close(&dx, &expected_dx, 1e-5);
                assert_close(&sums[..d], &expected_dw, 2e-6);
                assert_close(&sums[d..], &expected_db, 2e-6);
            }
        }
    }

    #[test]
    fn gradients_of_parameters_are_added_and_do_not_depend_on_threads() {
        let (d, n_rows) = (65, 3000);
        let (x, dy, weight) = (noise(n_rows * d, 7), noise(n_rows * d, 8), noise(d, 9));
        let run = |n_threads| {
            crate::threads::set_threads(n_threads);
            let (mut dx, mut d_weight, mut d_bias) = (vec![0.0; n_rows * d], vec![1.0; d], vec![2.0; d]);
            backward(&x, &weight, 1e-5, &dy, &mut dx, Some(&mut d_weight), Some(&mut d_bias));
            (dx, d_weight, d_bias)
        };
        let (one, two) = (run(1), run(2));
        assert!(one == two);
        let expected: Vec<f32> = (0..d)
            .map(|i| (2.0 + dy.iter().skip(i).step_by(d).map(|&x| f64::from(x)).sum::<f64>()) as f32)
            .collect();
        assert_close(&one.2, &expected, 1e-5);
        let mut d_weight = vec![1.0; d];
        let mut dx = vec![0.0; n_rows * d];
        backward(&x, &weight, 1e-5, &dy, &mut dx, Some(&mut d_weight), None);
        assert!(dx == one.0 && d_weight == one.1);
    }
}
