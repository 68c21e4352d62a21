//! Layer normalisation.

use crate::arch::vector::{Vector, per_isa};
use crate::{isa, rows};

/// y = (x − mean(x)) / sqrt(var(x) + eps) · weight + bias, for each row, with the biased variance.
///
/// `x: [T, D]`, `weight: [D]`, `bias: [D]` or none, `out: [T, D]`. Source: arXiv:1607.06450, eq. 4.
/// Panics if the lengths do not fit.
#[track_caller]
pub fn layer_norm(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let d = weight.len();
    assert!(
        x.len() == out.len() && d > 0 && x.len() % d == 0,
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
    use crate::testing::{assert_close, noise};

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
}
