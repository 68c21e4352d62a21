//! Activation functions, alone and as the gate of a feed-forward layer.

use crate::arch::math;
use crate::arch::vector::{Vector, per_isa};
use crate::{isa, rows};

/// A function applied to each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// max(0, x).
    Relu,
    /// x · ½(1 + erf(x / √2)). Source: arXiv:1606.08415, section 2.
    Gelu,
    /// ½x(1 + tanh(√(2/π)(x + 0.044715x³))): `gelu_new`, `gelu_fast`, `gelu_pytorch_tanh`. Source: as `Gelu`.
    GeluTanh,
    /// x · σ(1.702x). Source: as `Gelu`.
    QuickGelu,
    /// x · σ(x), also called swish. Source: arXiv:1702.03118.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
}

/// Applies `activation` to every element of `x`.
pub fn apply(activation: Activation, x: &mut [f32]) {
    let isa = isa::active();
    rows::for_each_block(x, 1, |_, x| apply_block(isa, activation, x));
}

/// out = activation(gate) · up: the inner part of SwiGLU and GeGLU (arXiv:2002.05202, section 2).
///
/// `gate_up: [T, 2F]` holds gate and up side by side, `out: [T, F]`. Panics if the lengths do not fit.
#[track_caller]
pub fn gated(activation: Activation, gate_up: &[f32], ffn_size: usize, out: &mut [f32]) {
    assert_eq!(gate_up.len(), 2 * out.len(), "gate_up is [T, 2F], out [T, F]");
    assert!(ffn_size > 0 && out.len() % ffn_size == 0, "out {}, ffn_size {ffn_size}", out.len());
    let isa = isa::active();
    rows::for_each_block(out, ffn_size, |first, out| {
        let gate_up = &gate_up[2 * first * ffn_size..][..2 * out.len()];
        gated_rows(isa, activation, gate_up, ffn_size, out)
    });
}

per_isa! { fn apply_block(activation: Activation, x: &mut [f32]) = apply_body }
per_isa! { fn gated_rows(activation: Activation, gate_up: &[f32], ffn_size: usize, out: &mut [f32]) = gated_body }

#[inline(always)]
fn apply_body<V: Vector>(activation: Activation, x: &mut [f32]) {
    for x in x.chunks_mut(V::LANES) {
        activate(activation, V::load_slice(x, 0.0)).store_slice(x);
    }
}

#[inline(always)]
fn gated_body<V: Vector>(activation: Activation, gate_up: &[f32], ffn_size: usize, out: &mut [f32]) {
    for (gate_up, out) in gate_up.chunks_exact(2 * ffn_size).zip(out.chunks_exact_mut(ffn_size)) {
        let (gate, up) = gate_up.split_at(ffn_size);
        for ((gate, up), out) in gate.chunks(V::LANES).zip(up.chunks(V::LANES)).zip(out.chunks_mut(V::LANES))
        {
            activate(activation, V::load_slice(gate, 0.0)).mul(V::load_slice(up, 0.0)).store_slice(out);
        }
    }
}

#[inline(always)]
fn activate<V: Vector>(activation: Activation, x: V) -> V {
    match activation {
        Activation::Relu => V::splat(0.0).max(x),
        Activation::Gelu => {
            let erf = math::erf(x.mul(V::splat(std::f32::consts::FRAC_1_SQRT_2)));
            x.mul(V::splat(0.5)).mul(V::splat(1.0).add(erf))
        }
        // ½(1 + tanh u) = σ(2u).
        Activation::GeluTanh => {
            let cubic = x.mul(x).mul_add(V::splat(0.044_715), V::splat(1.0)).mul(x);
            x.mul(math::sigmoid(cubic.mul(V::splat(1.595_769_1))))
        }
        Activation::QuickGelu => x.mul(math::sigmoid(x.mul(V::splat(1.702)))),
        Activation::Silu => x.mul(math::sigmoid(x)),
        Activation::Tanh => math::tanh(x),
    }
}
