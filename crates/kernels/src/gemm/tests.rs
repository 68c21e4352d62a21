use super::*;
use crate::half::{bf16_to_f32, f32_to_bf16};
use crate::testing::noise;

/// A product to be computed, in one of its forms.
struct Case {
    m: usize,
    k: usize,
    n: usize,
    a_transposed: bool,
    b_transposed: bool,
}

/// The formula in f64, and the sum of the products' sizes, to which errors are relative.
#[allow(clippy::too_many_arguments)]
pub(super) fn reference(
    precision: Precision,
    alpha: f32,
    a: View,
    b: View,
    update: Update,
    bias: Option<&[f32]>,
    out: &[f32],
    out_stride: usize,
) -> Vec<(f64, f64)> {
    let round =
        |x: f32| f64::from(if precision == Precision::Bf16 { bf16_to_f32(f32_to_bf16(x)) } else { x });
    let (m, k, n) = (a.n_rows(), a.n_cols(), b.n_cols());
    let element = |i: usize, j: usize| {
        let (mut sum, mut size) = (0.0, 0.0);
        for p in 0..k {
            let product = f64::from(alpha) * round(a.at(i, p)) * round(b.at(p, j));
            sum += product;
            size += product.abs();
        }
        let old = if update == Update::Add { f64::from(out[i * out_stride + j]) } else { 0.0 };
        let bias = bias.map_or(0.0, |bias| f64::from(bias[j]));
        (old + (sum + bias), size + old.abs() + bias.abs())
    };
    (0..m * n).map(|at| element(at / n, at % n)).collect()
}

/// Runs a case with every combination of precision, update, bias and alpha.
fn check_case(case: &Case) {
    let &Case { m, k, n, a_transposed, b_transposed } = case;
    let (a, b) = (noise(m * k, 1), noise(k * n, 2));
    let a = if a_transposed { View::new(&a, k, m).transposed() } else { View::new(&a, m, k) };
    let b = if b_transposed { View::new(&b, n, k).transposed() } else { View::new(&b, k, n) };
    let bias = noise(n, 3);
    let stride = n + 3;
    for (precision, update, bias, alpha) in [
        (Precision::F32, Update::Set, None, 1.0),
        (Precision::F32, Update::Add, Some(&bias[..]), -0.5),
        (Precision::Bf16, Update::Set, Some(&bias[..]), 2.0),
        (Precision::Bf16, Update::Add, None, 1.0),
    ] {
        let before = match update {
            Update::Set => vec![f32::NAN; m * stride],
            Update::Add => noise(m * stride, 4),
        };
        let mut out = before.clone();
        gemm(precision, alpha, a, b.into(), update, bias, &mut out, stride);
        let expected = reference(precision, alpha, a, b, update, bias, &before, stride);
        for (at, (value, size)) in expected.into_iter().enumerate() {
            let got = f64::from(out[at / n * stride + at % n]);
            let bound = 1e-6 * size.max(1e-30) * (1.0 + (k as f64).sqrt() / 8.0);
            assert!(
                (got - value).abs() <= bound,
                "[{m}, {k}] [{k}, {n}] {a_transposed} {b_transposed} {precision:?} {update:?} at {at}: {got} {value}"
            );
        }
        for (row, old) in out.chunks(stride).zip(before.chunks(stride)) {
            let bits = |x: &[f32]| x[n..].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(row), bits(old), "what is not the output's was written");
        }
    }
}

#[test]
fn every_orientation_and_size_agrees_with_the_formula() {
    for (m, k, n) in [(0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1), (5, 7, 3), (17, 33, 31), (49, 5, 97)] {
        for orientation in 0..4 {
            let (a_transposed, b_transposed) = (orientation & 1 == 1, orientation & 2 == 2);
            check_case(&Case { m, k, n, a_transposed, b_transposed });
        }
    }
}
