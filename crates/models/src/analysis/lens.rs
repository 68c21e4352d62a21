//! The logit lens: what the model would say if it stopped after each block.
//!
//! Source: nostalgebraist, "interpreting GPT: the logit lens" (2020); compared in arXiv:2303.08112, section 2.

use rhetor_tensor::Tensor;
use std::sync::{Arc, Mutex};

use super::AnalysisError;
use super::maps::batch;
use crate::layers::Probe;
use crate::model::Model;

/// A token that could come next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guess {
    /// The token.
    pub id: u32,
    /// Its probability.
    pub probability: f32,
}

/// For each depth (0 = embeddings, i + 1 = after block i) and each position, the `n` most likely next tokens, through the
/// model's last norm and output layer. → [L + 1][T][n]
///
/// Errors: the model is no decoder; no tokens, or more than the context holds.
pub fn logit_lens(model: &Model, tokens: &[u32], n: usize) -> Result<Vec<Vec<Vec<Guess>>>, AnalysisError> {
    let states = residuals(model, tokens)?;
    let at_depth = |x: &Tensor| {
        let logits = model.read_out(x); // [T, V]
        (0..logits.n_rows()).map(|i| best(logits.row(i), n)).collect()
    };
    Ok(states.iter().map(at_depth).collect())
}

/// The residual stream at each depth: L + 1 times [T, D].
pub(super) fn residuals(model: &Model, tokens: &[u32]) -> Result<Vec<Tensor>, AnalysisError> {
    let keeper = Arc::new(Keeper::default());
    model.forward_probed(&batch(model, &[tokens.to_vec()])?, keeper.clone());
    let states = std::mem::take(&mut *keeper.0.lock().expect("no probe panics"));
    if states.is_empty() {
        return Err(AnalysisError::NotADecoder { family: model.config().family });
    }
    Ok(states)
}

#[derive(Default)]
struct Keeper(Mutex<Vec<Tensor>>);

impl Probe for Keeper {
    fn residual(&self, _depth: usize, x: Tensor) -> Tensor {
        self.0.lock().expect("no probe panics").push(x.detached());
        x
    }
}

/// The `n` highest logits with their probabilities; of equal ones the lowest id first.
fn best(logits: &[f32], n: usize) -> Vec<Guess> {
    let highest = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let sum: f32 = logits.iter().map(|logit| (logit - highest).exp()).sum();
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    let guess = |&id: &u32| Guess { id, probability: (logits[id as usize] - highest).exp() / sum };
    order.iter().take(n).map(guess).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_guesses_are_those_with_the_highest_logits() {
        let guesses = best(&[0.0, 2.0, 2.0, -1.0], 2);
        assert_eq!((guesses[0].id, guesses[1].id), (1, 2));
        let sum = 2.0 * 2f32.exp() + 1.0 + (-1f32).exp();
        assert!((guesses[0].probability - 2f32.exp() / sum).abs() < 1e-6);
    }
}
