//! Adam, with decoupled weight decay (AdamW) and without.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_kernels::optimizer::AdamW;
use rhetor_tensor::Parameter;

use super::{Memory, Moment, Rule, beta, decay, floats};

const EPS: Opt = Opt { name: "eps", summary: "added to the root", default: 1e-8, range: (0.0, 1.0) };
const BIAS_CORRECTION: Opt = Opt {
    name: "bias-correction",
    summary: "1 = divide the moments by 1 − βᵗ; 0 = as BERT's own code",
    default: 1.0,
    range: (0.0, 1.0),
};

pub(super) const ADAMW: About = About {
    name: "adamw",
    summary: "Adam with decoupled weight decay, in PyTorch's order of operations",
    source: Source::Paper {
        title: "Decoupled Weight Decay Regularization",
        id: "arXiv:1711.05101",
        section: "algorithm 2",
    },
    options: &[
        beta("beta1", "decay of the first moment", 0.9),
        beta("beta2", "decay of the second moment", 0.999),
        EPS,
        decay(0.01),
        BIAS_CORRECTION,
    ],
};

pub(super) const ADAM: About = About {
    name: "adam",
    summary: "Adam with weight decay inside the gradient",
    source: Source::Paper { title: "Adam", id: "arXiv:1412.6980", section: "algorithm 1" },
    options: &[
        beta("beta1", "decay of the first moment", 0.9),
        beta("beta2", "decay of the second moment", 0.999),
        EPS,
        decay(0.0),
    ],
};

struct Adam {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    bias_correction: bool,
    /// Whether decay is apart from the gradient.
    is_decoupled: bool,
}

pub(super) fn adamw(values: &Values) -> Box<dyn Rule> {
    Box::new(Adam { bias_correction: values.is_on("bias-correction"), is_decoupled: true, ..common(values) })
}

pub(super) fn adam(values: &Values) -> Box<dyn Rule> {
    Box::new(common(values))
}

fn common(values: &Values) -> Adam {
    Adam {
        beta1: values.get("beta1"),
        beta2: values.get("beta2"),
        eps: values.get("eps"),
        weight_decay: values.get("weight-decay"),
        bias_correction: true,
        is_decoupled: false,
    }
}

impl Rule for Adam {
    fn memory(&self, parameter: &Parameter) -> Vec<Memory> {
        let n = parameter.n_elements();
        vec![Memory::zeros("m", n), Memory::zeros("v", n)]
    }

    fn update(&self, at: &Moment, _: &[usize], values: &mut [f32], gradient: &[f32], memory: &mut [Memory]) {
        let [m, v] = floats(memory);
        let decay = if at.decays { self.weight_decay } else { 0.0 };
        AdamW {
            learning_rate: at.learning_rate,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            weight_decay: if self.is_decoupled { decay } else { 0.0 },
            l2: if self.is_decoupled { 0.0 } else { decay },
            bias_correction: self.bias_correction,
            step: at.step,
            gradient_factor: at.factor,
        }
        .update(values, gradient, m, v)
    }
}
