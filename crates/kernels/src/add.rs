//! Sums and products of vectors and of columns, element by element, and sums over rows.

use crate::arch::vector::{Vector, at, per_isa};
use crate::{isa, rows};

/// x += y. Panics if the lengths differ.
#[track_caller]
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    let isa = isa::active();
    rows::for_each_block(x, 1, |first, x| add_block(isa, x, &y[first..first + x.len()]));
}

/// x = x · y. Panics if the lengths differ.
#[track_caller]
pub fn mul(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    let isa = isa::active();
    rows::for_each_block(x, 1, |first, x| mul_block(isa, x, &y[first..first + x.len()]));
}

/// x = value everywhere.
pub fn fill(x: &mut [f32], value: f32) {
    rows::for_each_block(x, 1, |_, x| x.fill(value));
}

/// x = factor · x.
pub fn scale(x: &mut [f32], factor: f32) {
    let isa = isa::active();
    rows::for_each_block(x, 1, |_, x| scale_block(isa, x, factor));
}

/// x += factor · y. Panics if the lengths differ.
#[track_caller]
pub fn add_scaled(x: &mut [f32], factor: f32, y: &[f32]) {
    assert_eq!(x.len(), y.len());
    let isa = isa::active();
    rows::for_each_block(x, 1, |first, x| add_scaled_block(isa, x, factor, &y[first..first + x.len()]));
}

/// Adds `row: [D]` to each row of `x: [T, D]`. Panics if the lengths do not fit.
#[track_caller]
pub fn add_row(x: &mut [f32], row: &[f32]) {
    let d = row.len();
    assert!(d > 0 && x.len().is_multiple_of(d), "x {}, row {d}", x.len());
    let isa = isa::active();
    rows::for_each_block(x, d, |_, x| x.chunks_exact_mut(d).for_each(|x| add_block(isa, x, row)));
}

/// x[:, start..start + n] += factor · y: adds `y: [T, n]` to columns of `x: [T, row_len]`.
///
/// Panics if the lengths do not fit.
#[track_caller]
pub fn add_columns(x: &mut [f32], row_len: usize, start: usize, y: &[f32], factor: f32) {
    assert!(row_len > 0 && x.len().is_multiple_of(row_len), "x {}, row_len {row_len}", x.len());
    let n_rows = x.len() / row_len;
    assert!(y.len().is_multiple_of(n_rows.max(1)), "y {}, {n_rows} rows", y.len());
    let n = y.len() / n_rows.max(1);
    assert!(start + n <= row_len, "columns {start}..{}, row_len {row_len}", start + n);
    let isa = isa::active();
    rows::for_each_block_of(n_rows, n, [x], |rows, [x]| {
        for (t, x) in rows.zip(x.chunks_exact_mut(row_len)) {
            add_scaled_block(isa, &mut x[start..start + n], factor, &y[t * n..(t + 1) * n]);
        }
    });
}

/// x[:, start..start + n] = x[:, start..start + n] · by: multiplies columns of `x: [T, row_len]` by
/// `by: [n]`.
///
/// Panics if the lengths do not fit.
#[track_caller]
pub fn scale_columns(x: &mut [f32], row_len: usize, start: usize, by: &[f32]) {
    assert!(row_len > 0 && x.len().is_multiple_of(row_len), "x {}, row_len {row_len}", x.len());
    let end = start + by.len();
    assert!(end <= row_len, "columns {start}..{end}, row_len {row_len}");
    let isa = isa::active();
    rows::for_each_block_of(x.len() / row_len, by.len(), [x], |_, [x]| {
        x.chunks_exact_mut(row_len).for_each(|x| mul_block(isa, &mut x[start..end], by));
    });
}

/// out += Σ x over the rows of `x: [T, N]`: the gradient of a bias. `out: [N]`. Panics if the lengths do not
/// fit.
#[track_caller]
pub fn column_sums(x: &[f32], out: &mut [f32]) {
    let n = out.len();
    assert!(n > 0 && x.len().is_multiple_of(n), "x {}, out {n}", x.len());
    let isa = isa::active();
    let sums = rows::sum_over_blocks(x.len() / n, n, [], n, |rows, [], sums| {
        column_sums_rows(isa, &x[rows.start * n..rows.end * n], sums)
    });
    add(out, &sums);
}

