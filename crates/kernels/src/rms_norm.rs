//! Root-mean-square normalisation.

use crate::arch::vector::{Vector, per_isa};
use crate::{isa, rows};

/// y = x / sqrt(mean(x²) + eps) · weight, for each row.
///
/// `x: [T, D]`, `weight: [D]`, `out: [T, D]`. Source: arXiv:1910.07467, eq. 4, with the usual `eps`.
/// Panics if the lengths do not fit.
#[track_caller]
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let d = weight.len();
    assert!(
        x.len() == out.len() && d > 0 && x.len() % d == 0,
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
    use crate::testing::{assert_close, noise};

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
}
