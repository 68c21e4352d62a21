//! Sums and products of vectors, element by element.

use crate::arch::vector::{Vector, per_isa};
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
}