/// out += Σ x · y over the rows of `x` and `y`, both `[T, N]`: the gradient of a scale. `out: [N]`.
///
/// Panics if the lengths do not fit.
#[track_caller]
pub fn column_products(x: &[f32], y: &[f32], out: &mut [f32]) {
    let n = out.len();
    assert!(
        x.len() == y.len() && n > 0 && x.len().is_multiple_of(n),
        "x {}, y {}, out {n}",
        x.len(),
        y.len()
    );
    let isa = isa::active();
    let sums = rows::sum_over_blocks(x.len() / n, 2 * n, [], n, |rows, [], sums| {
        let range = rows.start * n..rows.end * n;
        column_products_rows(isa, &x[range.clone()], &y[range], sums)
    });
    add(out, &sums);
}

per_isa! { fn column_sums_rows(x: &[f32], sums: &mut [f32]) = column_sums_body }
per_isa! { fn column_products_rows(x: &[f32], y: &[f32], sums: &mut [f32]) = column_products_body }

/// Four rows at a time, so that sums are loaded and stored a quarter as often.
#[inline(always)]
fn column_sums_body<V: Vector>(x: &[f32], sums: &mut [f32]) {
    let n = sums.len();
    for rows in x.chunks(4 * n) {
        for i in (0..n).step_by(V::LANES) {
            let mut sum = V::load_slice(&sums[i..], 0.0);
            for row in rows.chunks_exact(n) {
                sum = sum.add(at(row, i));
            }
            sum.store_slice(&mut sums[i..]);
        }
    }
}

#[inline(always)]
fn column_products_body<V: Vector>(x: &[f32], y: &[f32], sums: &mut [f32]) {
    let n = sums.len();
    for (x, y) in x.chunks(4 * n).zip(y.chunks(4 * n)) {
        for i in (0..n).step_by(V::LANES) {
            let mut sum = V::load_slice(&sums[i..], 0.0);
            for (x, y) in x.chunks_exact(n).zip(y.chunks_exact(n)) {
                sum = at::<V>(x, i).mul_add(at(y, i), sum);
            }
            sum.store_slice(&mut sums[i..]);
        }
    }
}

per_isa! { fn add_block(x: &mut [f32], y: &[f32]) = add_body }
per_isa! { fn mul_block(x: &mut [f32], y: &[f32]) = mul_body }
per_isa! { fn scale_block(x: &mut [f32], factor: f32) = scale_body }
per_isa! { fn add_scaled_block(x: &mut [f32], factor: f32, y: &[f32]) = add_scaled_body }

#[inline(always)]
fn add_body<V: Vector>(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.chunks_mut(V::LANES).zip(y.chunks(V::LANES)) {
        V::load_slice(x, 0.0).add(V::load_slice(y, 0.0)).store_slice(x);
    }
}

#[inline(always)]
fn mul_body<V: Vector>(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.chunks_mut(V::LANES).zip(y.chunks(V::LANES)) {
        V::load_slice(x, 0.0).mul(V::load_slice(y, 0.0)).store_slice(x);
    }
}

#[inline(always)]
fn scale_body<V: Vector>(x: &mut [f32], factor: f32) {
    for x in x.chunks_mut(V::LANES) {
        V::load_slice(x, 0.0).mul(V::splat(factor)).store_slice(x);
    }
}

