//! One step of a long short-term memory for a batch, and its gradient.
//!
//! The products with the weights are not here: gates come in as pre-activations, W x + U h + b, in PyTorch's
//! order of i, f, g, o. Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.

use crate::arch::math;
use crate::arch::vector::{Vector, at, per_isa};
use crate::{isa, rows};

/// c = σ(f) c_prev + σ(i) tanh(g), h = σ(o) tanh(c).
///
/// `gates: [B, 4H]`, pre-activations on entry and activated on return, as [`step_backward`] wants them;
/// `c_prev`, `c`, `h`: `[B, H]`. Panics if the lengths do not fit.
#[track_caller]
pub fn step(hidden_size: usize, gates: &mut [f32], c_prev: &[f32], c: &mut [f32], h: &mut [f32]) {
    let n_rows = check(hidden_size, gates.len(), [c_prev.len(), c.len(), h.len()]);
    let isa = isa::active();
    rows::for_each_block_of(n_rows, 8 * hidden_size, [gates, c, h], |rows, [gates, c, h]| {
        let c_prev = &c_prev[rows.start * hidden_size..rows.end * hidden_size];
        step_rows(isa, hidden_size, gates, c_prev, c, h);
    });
}

/// The gradient of [`step`].
///
/// `gates: [B, 4H]` activated, `c_prev`, `c` as of the step, `d_h: [B, H]` the gradient of h, `d_c: [B, H]`
/// that of c by later steps on entry and that of c_prev on return, `d_gates: [B, 4H]` the gradient of the
/// pre-activations, written. Panics if the lengths do not fit.
#[track_caller]
pub fn step_backward(
    hidden_size: usize,
    gates: &[f32],
    c_prev: &[f32],
    c: &[f32],
    d_h: &[f32],
    d_c: &mut [f32],
    d_gates: &mut [f32],
) {
    let n_rows = check(hidden_size, gates.len(), [c_prev.len(), c.len(), d_h.len()]);
    check(hidden_size, d_gates.len(), [d_c.len(); 3]);
    let isa = isa::active();
    rows::for_each_block_of(n_rows, 8 * hidden_size, [d_c, d_gates], |rows, [d_c, d_gates]| {
        let of = |len: usize| rows.start * len..rows.end * len;
        let states = [&c_prev[of(hidden_size)], &c[of(hidden_size)], &d_h[of(hidden_size)]];
        step_backward_rows(isa, hidden_size, &gates[of(4 * hidden_size)], states, d_c, d_gates);
    });
}

#[track_caller]
fn check(hidden_size: usize, gates: usize, states: [usize; 3]) -> usize {
    assert!(hidden_size > 0 && gates.is_multiple_of(4 * hidden_size), "gates {gates}, H {hidden_size}");
    assert_eq!(states, [gates / 4; 3], "states are [B, H], gates [B, 4H]");
    gates / 4 / hidden_size
}

per_isa! {
    fn step_rows(hidden_size: usize, gates: &mut [f32], c_prev: &[f32], c: &mut [f32], h: &mut [f32]) = step_body
}
per_isa! {
    fn step_backward_rows(
        hidden_size: usize, gates: &[f32], states: [&[f32]; 3], d_c: &mut [f32], d_gates: &mut [f32]
    ) = step_backward_body
}

#[inline(always)]
fn step_body<V: Vector>(hidden_size: usize, gates: &mut [f32], c_prev: &[f32], c: &mut [f32], h: &mut [f32]) {
    let states = c_prev.chunks_exact(hidden_size).zip(c.chunks_exact_mut(hidden_size));
    let rows = gates.chunks_exact_mut(4 * hidden_size).zip(states).zip(h.chunks_exact_mut(hidden_size));
    for ((gates, (c_prev, c)), h) in rows {
        let (input, gates) = gates.split_at_mut(hidden_size);
        let (forget, gates) = gates.split_at_mut(hidden_size);
        let (cell, output) = gates.split_at_mut(hidden_size);
        for k in (0..hidden_size).step_by(V::LANES) {
            let (i, f) = (math::sigmoid(at::<V>(input, k)), math::sigmoid(at::<V>(forget, k)));
            let (g, o) = (math::tanh(at::<V>(cell, k)), math::sigmoid(at::<V>(output, k)));
            let state = f.mul_add(at(c_prev, k), i.mul(g));
            o.mul(math::tanh(state)).store_slice(&mut h[k..]);
            state.store_slice(&mut c[k..]);
            i.store_slice(&mut input[k..]);
            f.store_slice(&mut forget[k..]);
            g.store_slice(&mut cell[k..]);
            o.store_slice(&mut output[k..]);
        }
    }
}

