//! Optimizers: how gradients change parameters. A method is one file: a [`Rule`] over one parameter, computed by a fused
//! kernel, and a line in [`OPTIMIZERS`].

mod adafactor;
mod adam;
mod adam8bit;
mod lion;
mod muon;
mod sgd;

use rhetor_catalog::{About, BadOption, Opt, Values};
use rhetor_tensor::Parameter;

/// A parameter as an optimizer meets it.
#[derive(Debug, Clone)]
pub struct Trained {
    /// Its values and gradient.
    pub parameter: Parameter,
    /// Factor of the learning rate (discriminative rates, arXiv:1801.06146, section 3.2).
    pub rate: f32,
    /// Whether weight decay applies.
    pub decays: bool,
}

/// How one parameter is changed.
pub trait Rule: Send {
    /// What is remembered of a parameter, zeros at first.
    fn memory(&self, parameter: &Parameter) -> Vec<Memory>;

    /// One update of `values` by `gradient`. `shape` is the parameter's.
    fn update(
        &self,
        at: &Moment,
        shape: &[usize],
        values: &mut [f32],
        gradient: &[f32],
        memory: &mut [Memory],
    );
}

/// When and how strongly an update happens.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The parameter's own learning rate now.
    pub learning_rate: f64,
    /// What clipping multiplies every gradient by.
    pub factor: f32,
    /// Whether weight decay applies.
    pub decays: bool,
    /// Number of the update, from 1.
    pub step: u64,
}

/// Numbers that a rule remembers of a parameter, under the name that a checkpoint gives them.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// `m`, `v` ...
    pub name: &'static str,
    /// The numbers.
    pub numbers: Numbers,
}

/// Numbers in memory and in a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Numbers {
    /// As they are.
    F32(Vec<f32>),
    /// In eight bits.
    U8(Vec<u8>),
}

impl Memory {
    /// `n` zeros.
    fn zeros(name: &'static str, n: usize) -> Memory {
        let mut numbers = vec![0.0; n];
        rhetor_kernels::huge_pages::advise(&mut numbers);
        Memory { name, numbers: Numbers::F32(numbers) }
    }
}

/// The numbers of each part of a parameter's memory, where all are `f32`.
#[track_caller]
fn floats<const N: usize>(memory: &mut [Memory]) -> [&mut [f32]; N] {
    let mut parts = memory.iter_mut().map(|part| match &mut part.numbers {
        Numbers::F32(numbers) => numbers.as_mut_slice(),
        Numbers::U8(_) => panic!("`{}` is kept in eight bits", part.name),
    });
    std::array::from_fn(|_| parts.next().expect("as many parts as the rule asked for"))
}

/// A rule at work on many parameters.
pub struct Optimizer {
    rule: Box<dyn Rule>,
    /// Of each parameter, in the order of `step`'s.
    memory: Vec<Vec<Memory>>,
    n_steps: u64,
}

impl Optimizer {
    /// An optimizer that remembers nothing yet of `trained`.
    pub fn new(rule: Box<dyn Rule>, trained: &[Trained]) -> Optimizer {
        let memory = trained.iter().map(|trained| rule.memory(&trained.parameter)).collect();
        Optimizer { rule, memory, n_steps: 0 }
    }

    /// One update of the parameters it was made for. Those that got no gradient stay as they are.
    pub fn step(&mut self, trained: &[Trained], learning_rate: f64, factor: f32) {
        assert_eq!(trained.len(), self.memory.len(), "the parameters that the optimizer was made for");
        self.n_steps += 1;
        for (Trained { parameter, rate, decays }, memory) in trained.iter().zip(&mut self.memory) {
            let gradient = parameter.gradient();
            if gradient.is_empty() || !parameter.is_trained() {
                continue;
            }
            let learning_rate = learning_rate * f64::from(*rate);
            let at = Moment { learning_rate, factor, decays: *decays, step: self.n_steps };
            self.rule.update(&at, parameter.shape(), &mut parameter.write(), &gradient, memory);
        }
    }

    /// Updates so far.
    pub fn n_steps(&self) -> u64 {
        self.n_steps
    }

    /// What it remembers of each parameter, in order.
    pub fn memory(&self) -> &[Vec<Memory>] {
        &self.memory
    }

    /// Goes on from what a checkpoint kept.
    pub fn restore(&mut self, n_steps: u64) -> &mut [Vec<Memory>] {
        self.n_steps = n_steps;
        &mut self.memory
    }

