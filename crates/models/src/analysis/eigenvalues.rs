//! Eigenvalues of a real matrix: Hessenberg form, then QR steps with double shifts.
//!
//! Source: Golub and Van Loan, Matrix Computations, 4th edition, algorithms 7.4.2 and 7.5.2. Enough for circuits of a head, whose
//! matrices are as wide as a head.

/// The eigenvalues of `a`, `[n, n]`, as (real part, imaginary part).
///
/// `None` if the steps do not converge, or if a number is not finite.
pub(super) fn eigenvalues(a: &[f32], n: usize) -> Option<Vec<(f64, f64)>> {
    assert_eq!(a.len(), n * n, "a square matrix");
    let mut h: Vec<f64> = a.iter().map(|&x| f64::from(x)).collect();
    if h.iter().any(|x| !x.is_finite()) {
        return None;
    }
    to_hessenberg(&mut h, n);
    let scale = h.iter().fold(0.0f64, |a, x| a.max(x.abs()));
    let mut found = Vec::with_capacity(n);
    let (mut end, mut steps) = (n, 0);
    while end > 0 {
        let last = end - 1;
        // The block that ends at `last` begins after the lowest entry below the diagonal that is nothing.
        let mut first = last;
        while first > 0 {
            let near = h[(first - 1) * n + first - 1].abs() + h[first * n + first].abs();
            let near = if near == 0.0 { scale } else { near };
            if h[first * n + first - 1].abs() <= f64::EPSILON * near {
                h[first * n + first - 1] = 0.0;
                break;
            }
            first -= 1;
        }
        match end - first {
            1 => {
                found.push((h[last * n + last], 0.0));
                (end, steps) = (end - 1, 0);
            }
            2 => {
                found.extend(of_two([
                    h[first * n + first],
                    h[first * n + last],
                    h[last * n + first],
                    h[last * n + last],
                ]));
                (end, steps) = (end - 2, 0);
            }
            _ => {
                steps += 1;
                if steps > 60 {
                    return None;
                }
                francis_step(&mut h, n, first, end, steps % 10 == 0);
            }
        }
    }
    Some(found)
}

/// The two eigenvalues of `[[a, b], [c, d]]`.
fn of_two([a, b, c, d]: [f64; 4]) -> [(f64, f64); 2] {
    let (half, det) = ((a + d) / 2.0, a * d - b * c);
    let square = half * half - det;
    if square < 0.0 {
        return [(half, (-square).sqrt()), (half, -(-square).sqrt())];
    }
    let far = half + square.sqrt().copysign(half);
    // The smaller one from the product, which keeps its digits.
    [(far, 0.0), (if far == 0.0 { 0.0 } else { det / far }, 0.0)]
}

/// Zeros below the first subdiagonal, by reflections.
fn to_hessenberg(h: &mut [f64], n: usize) {
    for k in 0..n.saturating_sub(2) {
        let column: Vec<f64> = (k + 1..n).map(|i| h[i * n + k]).collect();
        if let Some(v) = reflection(&column) {
            reflect(h, n, k + 1, &v, k..n, 0..n);
            (k + 2..n).for_each(|i| h[i * n + k] = 0.0);
        }
    }
}

/// One implicit step with both eigenvalues of the last 2 × 2 block as shifts, inside rows `first..end`.
fn francis_step(h: &mut [f64], n: usize, first: usize, end: usize, is_exceptional: bool) {
    let at = |h: &[f64], i: usize, j: usize| h[i * n + j];
    let (p, q) = (end - 2, end - 1);
    let (sum, product) = if is_exceptional {
        let shift = at(h, q, p).abs() + at(h, p, p - 1).abs();
        (1.5 * shift, shift * shift)
    } else {
        (at(h, p, p) + at(h, q, q), at(h, p, p) * at(h, q, q) - at(h, p, q) * at(h, q, p))
    };
    let (a, b) = (at(h, first, first), at(h, first, first + 1));
    let (c, d) = (at(h, first + 1, first), at(h, first + 1, first + 1));
    let mut column =
        vec![a * a + b * c - sum * a + product, c * (a + d - sum), c * at(h, first + 2, first + 1)];
    for k in first..end - 1 {
        if let Some(v) = reflection(&column) {
            let from = k.saturating_sub(1).max(first);
            reflect(h, n, k, &v, from..end, first..end.min(k + 4));
        }
        if k > first {
            (k + 1..end.min(k + 3)).for_each(|i| h[i * n + k - 1] = 0.0);
        }
        column = (k + 1..end.min(k + 4)).map(|i| at(h, i, k)).collect();
    }
}

