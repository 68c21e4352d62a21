//! Objectives: what is optimised. Each makes its own examples and says their loss; the loop is the same for all.

use rhetor_catalog::{About, Values};
use rhetor_generate::Rng;
use rhetor_models::Training;

use crate::example::Example;
use crate::policy::{Loss, Policy};

/// What is optimised.
pub trait Objective: Send + Sync {
    /// The example as it is trained on this time: objectives that mask or cut at random do it here, with a generator
    /// that depends on the seed, the epoch and the example alone.
    fn draw(&self, example: Example, _rng: &mut Rng) -> Example {
        example
    }

    /// How much an example counts: the losses of a step are divided by the sum of these over all its examples.
    fn weight(&self, example: &Example) -> f64 {
        example.sequences.iter().map(|sequence| sequence.n_targets() as f64).sum()
    }

    /// The loss of some examples of a step, times `scale`.
    fn loss(&self, policy: &Policy, examples: &[Example], scale: f32, training: Option<Training>) -> Loss;

    /// Whether it needs the reference's opinion, so that full tuning needs a second model.
    fn compares(&self) -> bool {
        false
    }
}

/// One line of the table.
pub struct Method {
    /// Name, source, options.
    pub about: About,
    /// Makes the objective with its options.
    pub build: fn(&Values) -> Box<dyn Objective>,
}
