//! Rotary position embedding: rotates pairs of dimensions of queries and keys by angles that grow with the
//! position.

mod table;

pub use table::{RopeOptions, RopeOrder, RopeScaling, RopeTable, Yarn};

use crate::arch::vector::{Vector, per_isa};
use crate::rows::Start;
use crate::{isa, threads};

/// Rotates the first `n_heads` heads of each row in place (RoPE).
///
/// `x: [T, stride]`, row t beginning with heads `[n_heads, head_dim]`, of which the first `rotary_dim`
/// dimensions turn and the others stay; what follows the heads in a row stays. `positions: [T]` in tokens
/// from 0. The last row may end with its heads. Queries and keys that lie side by side can be rotated by one
/// call. Source: RoFormer, arXiv:2104.09864, eq. 34. Panics if the lengths do not fit or a position is
/// outside the table.
#[track_caller]
pub fn rope(
    x: &mut [f32],
    stride: usize,
    n_heads: usize,
    head_dim: usize,
    positions: &[usize],
    table: &RopeTable,
) {
    rotate(x, stride, n_heads, head_dim, positions, table, 1.0);
}

/// The gradient of [`rope`], in place: the transposed rotation, by the negative angle and with the same
/// magnitude.
///
/// Arguments as for `rope`, `dy` taking the place of `x`.
#[track_caller]
pub fn backward(
    dy: &mut [f32],
    stride: usize,
    n_heads: usize,
    head_dim: usize,
    positions: &[usize],
    table: &RopeTable,
) {
    rotate(dy, stride, n_heads, head_dim, positions, table, -1.0);
}

/// The rotation with `sign` times its sines.
#[track_caller]
fn rotate(
    x: &mut [f32],
    stride: usize,
    n_heads: usize,
    head_dim: usize,
    positions: &[usize],
    table: &RopeTable,
    sign: f32,
) {
    let Some(last) = positions.len().checked_sub(1) else { return };
    let width = n_heads * head_dim;
    assert!(stride >= width && table.options().rotary_dim <= head_dim, "stride {stride}, heads {width}");
    assert!(x.len() >= last * stride + width, "x {}, {} rows of {stride}", x.len(), positions.len());
    let isa = isa::active();
    let turn = |x: &mut [f32], position| {
        let (cos, sin) = table.row(position);
        rotate_row(isa, x, head_dim, cos, sin, sign, table.options().order);
    };
    if positions.len() * width < 32 * 1024 {
        return positions.iter().enumerate().for_each(|(t, &p)| turn(&mut x[t * stride..][..width], p));
    }
    const ROWS: usize = 8;
    let start = Start(x.as_mut_ptr());
    threads::run(positions.len().div_ceil(ROWS), |part| {
        for (t, &position) in positions.iter().enumerate().skip(part * ROWS).take(ROWS) {
            // SAFETY: rows do not overlap, as stride >= width, and lie within `x`, as asserted.
            turn(unsafe { std::slice::from_raw_parts_mut(start.at(t * stride), width) }, position);
        }
    });
}

per_isa! {
    fn rotate_row(
        x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32], sign: f32, order: RopeOrder
    ) = rotate_row_body
}