#[inline(always)]
fn add_scaled_body<V: Vector>(x: &mut [f32], factor: f32, y: &[f32]) {
    for (x, y) in x.chunks_mut(V::LANES).zip(y.chunks(V::LANES)) {
        V::load_slice(y, 0.0).mul_add(V::splat(factor), V::load_slice(x, 0.0)).store_slice(x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{assert_close, noise};

    fn map(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
        x.iter().zip(y).map(|(&x, &y)| f(x, y)).collect()
    }

    #[test]
    fn every_instruction_set_agrees_with_the_formulas_at_every_length() {
        for n in [0, 1, 7, 8, 9, 15, 16, 17, 100, 1000] {
            let (mut x, mut y) = (noise(n + 1, 1), noise(n + 1, 2));
            if n > 20 {
                (x[3], x[4], y[5]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
            }
            let (x, y) = (&x[1..], &y[1..]);
            for isa in Isa::available() {
                let check = |run: &dyn Fn(&mut [f32]), expected: Vec<f32>| {
                    let mut got = x.to_vec();
                    run(&mut got);
                    assert_close(&got, &expected, 3e-7);
                };
                check(&|x| add_block(isa, x, y), map(x, y, |x, y| x + y));
                check(&|x| mul_block(isa, x, y), map(x, y, |x, y| x * y));
                check(&|x| scale_block(isa, x, 0.3), map(x, y, |x, _| x * 0.3));
                check(&|x| add_scaled_block(isa, x, 0.3, y), map(x, y, |x, y| 0.3f32.mul_add(y, x)));
            }
        }
    }

    #[test]
    fn great_tensors_are_cut_over_threads_without_a_seam() {
        let (x, y) = (noise(100_001, 1), noise(100_001, 2));
        let mut got = x.clone();
        add(&mut got, &y);
        assert_eq!(got, map(&x, &y, |x, y| x + y));
        let mut got = x[..100_000].to_vec();
        add_row(&mut got, &y[..100]);
        assert_eq!(got, (0..100_000).map(|i| x[i] + y[i % 100]).collect::<Vec<f32>>());
        let mut got = x.clone();
        mul(&mut got, &y);
        scale(&mut got, 2.0);
        add_scaled(&mut got, 0.0, &y);
        assert_eq!(got, map(&x, &y, |x, y| x * y * 2.0));
    }

    #[test]
    fn columns_are_added_and_scaled_and_the_others_stay() {
        for (n_rows, row_len, start, n) in
            [(3, 10, 2, 5), (1, 7, 0, 7), (5, 9, 8, 1), (0, 4, 1, 2), (500, 100, 17, 60)]
        {
            let (x, y, by) = (noise(n_rows * row_len, 1), noise(n_rows * n, 2), noise(n, 3));
            let expected = |f: &dyn Fn(f32, usize, usize) -> f32| -> Vec<f32> {
                let element = |i: usize| match (i / row_len, i % row_len) {
                    (t, j) if (start..start + n).contains(&j) => f(x[i], t, j - start),
                    _ => x[i],
                };
                (0..x.len()).map(element).collect()
            };
            let mut got = x.clone();
            add_columns(&mut got, row_len, start, &y, 0.5);
            assert_close(&got, &expected(&|x, t, j| x + 0.5 * y[t * n + j]), 3e-7);
            let mut got = x.clone();
            scale_columns(&mut got, row_len, start, &by);
            assert_eq!(got, expected(&|x, _, j| x * by[j]));
        }
    }

    #[test]
    fn sums_over_rows_are_added_and_do_not_depend_on_threads() {
        for (n_rows, n) in [(0, 3), (1, 1), (7, 17), (3001, 33), (50, 4097)] {
            let (x, y) = (noise(n_rows * n, 1), noise(n_rows * n, 2));
            let sum = |j: usize, f: &dyn Fn(usize) -> f64| {
                (1.0 + (0..n_rows).map(|t| f(t * n + j)).sum::<f64>()) as f32
            };
            let expected: Vec<f32> = (0..n).map(|j| sum(j, &|i| f64::from(x[i]))).collect();
            let expected_products: Vec<f32> =
                (0..n).map(|j| sum(j, &|i| f64::from(x[i]) * f64::from(y[i]))).collect();
            let run = |n_threads| {
                crate::threads::set_threads(n_threads);
                let (mut sums, mut products) = (vec![1.0; n], vec![1.0; n]);
                column_sums(&x, &mut sums);
                column_products(&x, &y, &mut products);
                (sums, products)
            };
            let (sums, products) = run(1);
            // Partial sums reach a hundred, where f32 has steps of 8e-6.
            assert_close(&sums, &expected, 1e-4);
            assert_close(&products, &expected_products, 1e-4);
            assert!((sums, products) == run(2));
        }
    }
}
