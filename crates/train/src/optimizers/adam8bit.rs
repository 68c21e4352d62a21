//! AdamW whose moments are kept in eight bits.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_kernels::optimizer::{self, AdamW, BLOCK_LEN, State8bit};
use rhetor_tensor::Parameter;

use super::{Memory, Moment, Numbers, Rule, beta, decay, floats};

pub(super) const ABOUT: About = About {
    name: "adam8bit",
    summary: "AdamW with a quarter of the memory: moments in blocks of eight-bit numbers",
    source: Source::Paper {
        title: "8-bit Optimizers via Block-wise Quantization",
        id: "arXiv:2110.02861",
        section: "section 2",
    },
    options: &[
        beta("beta1", "decay of the first moment", 0.9),
        beta("beta2", "decay of the second moment", 0.999),
        Opt { name: "eps", summary: "added to the root", default: 1e-8, range: (0.0, 1.0) },
        decay(0.01),
    ],
};

/// Smaller parameters keep their moments as they are.
const ELEMENTS_MIN: usize = 4096;

struct Adam8bit {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
}

pub(super) fn build(values: &Values) -> Box<dyn Rule> {
    Box::new(Adam8bit {
        beta1: values.get("beta1"),
        beta2: values.get("beta2"),
        eps: values.get("eps"),
        weight_decay: values.get("weight-decay"),
    })
}

impl Rule for Adam8bit {
    fn memory(&self, parameter: &Parameter) -> Vec<Memory> {
        let n = parameter.n_elements();
        if n < ELEMENTS_MIN {
            return vec![Memory::zeros("m", n), Memory::zeros("v", n)];
        }
        let codes = |name| Memory { name, numbers: Numbers::U8(vec![0; n]) };
        let scales = |name| Memory::zeros(name, n.div_ceil(BLOCK_LEN));
        vec![codes("m"), scales("m_scales"), codes("v"), scales("v_scales")]
    }

    fn update(&self, at: &Moment, _: &[usize], values: &mut [f32], gradient: &[f32], memory: &mut [Memory]) {
        let kernel = AdamW {
            learning_rate: at.learning_rate,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            weight_decay: if at.decays { self.weight_decay } else { 0.0 },
            step: at.step,
            gradient_factor: at.factor,
            ..AdamW::default()
        };
        if memory.len() == 2 {
            let [m, v] = floats(memory);
            return kernel.update(values, gradient, m, v);
        }
        let [m, v] = memory.as_chunks_mut::<2>().0 else { panic!("two moments of two parts") };
        let [m, v] = [m, v].map(|[codes, scales]| match (&mut codes.numbers, &mut scales.numbers) {
            (Numbers::U8(codes), Numbers::F32(scales)) => State8bit { codes, scales },
            _ => panic!("a moment is codes and scales"),
        });
        optimizer::Adam8bit(kernel).update(values, gradient, m, v);
    }
}