    /// Bytes that it remembers.
    pub fn n_bytes(&self) -> usize {
        let bytes = |memory: &Memory| match &memory.numbers {
            Numbers::F32(numbers) => 4 * numbers.len(),
            Numbers::U8(numbers) => numbers.len(),
        };
        self.memory.iter().flatten().map(bytes).sum()
    }
}

/// One line of the table.
pub struct Method {
    /// Name, source, options.
    pub about: &'static About,
    build: fn(&Values) -> Box<dyn Rule>,
}

/// Every optimizer.
pub const OPTIMIZERS: &[Method] = &[
    Method { about: &adam::ADAMW, build: adam::adamw },
    Method { about: &adam::ADAM, build: adam::adam },
    Method { about: &adam8bit::ABOUT, build: adam8bit::build },
    Method { about: &adafactor::ABOUT, build: adafactor::build },
    Method { about: &lion::ABOUT, build: lion::build },
    Method { about: &muon::ABOUT, build: muon::build },
    Method { about: &sgd::ABOUT, build: sgd::build },
];

impl Method {
    /// The optimizer of that name.
    pub fn find(name: &str) -> Option<&'static Method> {
        OPTIMIZERS.iter().find(|method| method.about.name == name)
    }

    /// The rule with these options.
    pub fn build<'a>(
        &self,
        given: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<Box<dyn Rule>, BadOption> {
        Ok((self.build)(&Values::of(self.about, given)?))
    }
}

const fn beta(name: &'static str, summary: &'static str, default: f64) -> Opt {
    Opt { name, summary, default, range: (0.0, 0.999_999_9) }
}

const fn decay(default: f64) -> Opt {
    Opt {
        name: "weight-decay",
        summary: "part of the values lost per unit of rate",
        default,
        range: (0.0, 10.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_tensor::gradient_check::{noise, parameter};

    /// Minimises Σ (x − goal)² and returns the distance left.
    fn distance_after(name: &str, rate: f64, n_steps: usize) -> f32 {
        let goal = noise(&[64, 80], 1);
        let x = parameter("x", &[64, 80], vec![0.0; 64 * 80]);
        let trained = [Trained { parameter: x.clone(), rate: 1.0, decays: true }];
        // Relative steps begin at nothing where the values do.
        let relative = (name == "adafactor").then_some(("scale-parameter", 0.0));
        let given = [("weight-decay", 0.0)].into_iter().chain(relative);
        let rule = Method::find(name).unwrap().build(given).unwrap();
        let mut optimizer = Optimizer::new(rule, &trained);
        for _ in 0..n_steps {
            x.clear_gradient();
            let values = x.read().clone();
            x.add_gradient(|gradient| {
                for ((g, x), goal) in gradient.iter_mut().zip(&values).zip(goal.data()) {
                    *g = x - goal;
                }
            });
            optimizer.step(&trained, rate, 1.0);
        }
        let values = x.read();
        let squares: f32 = values.iter().zip(goal.data()).map(|(x, goal)| (x - goal).powi(2)).sum();
        (squares / values.len() as f32).sqrt()
    }

    #[test]
    fn every_optimizer_finds_the_bottom_of_a_bowl() {
        for method in OPTIMIZERS {
            let rate = match method.about.name {
                "sgd" => 0.3,
                // Every singular value moves by the same length, and the greatest has the longest way.
                "muon" => 0.06,
                _ => 0.02,
            };
            let left = distance_after(method.about.name, rate, 120);
            assert!(left < 0.06, "{}: {left} of 0.577 is left", method.about.name);
        }
    }

    #[test]
    fn a_parameter_without_a_gradient_stays_as_it_is() {
        let x = parameter("x", &[4, 4], vec![1.0; 16]);
        let trained = [Trained { parameter: x.clone(), rate: 1.0, decays: true }];
        for method in OPTIMIZERS {
            Optimizer::new(method.build([]).unwrap(), &trained).step(&trained, 0.1, 1.0);
            assert_eq!(*x.read(), [1.0; 16], "{}", method.about.name);
        }
    }

    #[test]
    fn names_are_unique_and_unknown_options_are_refused() {
        for (i, method) in OPTIMIZERS.iter().enumerate() {
            assert!(OPTIMIZERS[..i].iter().all(|other| other.about.name != method.about.name));
            assert!(method.build([("colour", 1.0)]).is_err());
        }
    }
}
