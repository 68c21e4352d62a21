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
    assert!(d > 0 && x.len() % d == 0, "x {}, row {d}", x.len());
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
