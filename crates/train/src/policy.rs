//! What an objective computes its loss with: the model that learns, and what it is compared with.

use rhetor_images::{Picture, Preparation};
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_models::{Active, Batch, Embedded, Model, SequenceSpan, SourceTokens, Training};
use rhetor_tensor::ops::cross_entropy::{self, Targets};
use rhetor_tensor::ops::mixture::{Balance, Scope};
use rhetor_tensor::{Tensor, ops, tape};
use std::sync::Arc;

use crate::example::{IGNORE, Sequence};

/// The model that learns and the one that it is compared with.
pub struct Policy {
    /// Learns.
    pub model: Model,
    /// Stays as it was: a second copy, for methods that compare. Without one the model with its adapters off is the
    /// reference, which costs no memory.
    pub reference: Option<Model>,
}

/// The loss of some examples.
pub struct Loss {
    /// Scaled: the summand of the step's loss that goes back through the tape. One number.
    pub total: Tensor,
    /// The sum of the examples' losses, unscaled.
    pub sum: f64,
    /// Further sums to be reported, each divided by the step's weight.
    pub metrics: Vec<(&'static str, f64)>,
}

impl Policy {
    /// A policy without a second model.
    pub fn of(model: Model) -> Policy {
        Policy { model, reference: None }
    }

    /// Σ weight · scale · cross-entropy of the sequences' targets, computed in one forward pass.
    ///
    /// Only rows that have a target go through the output layer. In training, a model with a mixture of experts whose
    /// configuration asks for it is kept balanced: the loss of [`Balance`], times its coefficient, adds to the gradients, for each
    /// pass by its share of the targets. It is reported beside the loss, with how often the least and the most used
    /// expert are used, 1 being even.
    pub fn next_tokens<'s>(
        &self,
        sequences: impl IntoIterator<Item = &'s Sequence>,
        scale: f32,
        options: CrossEntropy,
        training: Option<Training>,
    ) -> Loss {
        let sequences: Vec<&Sequence> = sequences.into_iter().collect();
        let (mut batch, tokens) = batch_of(sequences.iter().copied(), training);
        batch.embedded = self.look(&sequences, training);
        let model = &self.model;
        let output = model.output();
        let coefficient = model.config().own_opt("train.balance").filter(|&c| c > 0.0 && training.is_some());
        let n_targets = tokens.len() as f64;
        let factor = |coefficient| (coefficient * n_targets * f64::from(scale)) as f32;
        let scope = match model.config().own_opt("train.balance_per_layer") {
            Some(1.0) => Scope::EachLayer,
            _ => Scope::AllLayers,
        };
        batch.balance = coefficient.map(|coefficient| Arc::new(Balance::new(factor(coefficient), scope)));
        let metrics = |batch: &Batch| {
            let usage = batch.balance.as_ref().map(|balance| balance.close());
            usage.map_or_else(Vec::new, |usage| {
                let (least, most) = usage.extremes();
                let means = [("balance", usage.loss), ("least-used", least), ("most-used", most)];
                means.map(|(name, mean)| (name, mean * n_targets)).to_vec()
            })
        };
        if output.is_plain(&batch.adapters) {
            let x = model.hidden(&batch, None); // [N, D]
            let metrics = metrics(&batch);
            let targets = Targets { tokens: &tokens, weights: None, scale };
            let loss = cross_entropy::linear_cross_entropy(&x, &output.weights[0], targets, options);
            let sum = loss.rows.iter().map(|&row| f64::from(row)).sum();
            return Loss { total: loss.total, sum, metrics };
        }
        let logits = model.forward(&batch, None); // [N, V]
        let metrics = metrics(&batch);
        let targets = Targets { tokens: &tokens, weights: None, scale };
        let loss = cross_entropy::cross_entropy(logits, targets, options);
        let sum = loss.rows.iter().map(|&row| f64::from(row)).sum();
        Loss { total: loss.total, sum, metrics }
    }