/// The unit vector v for which (1 − 2 v vᵀ) x is a multiple of the first axis; `None` if it is one already.
fn reflection(x: &[f64]) -> Option<Vec<f64>> {
    if x[1..].iter().all(|&x| x == 0.0) {
        return None;
    }
    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut v = x.to_vec();
    v[0] += norm.copysign(x[0]);
    let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
    v.iter_mut().for_each(|x| *x /= norm);
    Some(v)
}

/// Applies 1 − 2 v vᵀ, of rows and columns from `at`, on the left to `columns` and on the right to `rows`.
fn reflect(
    h: &mut [f64],
    n: usize,
    at: usize,
    v: &[f64],
    columns: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
) {
    for j in columns {
        let sum: f64 = v.iter().enumerate().map(|(i, v)| v * h[(at + i) * n + j]).sum();
        v.iter().enumerate().for_each(|(i, v)| h[(at + i) * n + j] -= 2.0 * sum * v);
    }
    for i in rows {
        let row = &mut h[i * n + at..][..v.len()];
        let sum: f64 = v.iter().zip(row.iter()).map(|(v, x)| v * x).sum();
        v.iter().zip(row).for_each(|(v, x)| *x -= 2.0 * sum * v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Normal;

    #[track_caller]
    fn check(a: &[f32], n: usize, expected: &[(f64, f64)]) {
        let mut got = eigenvalues(a, n).unwrap();
        let mut expected = expected.to_vec();
        let by_parts = |a: &(f64, f64), b: &(f64, f64)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1));
        got.sort_by(by_parts);
        expected.sort_by(by_parts);
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(&expected) {
            let is_near = (got.0 - expected.0).abs() < 1e-5 && (got.1 - expected.1).abs() < 1e-5;
            assert!(is_near, "{got:?} for {expected:?}");
        }
    }

    #[test]
    fn eigenvalues_of_small_matrices_are_known() {
        check(&[3.0], 1, &[(3.0, 0.0)]);
        check(&[0.0, -1.0, 1.0, 0.0], 2, &[(0.0, 1.0), (0.0, -1.0)]);
        check(&[2.0, 1.0, 1.0, 2.0], 2, &[(1.0, 0.0), (3.0, 0.0)]);
        // A cyclic permutation has the roots of 1.
        let half = 3f64.sqrt() / 2.0;
        check(&[0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0], 3, &[(1.0, 0.0), (-0.5, half), (-0.5, -half)]);
        // The companion matrix of (x − 1)(x − 2)(x − 3)(x − 4).
        let companion =
            [10.0, -35.0, 50.0, -24.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        check(&companion, 4, &[(1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (4.0, 0.0)]);
        assert_eq!(eigenvalues(&[f32::NAN], 1), None);
    }

    #[test]
    fn sums_of_powers_of_eigenvalues_are_traces_of_powers() {
        for n in [5, 16, 40] {
            let mut normal = Normal::new(3, n as u64);
            let a: Vec<f32> = (0..n * n).map(|_| normal.next()).collect();
            let values = eigenvalues(&a, n).unwrap();
            assert_eq!(values.len(), n);
            let at = |i: usize, j: usize| f64::from(a[i * n + j]);
            let trace: f64 = (0..n).map(|i| at(i, i)).sum();
            let of_square: f64 = (0..n).flat_map(|i| (0..n).map(move |j| at(i, j) * at(j, i))).sum();
            let sum: f64 = values.iter().map(|(re, _)| re).sum();
            let squares: f64 = values.iter().map(|(re, im)| re * re - im * im).sum();
            assert!((sum - trace).abs() < 1e-6 * n as f64, "{n}: {sum} for {trace}");
            assert!((squares - of_square).abs() < 1e-5 * n as f64, "{n}: {squares} for {of_square}");
            assert!(values.iter().map(|(_, im)| im).sum::<f64>().abs() < 1e-9);
        }
    }
}
