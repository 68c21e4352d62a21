//! How the next token is chosen: a table of steps, in the order applied.
//!
//! Tokens that a constraint forbids ([`Mask`]) are gone before the first step: every step sees only what may be chosen.
//! Steps of [`Stage::Edit`] change single logits (bias, penalties). With temperature 0 the most likely token is then
//! taken. Otherwise the steps of [`Stage::Shape`] narrow and reshape the distribution and one token is drawn.
//!
//! The order is that of llama.cpp: bias, penalties, DRY, top-k, typical, top-p, min-p, XTC, temperature. Truncation
//! therefore looks at the model's own distribution; OpenAI and Hugging Face apply the temperature first. At temperature
//! 1 both agree.

mod draft;
mod dry;
mod frequency_presence;
mod logit_bias;
mod mask;
mod min_p;
mod mirostat;
mod repetition;
mod sampler;
mod temperature;
mod top_k;
mod top_p;
mod typical;
mod xtc;

pub use draft::{Candidate, Draft, Scratch};
pub use mask::Mask;
pub use sampler::{Chance, Past, Sampler, validate};

use rhetor_catalog::About;
use rhetor_lm::{Error, Sampling};

/// When a step is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Changes single logits: applied to greedy choice and beam search too.
    Edit,
    /// Removes or reweighs candidates before a draw.
    Shape,
}

/// One step on the way from logits to a token.
pub trait Step: Sync {
    /// How the step introduces itself.
    fn about(&self) -> &'static About;

    /// When it is applied.
    fn stage(&self) -> Stage;

    /// The values of `about().options`, in their order.
    fn values(&self, sampling: &Sampling) -> Vec<f64>;

    /// Whether the step does anything with these values.
    fn is_on(&self, sampling: &Sampling) -> bool;

    /// Refuses values that are outside their range or name tokens beyond the `n_tokens` of the vocabulary.
    fn check(&self, sampling: &Sampling, _n_tokens: usize) -> Result<(), Error> {
        for (option, value) in self.about().options.iter().zip(self.values(sampling)) {
            option.check(value).map_err(|out| Error::InvalidOption {
                option: option.name,
                reason: format!("{} is outside {} to {}", out.value, out.min, out.max),
            })?;
        }
        Ok(())
    }

    /// Applies the step.
    fn apply(&self, draft: &mut Draft<'_>, sampling: &Sampling, past: &Past<'_>, chance: &mut Chance);

    /// Learns the probability that the drawn token had among the candidates left.
    fn observe(&self, _probability: f64, _sampling: &Sampling, _chance: &mut Chance) {}
}

/// All steps, in the order applied.
pub const SAMPLING: &[&dyn Step] = &[
    &logit_bias::LogitBias,
    &repetition::Repetition,
    &frequency_presence::FrequencyPresence,
    &dry::Dry,
    &top_k::TopK,
    &typical::Typical,
    &top_p::TopP,
    &min_p::MinP,
    &xtc::Xtc,
    &temperature::Temperature,
    &mirostat::Mirostat,
];