#[inline(always)]
fn step_backward_body<V: Vector>(
    hidden_size: usize,
    gates: &[f32],
    states: [&[f32]; 3],
    d_c: &mut [f32],
    d_gates: &mut [f32],
) {
    let one = V::splat(1.0);
    let rows = gates.chunks_exact(4 * hidden_size).zip(d_gates.chunks_exact_mut(4 * hidden_size));
    for (row, ((gates, d_gates), d_c)) in rows.zip(d_c.chunks_exact_mut(hidden_size)).enumerate() {
        let [c_prev, c, d_h] = states.map(|x| &x[row * hidden_size..][..hidden_size]);
        for k in (0..hidden_size).step_by(V::LANES) {
            let [i, f, g, o] = std::array::from_fn(|gate| at::<V>(&gates[gate * hidden_size..], k));
            let (d_h, squashed) = (at::<V>(d_h, k), math::tanh(at::<V>(c, k)));
            let d_state = d_h.mul(o).mul_add(one.sub(squashed.mul(squashed)), at(d_c, k));
            let slopes = [
                d_state.mul(g).mul(i.mul(one.sub(i))),
                d_state.mul(at(c_prev, k)).mul(f.mul(one.sub(f))),
                d_state.mul(i).mul(one.sub(g.mul(g))),
                d_h.mul(squashed).mul(o.mul(one.sub(o))),
            ];
            for (gate, slope) in slopes.into_iter().enumerate() {
                slope.store_slice(&mut d_gates[gate * hidden_size..][..hidden_size][k..]);
            }
            d_state.mul(f).store_slice(&mut d_c[k..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{assert_close, dot, gradient, noise, wide};

    /// c and h of a batch, in f64.
    fn reference(hidden_size: usize, gates: &[f64], c_prev: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let state = |k: usize| {
            let gate = |n: usize| gates[(4 * (k / hidden_size) + n) * hidden_size + k % hidden_size];
            let c = sigmoid(gate(1)) * c_prev[k] + sigmoid(gate(0)) * gate(2).tanh();
            (c, sigmoid(gate(3)) * c.tanh())
        };
        (0..c_prev.len()).map(state).unzip()
    }

    fn narrow(x: &[f64]) -> Vec<f32> {
        x.iter().map(|&x| x as f32).collect()
    }

    #[test]
    fn a_step_and_its_gradient_are_those_of_the_formula() {
        for (n_rows, hidden_size) in [(1, 1), (3, 7), (2, 16), (2, 17), (3, 40)] {
            let n = n_rows * hidden_size;
            let (gates, c_prev, d_h, d_c) = (noise(4 * n, 1), noise(n, 2), noise(n, 3), noise(n, 4));
            let (c_expected, h_expected) = reference(hidden_size, &wide(&gates), &wide(&c_prev));
            let loss = |gates: &[f64], c_prev: &[f64]| {
                let (c, h) = reference(hidden_size, gates, c_prev);
                dot(&c, &wide(&d_c)) + dot(&h, &wide(&d_h))
            };
            let expected_gates = gradient(&gates, |gates| loss(gates, &wide(&c_prev)));
            let expected_c = gradient(&c_prev, |c_prev| loss(&wide(&gates), c_prev));
            for isa in Isa::available() {
                let (mut active, mut c, mut h) = (gates.clone(), vec![9.0; n], vec![9.0; n]);
                step_rows(isa, hidden_size, &mut active, &c_prev, &mut c, &mut h);
                assert_close(&c, &narrow(&c_expected), 1e-6);
                assert_close(&h, &narrow(&h_expected), 1e-6);
                let (mut d_prev, mut d_gates) = (d_c.clone(), vec![9.0; 4 * n]);
                let states = [&c_prev[..], &c, &d_h];
                step_backward_rows(isa, hidden_size, &active, states, &mut d_prev, &mut d_gates);
                assert_close(&d_gates, &expected_gates, 2e-6);
                assert_close(&d_prev, &expected_c, 2e-6);
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_batch() {
        let (n_rows, hidden_size) = (100, 70);
        let n = n_rows * hidden_size;
        let (gates, c_prev, d_h, d_c) = (noise(4 * n, 1), noise(n, 2), noise(n, 3), noise(n, 4));
        let run = |rows: std::ops::Range<usize>| {
            let (states, wide) = (rows.start * hidden_size..rows.end * hidden_size, 4 * hidden_size);
            let mut active = gates[rows.start * wide..rows.end * wide].to_vec();
            let (mut c, mut h) = (vec![0.0; states.len()], vec![0.0; states.len()]);
            let c_prev = &c_prev[states.clone()];
            step(hidden_size, &mut active, c_prev, &mut c, &mut h);
            let (mut d_prev, mut d_gates) = (d_c[states.clone()].to_vec(), vec![0.0; active.len()]);
            step_backward(hidden_size, &active, c_prev, &c, &d_h[states], &mut d_prev, &mut d_gates);
            (h, d_prev, d_gates)
        };
        let (h, d_prev, d_gates) = run(0..n_rows);
        for t in [0, 57, 99] {
            let (one_h, one_prev, one_gates) = run(t..t + 1);
            assert!(one_h == h[t * hidden_size..][..hidden_size]);
            assert!(one_prev == d_prev[t * hidden_size..][..hidden_size]);
            assert!(one_gates == d_gates[t * 4 * hidden_size..][..4 * hidden_size]);
        }
    }
}
