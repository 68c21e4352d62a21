//! Muon: the momentum of a hidden matrix, orthogonalised.
//!
//! Newton and Schulz's iteration X ← aX + b(XXᵀ)X + c(XXᵀ)²X with (a, b, c) = (3.4445, −4.7750, 2.0315), five
//! times from X = M / ‖M‖, brings all singular values near 1. Steps are scaled by 0.2 √max(N, K), so that rates and decay
//! tuned for AdamW carry over. Vectors, embeddings and output layers are AdamW's.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_kernels::gemm::{Operand, Precision, Update, View, gemm};
use rhetor_kernels::optimizer::{self, AdamW};
use rhetor_kernels::{add, reduce};
use rhetor_tensor::Parameter;

use super::{Memory, Moment, Rule, beta, decay, floats};

pub(super) const ABOUT: About = About {
    name: "muon",
    summary: "orthogonalised momentum for hidden matrices, AdamW for the rest",
    source: Source::Paper {
        title: "Muon is Scalable for LLM Training",
        id: "arXiv:2502.16982",
        section: "section 2",
    },
    options: &[
        beta("momentum", "decay of the momentum", 0.95),
        Opt { name: "nesterov", summary: "1 = look ahead", default: 1.0, range: (0.0, 1.0) },
        beta("beta1", "AdamW's decay of the first moment", 0.9),
        beta("beta2", "AdamW's decay of the second moment", 0.95),
        decay(0.1),
    ],
};

struct Muon {
    momentum: f64,
    nesterov: bool,
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
}

pub(super) fn build(values: &Values) -> Box<dyn Rule> {
    Box::new(Muon {
        momentum: values.get("momentum"),
        nesterov: values.is_on("nesterov"),
        beta1: values.get("beta1"),
        beta2: values.get("beta2"),
        weight_decay: values.get("weight-decay"),
    })
}

/// Whether a parameter is a matrix between hidden states.
fn is_hidden(parameter: &Parameter) -> bool {
    let is_table = ["embed", "wte", "wpe", "lm_head", "score", "classifier"];
    parameter.shape().len() == 2 && !is_table.iter().any(|word| parameter.name().contains(word))
}

impl Rule for Muon {
    fn memory(&self, parameter: &Parameter) -> Vec<Memory> {
        let n = parameter.n_elements();
        let mut memory = vec![Memory::zeros("m", n)];
        if !is_hidden(parameter) {
            memory.push(Memory::zeros("v", n));
        }
        memory
    }

    fn update(
        &self,
        at: &Moment,
        shape: &[usize],
        values: &mut [f32],
        gradient: &[f32],
        memory: &mut [Memory],
    ) {
        let weight_decay = if at.decays { self.weight_decay } else { 0.0 };
        if memory.len() == 2 {
            let [m, v] = floats(memory);
            let (beta1, beta2) = (self.beta1, self.beta2);
            let kernel = AdamW {
                learning_rate: at.learning_rate,
                beta1,
                beta2,
                weight_decay,
                step: at.step,
                gradient_factor: at.factor,
                ..AdamW::default()
            };
            return kernel.update(values, gradient, m, v);
        }
        let [m] = floats(memory);
        let kernel = optimizer::Muon {
            learning_rate: at.learning_rate,
            momentum: self.momentum,
            nesterov: self.nesterov,
            weight_decay,
            gradient_factor: at.factor,
        };
        let mut direction = vec![0.0; m.len()];
        kernel.direction(gradient, m, &mut direction);
        let (n, k) = (shape[0], shape[1]);
        orthogonalize(&mut direction, n, k);
        kernel.update(values, &direction, 0.2 * (n.max(k) as f64).sqrt());
    }
}

/// Brings the singular values of x, [N, K], near 1.
fn orthogonalize(x: &mut [f32], n: usize, k: usize) {
    const STEPS: usize = 5;
    let norm = reduce::sum_of_squares(x).sqrt() as f32;
    add::scale(x, 1.0 / (norm + 1e-7));
    // XXᵀ of the short side.
    let is_tall = n > k;
    let side = n.min(k);
    let (mut square, mut fourth, mut next) =
        (vec![0.0; side * side], vec![0.0; side * side], vec![0.0; n * k]);
    let multiply = |a: View, b: View, out: &mut [f32]| {
        let stride = b.n_cols();
        gemm(Precision::F32, 1.0, a, Operand::View(b), Update::Set, None, out, stride)
    };
    for _ in 0..STEPS {
        let view = View::new(x, n, k);
        let (left, right) = if is_tall { (view.transposed(), view) } else { (view, view.transposed()) };
        multiply(left, right, &mut square);
        let s = View::new(&square, side, side);
        multiply(s, s, &mut fourth);
        // b XXᵀ + c (XXᵀ)²
        for (square, fourth) in square.iter_mut().zip(&fourth) {
            *square = -4.7750 * *square + 2.0315 * fourth;
        }
        let s = View::new(&square, side, side);
        if is_tall {
            multiply(view, s, &mut next)
        } else {
            multiply(s, view, &mut next)
        }
        add::scale(x, 3.4445);
        add::add(x, &next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_tensor::gradient_check::noise;

    #[test]
    fn rows_or_columns_become_nearly_orthonormal() {
        for (n, k) in [(6, 20), (20, 6)] {
            let mut x = noise(&[n, k], 3).data().to_vec();
            orthogonalize(&mut x, n, k);
            let side = n.min(k);
            for i in 0..side {
                let dot = |i: usize, j: usize| -> f32 {
                    let at = |i: usize, p: usize| if n <= k { x[i * k + p] } else { x[p * k + i] };
                    (0..n.max(k)).map(|p| at(i, p) * at(j, p)).sum()
                };
                assert!((0.4..1.5).contains(&dot(i, i)), "{}", dot(i, i));
                (0..i).for_each(|j| assert!(dot(i, j).abs() < 0.35, "{}", dot(i, j)));
            }
        }
    }
}
