//! A sparse mixture of experts in the place of the feed-forward layer.

use rhetor_tensor::{Tensor, ops};

use super::{GatedFeedForward, Linear, Pass, Sublayer};
use crate::load::{LoadError, Weights};
use crate::places::Place;

/// Each row goes to the experts that a router thinks likeliest: `Σ weight · expert(x)`, the weights being the softmax over
/// those that were chosen. Source: Mixtral of Experts, arXiv:2401.04088, section 2.1.
///
/// The rows of an expert go through it in one product; an expert without rows is not read. There is no limit on
/// the rows of an expert, so what a row becomes does not depend on the others.
pub struct Mixture {
    /// [E, D], in f32 always: rounding would change which experts are chosen.
    pub router: Linear,
    /// E of them.
    pub experts: Vec<GatedFeedForward>,
    /// k: experts of a row.
    pub n_used: usize,
    /// ε: in training every element is multiplied by a random number from 1 − ε to 1 + ε first.
    pub jitter: f32,
    /// Number of the mixture in the model, of which its random numbers are a function.
    pub place: u64,
}

impl Mixture {
    /// Loads the mixture of layer `layer` by the usual names: a router `ffn_gate_inp` and gated experts.
    pub fn load(weights: &mut Weights, layer: usize) -> Result<Mixture, LoadError> {
        let config = weights.config;
        let router = weights.linear(&["blk.{i}.ffn_gate_inp"], layer)?;
        let expert = |expert| {
            let place = Place { layer, expert };
            Ok(GatedFeedForward {
                gate_up: weights.linear(&["blk.{i}.ffn_gate.{e}", "blk.{i}.ffn_up.{e}"], place)?,
                down: weights.linear(&["blk.{i}.ffn_down.{e}"], place)?,
                activation: config.activation,
            })
        };
        let experts = (0..config.own_size("experts")).map(expert).collect::<Result<_, LoadError>>()?;
        let (n_used, jitter) = (config.own_size("experts_used"), config.own("train.jitter") as f32);
        Ok(Mixture { router, experts, n_used, jitter, place: layer as u64 })
    }
}

impl Sublayer for Mixture {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let jittered = pass.dropout(self.place).filter(|_| self.jitter > 0.0);
        let jittered = jittered.map(|stream| ops::mixture::jitter(x.clone(), self.jitter, stream));
        let x = jittered.as_ref().unwrap_or(x);
        let logits = self.router.forward(x, pass); // [T, E]
        let routes = ops::mixture::route(&logits, self.n_used, pass.balance.as_ref());
        let outputs = self.experts.iter().zip(&routes.rows_of).map(|(expert, rows)| {
            let rows: Vec<usize> = rows.iter().map(|&(row, _)| row).collect();
            // [rows, D] → [rows, D]
            (!rows.is_empty()).then(|| expert.forward(&ops::rows::rows(x, &rows), pass))
        });
        let outputs: Vec<Option<Tensor>> = outputs.collect();
        ops::mixture::combine(&outputs, &routes, x.row_len())
    }
}