    /// The rows that the model makes of the pictures of some sequences, at their places in a batch of them.
    fn look(&self, sequences: &[&Sequence], training: Option<Training>) -> Vec<Embedded> {
        let (mut firsts, mut planes, mut row) = (Vec::new(), Vec::new(), 0);
        let Some(sight) = self.model.sight() else { return Vec::new() };
        let preparation = Preparation::square(sight.side);
        for sequence in sequences {
            for picture in &sequence.pictures {
                firsts.push(row + picture.first);
                let decoded = Picture::decode(&picture.file).expect("decoded when the example was made");
                planes.extend(preparation.apply(&decoded).values);
            }
            row += sequence.len();
        }
        if firsts.is_empty() {
            return Vec::new();
        }
        let seen = self.model.see(&planes, [sight.side; 2], training); // [n·R, D]
        let given = |(i, &first): (usize, &usize)| {
            let own: Vec<usize> = (i * sight.n_rows..(i + 1) * sight.n_rows).collect();
            Embedded { first, rows: ops::rows::rows(&seen, &own) }
        };
        firsts.iter().enumerate().map(given).collect()
    }

    /// What the model's head says at some rows of each sequence, ascending. → [N, C]
    pub fn at_rows<'s, R: IntoIterator<Item = usize>>(
        &self,
        sequences: impl IntoIterator<Item = (&'s Sequence, R)>,
        training: Option<Training>,
    ) -> Tensor {
        let (mut outputs, mut first, mut all) = (Vec::new(), 0, Vec::new());
        for (sequence, rows) in sequences {
            outputs.extend(rows.into_iter().map(|row| first + row));
            first += sequence.len();
            all.push(sequence);
        }
        let (batch, _) = batch_of(all, training);
        self.model.forward(&Batch { outputs, ..batch }, None)
    }

    /// Σ log p of each sequence's targets under the model that learns. → [number of sequences]
    pub fn log_likelihoods<'s>(
        &self,
        sequences: impl IntoIterator<Item = &'s Sequence>,
        training: Option<Training>,
    ) -> Tensor {
        log_likelihoods(&self.model, Active::All, sequences, training)
    }

    /// The same under the reference; never tracked.
    pub fn reference_log_likelihoods<'s>(&self, sequences: impl IntoIterator<Item = &'s Sequence>) -> Tensor {
        tape::pause(|| match &self.reference {
            Some(reference) => log_likelihoods(reference, Active::All, sequences, None),
            None => log_likelihoods(&self.model, Active::Only(Arc::from([])), sequences, None),
        })
    }
}

fn log_likelihoods<'s>(
    model: &Model,
    adapters: Active,
    sequences: impl IntoIterator<Item = &'s Sequence>,
    training: Option<Training>,
) -> Tensor {
    let sequences: Vec<&Sequence> = sequences.into_iter().collect();
    let (mut batch, tokens) = batch_of(sequences.iter().copied(), training);
    batch.adapters = adapters;
    let rows = cross_entropy::log_probs(model.forward(&batch, None), &tokens); // [N]
    let lens: Vec<usize> = sequences.iter().map(|sequence| sequence.n_targets()).collect();
    ops::segments::sum(rows, &lens)
}

/// Sequences one after another, with the rows that have targets as outputs, and those targets.
pub fn batch_of<'s>(
    sequences: impl IntoIterator<Item = &'s Sequence>,
    training: Option<Training>,
) -> (Batch, Vec<u32>) {
    let (mut batch, mut targets) = (Batch { training, ..Batch::default() }, Vec::new());
    let mut sources = SourceTokens::default();
    for sequence in sequences {
        let first = batch.tokens.len();
        batch.tokens.extend_from_slice(&sequence.tokens);
        batch.spans.push(SequenceSpan {
            len: sequence.len(),
            prefix_len: sequence.prefix_len,
            ..SequenceSpan::default()
        });
        if !sequence.source.is_empty() {
            sources.tokens.extend_from_slice(&sequence.source);
            sources.passages.push(vec![sequence.source.len()]);
        }
        if let Some(segments) = &sequence.segments {
            batch.segments.resize(first, 0);
            batch.segments.extend_from_slice(segments);
        }
        for (row, &target) in sequence.targets.iter().enumerate() {
            if target != IGNORE {
                batch.outputs.push(first + row);
                targets.push(target);
            }
        }
    }
    batch.source = (!sources.passages.is_empty()).then(|| Arc::new(sources));
    (batch, targets)
}
