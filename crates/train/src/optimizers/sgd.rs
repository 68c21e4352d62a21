//! Stochastic gradient descent.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_kernels::optimizer;
use rhetor_tensor::Parameter;

use super::{Memory, Moment, Rule, beta, decay, floats};

pub(super) const ABOUT: About = About {
    name: "sgd",
    summary: "gradient descent with momentum, as PyTorch has it",
    source: Source::Paper {
        title: "On the importance of initialization and momentum in deep learning",
        id: "ICML 2013",
        section: "section 2",
    },
    options: &[
        beta("momentum", "decay of the velocity", 0.0),
        Opt { name: "nesterov", summary: "1 = look ahead", default: 0.0, range: (0.0, 1.0) },
        decay(0.0),
    ],
};

struct Sgd {
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
}

pub(super) fn build(values: &Values) -> Box<dyn Rule> {
    Box::new(Sgd {
        momentum: values.get("momentum"),
        nesterov: values.is_on("nesterov"),
        weight_decay: values.get("weight-decay"),
    })
}

impl Rule for Sgd {
    fn memory(&self, parameter: &Parameter) -> Vec<Memory> {
        let n = if self.momentum == 0.0 { 0 } else { parameter.n_elements() };
        vec![Memory::zeros("velocity", n)]
    }

    fn update(&self, at: &Moment, _: &[usize], values: &mut [f32], gradient: &[f32], memory: &mut [Memory]) {
        let [velocity] = floats(memory);
        optimizer::Sgd {
            learning_rate: at.learning_rate,
            momentum: self.momentum,
            nesterov: self.nesterov,
            l2: if at.decays { self.weight_decay } else { 0.0 },
            gradient_factor: at.factor,
        }
        .update(values, gradient, velocity)
    }
}