#[inline(always)]
fn rotate_row_body<V: Vector>(
    x: &mut [f32],
    head_dim: usize,
    cos: &[f32],
    sin: &[f32],
    sign: f32,
    order: RopeOrder,
) {
    for head in x.chunks_exact_mut(head_dim) {
        match order {
            RopeOrder::Half => rotate_halves::<V>(&mut head[..2 * cos.len()], cos, sin, sign),
            RopeOrder::Interleaved => {
                for ((pair, &cos), &sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                    let sin = sign * sin;
                    (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
                }
            }
        }
    }
}

#[inline(always)]
fn rotate_halves<V: Vector>(head: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
    let n = cos.len();
    let (a, b) = head.split_at_mut(n);
    for (((a, b), cos), sin) in
        a.chunks_mut(V::LANES).zip(b.chunks_mut(V::LANES)).zip(cos.chunks(V::LANES)).zip(sin.chunks(V::LANES))
    {
        let (cos, sin) = (V::load_slice(cos, 0.0), V::load_slice(sin, 0.0).mul(V::splat(sign)));
        let (x, y) = (V::load_slice(a, 0.0), V::load_slice(b, 0.0));
        x.mul(cos).sub(y.mul(sin)).store_slice(a);
        y.mul(cos).add(x.mul(sin)).store_slice(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{assert_close, dot, noise, wide};

    fn table(rotary_dim: usize, order: RopeOrder, scaling: RopeScaling) -> RopeTable {
        RopeTable::new(RopeOptions { theta: 10_000.0, rotary_dim, order, context: 4096, scaling })
    }

    /// The rotation, pair by pair, as a product of complex numbers.
    fn reference(head: &mut [f32], position: usize, table: &RopeTable) {
        let r = table.options().rotary_dim;
        for (i, frequency) in table.inverse_frequencies().iter().enumerate() {
            let (a, b) = match table.options().order {
                RopeOrder::Half => (i, i + r / 2),
                RopeOrder::Interleaved => (2 * i, 2 * i + 1),
            };
            let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
            let (x, y) = (f64::from(head[a]), f64::from(head[b]));
            (head[a], head[b]) = ((x * cos - y * sin) as f32, (x * sin + y * cos) as f32);
        }
    }

    #[test]
    fn every_instruction_set_agrees_with_the_formula_to_a_millionth() {
        for order in [RopeOrder::Half, RopeOrder::Interleaved] {
            for (head_dim, rotary_dim) in [(64, 64), (80, 32), (100, 100), (8, 2), (26, 26), (128, 34)] {
                let table = table(rotary_dim, order, RopeScaling::None);
                for position in [0, 1, 63, 64, 4095] {
                    let x = noise(3 * head_dim + 1, 3);
                    let mut expected = x[1..].to_vec();
                    expected.chunks_mut(head_dim).for_each(|head| reference(head, position, &table));
                    for isa in Isa::available() {
                        let mut got = x.clone();
                        let (cos, sin) = table.row(position);
                        rotate_row(isa, &mut got[1..], head_dim, cos, sin, 1.0, order);
                        assert_close(&got[1..], &expected, 1e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn rows_keep_what_lies_behind_their_heads_and_do_not_depend_on_the_batch() {
        let table = table(16, RopeOrder::Half, RopeScaling::None);
        for n_rows in [1, 3, 200] {
            let (stride, width) = (300, 12 * 20);
            let x = noise(n_rows * stride, 8);
            let positions: Vec<usize> = (0..n_rows).map(|t| t * 17 % 1000).collect();
            let mut all = x.clone();
            rope(&mut all, stride, 12, 20, &positions, &table);
            for t in 0..n_rows {
                let mut one = x[t * stride..][..width].to_vec();
                rope(&mut one, stride, 12, 20, &positions[t..=t], &table);
                assert!(
                    all[t * stride..][..width] == one
                        && all[t * stride + width..][..60] == x[t * stride + width..][..60]
                );
            }
        }
    }

    #[test]
    fn a_product_of_query_and_key_depends_on_their_distance_alone() {
        let table = table(32, RopeOrder::Interleaved, RopeScaling::None);
        let (q, k) = (noise(32, 1), noise(32, 2));
        let product = |i: usize, j: usize| {
            let (mut q, mut k) = (q.clone(), k.clone());
            rope(&mut q, 32, 1, 32, &[i], &table);
            rope(&mut k, 32, 1, 32, &[j], &table);
            q.iter().zip(&k).map(|(q, k)| q * k).sum::<f32>()
        };
        assert!((product(1005, 1000) - product(5, 0)).abs() < 1e-3);
    }

    #[test]
    fn the_gradient_is_the_transposed_rotation_with_its_magnitude() {
        let scaled = RopeScaling::Yarn(Yarn {
            factor: 4.0,
            original_context: 64,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: Some(1.5),
            mscale: None,
            mscale_all_dim: None,
            truncate: true,
        });
        for (n_rows, n_heads, head_dim, rotary_dim) in [(3, 2, 10, 6), (200, 12, 20, 16)] {
            for order in [RopeOrder::Half, RopeOrder::Interleaved] {
                for scaling in [RopeScaling::None, scaled.clone()] {
                    let (table, stride) = (table(rotary_dim, order, scaling), n_heads * head_dim + 3);
                    let (x, dy) = (noise(n_rows * stride, 8), noise(n_rows * stride, 9));
                    let positions: Vec<usize> = (0..n_rows).map(|t| t * 17 % 1000).collect();
                    let (mut y, mut dx) = (x.clone(), dy.clone());
                    rope(&mut y, stride, n_heads, head_dim, &positions, &table);
                    backward(&mut dx, stride, n_heads, head_dim, &positions, &table);
                    // ⟨dy, R x⟩ = ⟨Rᵀ dy, x⟩, and Rᵀ R = magnitude² on what turns.
                    let (left, right) = (dot(&wide(&dy), &wide(&y)), dot(&wide(&dx), &wide(&x)));
                    assert!((left - right).abs() < 1e-4 * n_rows as f64, "{left} {right}");
                    backward(&mut y, stride, n_heads, head_dim, &positions, &table);
                    let square = table.magnitude() * table.magnitude();
                    let expected: Vec<f32> = (0..x.len())
                        .map(|i| {
                            let column = i % stride;
                            let turns = column < n_heads * head_dim && column % head_dim < rotary_dim;
                            if turns { x[i] * square } else { x[i] }
                        })
                        .collect();
                    assert_close(&y, &expected, 1e-6);
                }
            }
        }
    }
}
