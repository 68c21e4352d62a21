//! Adafactor: the second moments of a matrix from those of its rows and columns.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_kernels::optimizer;
use rhetor_tensor::Parameter;

use super::{Memory, Moment, Rule, decay, floats};

pub(super) const ABOUT: About = About {
    name: "adafactor",
    summary: "remembers a number for each row and column only; T5's optimizer",
    source: Source::Paper { title: "Adafactor", id: "arXiv:1804.04235", section: "algorithms 4 and 5" },
    options: &[
        Opt {
            name: "scale-parameter",
            summary: "1 = rates are relative to the size of the parameter",
            default: 1.0,
            range: (0.0, 1.0),
        },
        Opt {
            name: "decay-rate",
            summary: "second moments decay by 1 − t^−rate",
            default: 0.8,
            range: (0.0, 1.0),
        },
        Opt { name: "eps1", summary: "added to squares", default: 1e-30, range: (0.0, 1.0) },
        Opt { name: "eps2", summary: "least size of a parameter", default: 1e-3, range: (0.0, 1.0) },
        Opt {
            name: "clip-threshold",
            summary: "greatest root mean square of an update",
            default: 1.0,
            range: (1e-6, 1e6),
        },
        decay(0.0),
    ],
};

struct Adafactor {
    scale_parameter: bool,
    decay_rate: f64,
    eps1: f64,
    eps2: f64,
    clip_threshold: f64,
    weight_decay: f64,
}

pub(super) fn build(values: &Values) -> Box<dyn Rule> {
    Box::new(Adafactor {
        scale_parameter: values.is_on("scale-parameter"),
        decay_rate: values.get("decay-rate"),
        eps1: values.get("eps1"),
        eps2: values.get("eps2"),
        clip_threshold: values.get("clip-threshold"),
        weight_decay: values.get("weight-decay"),
    })
}

impl Rule for Adafactor {
    fn memory(&self, parameter: &Parameter) -> Vec<Memory> {
        match parameter.shape() {
            &[n_rows, n_columns] => vec![Memory::zeros("rows", n_rows), Memory::zeros("columns", n_columns)],
            _ => vec![Memory::zeros("v", parameter.n_elements())],
        }
    }

    fn update(
        &self,
        at: &Moment,
        shape: &[usize],
        values: &mut [f32],
        gradient: &[f32],
        memory: &mut [Memory],
    ) {
        let kernel = optimizer::Adafactor {
            learning_rate: at.learning_rate,
            scale_parameter: self.scale_parameter,
            decay_rate: self.decay_rate,
            eps1: self.eps1,
            eps2: self.eps2,
            clip_threshold: self.clip_threshold,
            weight_decay: if at.decays { self.weight_decay } else { 0.0 },
            step: at.step,
            gradient_factor: at.factor,
        };
        if shape.len() == 2 {
            let [rows, columns] = floats(memory);
            kernel.update_matrix(values, gradient, rows, columns);
        } else {
            let [v] = floats(memory);
            kernel.update_vector(values, gradient, v);
        }
    }
}
