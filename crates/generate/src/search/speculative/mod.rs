//! Speculative decoding: a drafter guesses the next tokens, and the model checks all of them in one step.
//!
//! At each position the token is drawn from the model's own distribution with the request's own random numbers, exactly
//! as without guesses; a guess is accepted if it is the token that was drawn, and the step ends at the first that is not.
//! So the tokens are the same whatever was guessed, also when nothing was: guessing may be switched off
//! and on by the clock, and the same seed still gives the same bytes. All drafters here guess one token for each
//! position, q(x) = 1, and then a guess x is accepted with probability p(x) = min(1, p(x) / q(x)), and after a rejection
//! the token has the distribution norm(max(0, p − q)): these are the probabilities of speculative sampling.
//!
//! Source: Fast Inference from Transformers via Speculative Decoding, arXiv:2211.17192, Algorithm 1.

mod draft_model;
mod drafter;
mod eagle;
mod pace;
mod prompt_lookup;
mod rates;
mod shelf;
mod speculator;

pub(crate) use drafter::{Asked, Drafter, Guess, SequenceId, Target};
pub use drafter::{DRAFT_TOKENS, DrafterOptions, Method};
pub(crate) use rates::Rates;
pub(crate) use speculator::{Proposal, Speculator};

/// All drafters.
pub const DRAFTERS: &[Method] = &[prompt_lookup::METHOD, draft_model::METHOD, eagle::METHOD];
