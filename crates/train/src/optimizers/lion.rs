//! Lion: the sign of a momentum.

use rhetor_catalog::{About, Source, Values};
use rhetor_kernels::optimizer;
use rhetor_tensor::Parameter;

use super::{Memory, Moment, Rule, beta, decay, floats};

pub(super) const ABOUT: About = About {
    name: "lion",
    summary: "steps of one size along the sign of a momentum; wants a rate 3 to 10 times lower than Adam's",
    source: Source::Paper {
        title: "Symbolic Discovery of Optimization Algorithms",
        id: "arXiv:2302.06675",
        section: "algorithm 2",
    },
    options: &[
        beta("beta1", "weight of the momentum in a step", 0.9),
        beta("beta2", "decay of the momentum", 0.99),
        decay(0.0),
    ],
};

struct Lion {
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
}

pub(super) fn build(values: &Values) -> Box<dyn Rule> {
    Box::new(Lion {
        beta1: values.get("beta1"),
        beta2: values.get("beta2"),
        weight_decay: values.get("weight-decay"),
    })
}

impl Rule for Lion {
    fn memory(&self, parameter: &Parameter) -> Vec<Memory> {
        vec![Memory::zeros("m", parameter.n_elements())]
    }

    fn update(&self, at: &Moment, _: &[usize], values: &mut [f32], gradient: &[f32], memory: &mut [Memory]) {
        let [m] = floats(memory);
        optimizer::Lion {
            learning_rate: at.learning_rate,
            beta1: self.beta1,
            beta2: self.beta2,
            weight_decay: if at.decays { self.weight_decay } else { 0.0 },
            gradient_factor: at.factor,
        }
        .update(values, gradient, m)
    }
}
