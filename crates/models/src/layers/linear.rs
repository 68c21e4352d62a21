//! A linear layer, or several that share their input.

use rhetor_kernels::activation::Activation;
use rhetor_tensor::{Tensor, Vector, Weight, ops};

use super::{Active, Pass};
use crate::adapters::LinearHook;

/// `y = x Wᵀ + b`; several weights that share `x` put their outputs side by side.
pub struct Linear {
    /// Each `[out, in]`, of any stored type; none at all: y = x.
    pub weights: Vec<Weight>,
    /// None, one over all outputs `[Σ out]`, or one for each weight.
    pub bias: Vec<Vector>,
    /// What adapters do here, in the order in which they were attached.
    pub hooks: Vec<Attached>,
    /// Outputs become c · tanh(y / c). Source: arXiv:2408.00118, section 2.
    pub soft_cap: Option<f32>,
}

/// What one adapter does to one of the weights of a [`Linear`].
pub struct Attached {
    /// Number of the adapter.
    pub adapter: usize,
    /// The first of the weight's output columns.
    pub start: usize,
    /// What it does.
    pub hook: Box<dyn LinearHook>,
}

impl Linear {
    /// A layer of one weight without a bias.
    pub fn of(weight: Weight) -> Linear {
        Linear { weights: vec![weight], bias: Vec::new(), hooks: Vec::new(), soft_cap: None }
    }

    /// The layer that changes nothing: what a model without a head ends with.
    pub fn identity() -> Linear {
        Linear { weights: Vec::new(), bias: Vec::new(), hooks: Vec::new(), soft_cap: None }
    }

    /// Whether it is one weight and nothing else: no bias, no cap, no adapter that is on.
    pub fn is_plain(&self, adapters: &Active) -> bool {
        let is_adapted = self.hooks.iter().any(|attached| adapters.has(attached.adapter));
        self.weights.len() == 1 && self.bias.is_empty() && self.soft_cap.is_none() && !is_adapted
    }

    /// x: [T, in] → [T, Σ out]
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        if self.weights.is_empty() {
            return x.clone();
        }
        let y = self.product(x, pass);
        let Some(cap) = self.soft_cap else { return y };
        let y = ops::activation::activation(ops::add::scale(y, 1.0 / cap), Activation::Tanh);
        ops::add::scale(y, cap)
    }

    /// As [`forward`](Linear::forward), before the cap.
    fn product(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let hooks = || self.hooks.iter().filter(|attached| pass.adapters.has(attached.adapter));
        if hooks().next().is_none() {
            return ops::linear::linear(x, &self.weights, &self.bias);
        }
        if self.weights.len() > 1 && hooks().any(|attached| attached.hook.changes_input()) {
            return self.apart(x, pass);
        }
        let x = hooks().fold(x.clone(), |x, attached| attached.hook.input(x));
        let y = ops::linear::linear(&x, &self.weights, &self.bias);
        hooks().fold(y, |y, attached| attached.hook.output(&x, y, attached.start, pass))
    }

    /// As [`product`](Linear::product), where a hook changes the input of one of several weights.
    fn apart(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let n_out = self.weights.iter().map(Weight::n_out).sum();
        let mut all = Tensor::build([x.n_rows(), n_out], |all| all.fill(0.0));
        let mut start = 0;
        for (i, weight) in self.weights.iter().enumerate() {
            let hooks = || {
                let of_weight = self.hooks.iter().filter(|attached| attached.start == start);
                of_weight.filter(|attached| pass.adapters.has(attached.adapter))
            };
            let x = hooks().fold(x.clone(), |x, attached| attached.hook.input(x));
            let bias = if self.bias.len() == self.weights.len() { &self.bias[i..=i] } else { &[] };
            let y = ops::linear::linear(&x, &self.weights[i..=i], bias);
            let y = hooks().fold(y, |y, attached| attached.hook.output(&x, y, 0, pass));
            all = ops::columns::add_columns(all, start, &y, 1.0);
            start += weight.n_out();
        }
        match self.bias.as_slice() {
            [bias] if self.weights.len() > 1 => ops::columns::add_vector(all, 0, bias, 1.0),
            _ => all,
        }
    }
}
