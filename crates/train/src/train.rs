//! The one training loop: draw examples, compute their loss, send it back, step; now and then validate and save.

use rhetor_models::{Keep, Training};
use rhetor_tensor::tape;
use std::ops::ControlFlow;
use std::time::Instant;

use crate::error::Error;
use crate::example::Example;
use crate::objectives::Objective;
use crate::optimizers::{Optimizer, Trained};
use crate::policy::Policy;
use crate::schedules::Rate;

/// What the loop is told.
#[derive(Clone)]
pub struct TrainOptions {
    /// Updates.
    pub n_steps: u64,
    /// Examples of an update, over all processes.
    pub batch_size: usize,
    /// Rows of tokens that go through the model at once; a step's examples are cut into as many passes as that takes.
    pub rows_max: usize,
    /// The learning rate over the steps.
    pub rate: Rate,
    /// The greatest global norm of the gradients; larger ones are scaled down to it. `None` = as they are.
    pub clip: Option<f32>,
    /// What the tape keeps.
    pub keep: Keep,
    /// Of dropout.
    pub seed: u64,
    /// Steps between validations; 0 = only at the end.
    pub validate_every: u64,
    /// Steps between checkpoints; 0 = only at the end.
    pub save_every: u64,
    /// Validations without a better loss after which training stops.
    pub patience: Option<u32>,
    /// Decay of the moving average of the weights, if one is kept.
    pub ema: Option<f32>,
}

/// Where examples come from.
pub trait Source {
    /// The examples of the next step: `n` of them.
    fn next(&mut self, n: usize) -> Result<Vec<Example>, Error>;

    /// Where it stands, in numbers that [`restore`](Source::restore) understands.
    fn position(&self) -> Vec<u64>;

    /// Goes back to where it stood.
    fn restore(&mut self, position: &[u64]) -> Result<(), Error>;

    /// The examples to validate with, always the same.
    fn validation(&self) -> &[Example];
}

/// Several processes that train together; each has the same weights and its share of the examples.
pub trait Team {
    /// Its number, from 0.
    fn rank(&self) -> usize;
    /// How many there are.
    fn size(&self) -> usize;
    /// Replaces `values` by their sums over all processes, the same bits in each.
    fn sum(&self, values: &mut [f32]);
    /// As [`sum`](Team::sum).
    fn sum_f64(&self, values: &mut [f64]);
}

/// One process alone.
pub struct Alone;

impl Team for Alone {
    fn rank(&self) -> usize {
        0
    }
    fn size(&self) -> usize {
        1
    }
    fn sum(&self, _values: &mut [f32]) {}
    fn sum_f64(&self, _values: &mut [f64]) {}
}

/// Whether whoever hears an event wants training to go on.
pub type Wish = Result<ControlFlow<()>, Error>;

/// What happens while training.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// An update was made.
    Step(&'a StepReport),
    /// The validation loss was measured.
    Validated(&'a Validation),
}

/// One update.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StepReport {
    /// Its number, from 1.
    pub step: u64,
    /// The loss in nats per unit of weight: per target token for language models.
    pub loss: f64,
    /// The learning rate of the update.
    pub learning_rate: f64,
    /// The global norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Tokens that went through the model.
    pub n_tokens: usize,
    /// Units of weight: target tokens for language models.
    pub weight: f64,
    /// How long it took.
    pub seconds: f64,
    /// What else the objective measured, per unit of weight.
    #[serde(flatten)]
    pub metrics: std::collections::BTreeMap<&'static str, f64>,
}

/// One validation.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Validation {
    /// Updates made before it.
    pub step: u64,
    /// The loss in nats per unit of weight.
    pub loss: f64,
    /// Whether no earlier one was lower.
    pub is_best: bool,
    /// What else the objective measured, per unit of weight.
    #[serde(flatten)]
    pub metrics: std::collections::BTreeMap<&'static str, f64>,
}

/// Where training stands: all that a checkpoint holds besides weights and the optimizer's state.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// Updates made.
    pub step: u64,
    /// Where the source stands.
    pub position: Vec<u64>,
    /// The lowest validation loss, and the step it was measured at.
    pub best: Option<(f64, u64)>,
    /// Validations since then.
    pub n_worse: u32,
    /// Tokens seen so far.
    pub n_tokens: u64,
}

/// Everything that changes while training.
pub struct State {
    /// The model.
    pub policy: Policy,
    /// Its trained parameters, with the factor of the rate and the decay of each.
    pub trained: Vec<Trained>,
    /// Moments.
    pub optimizer: Optimizer,
    /// The moving average of the parameters, in their order, if one is kept.
    pub average: Option<Vec<Vec<f32>>>,
    /// Counts.
    pub progress: Progress,
}

/// Trains until `options.n_steps` updates are made, or patience ends.
///
/// `save` is called with the state when a checkpoint is due (after a validation, if both are), and at the end; `on` hears
/// what happens, and may end the training early, after a last checkpoint. The same state, data and options give the same bytes,
/// whether training was interrupted in between or not, and however many threads there are.
#[allow(clippy::too_many_arguments)]
pub fn train(
    state: &mut State,
    objective: &dyn Objective,
    source: &mut dyn Source,
    options: &TrainOptions,
    team: &dyn Team,
    before: &mut dyn FnMut(&mut State),
    save: &mut dyn FnMut(&State, Occasion) -> Result<(), Error>,
    on: &mut dyn FnMut(&State, Event) -> Wish,
) -> Result<(), Error> {
    if !state.progress.position.is_empty() {
        source.restore(&state.progress.position)?;
    }
    while state.progress.step < options.n_steps {
        before(state);
        let report = step(state, objective, source, options, team)?;
        let wish = on(state, Event::Step(&report))?;
        let (at, is_last) = (report.step, report.step == options.n_steps);
        let mut is_best = false;
        if (is_due(at, options.validate_every) || is_last)
            && let Some(validation) = validate(state, objective, source, options, team)
        {
            is_best = validation.is_best;
            // A wish to stop is heard after each step.
            let _ = on(state, Event::Validated(&validation))?;
        }
        if is_best {
            state.with_average(|state| save(state, Occasion::Best))?;
        }
        if wish.is_break() && !is_last {
            save(state, Occasion::Due)?;
            break;
        }
        let gives_up = options.patience.is_some_and(|patience| state.progress.n_worse >= patience);
        if is_due(at, options.save_every) || is_last || gives_up {
            save(state, Occasion::Due)?;
        }
        if is_last || gives_up {
            state.with_average(|state| save(state, Occasion::End))?;
            break;
        }
    }
    Ok(())
}

/// Why something is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// To go on from: as often as was asked for, and at the end.
    Due,
    /// To be used: no validation was better. The parameters hold their averages, if there are any.
    Best,
    /// To be used: training has ended. The parameters hold their averages, if there are any.
    End,
}

fn is_due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// One update.
fn step(
    state: &mut State,
    objective: &dyn Objective,
    source: &mut dyn Source,
    options: &TrainOptions,
    team: &dyn Team,
) -> Result<StepReport, Error> {
    let start = Instant::now();
    let number = state.progress.step + 1;
    let examples = source.next(options.batch_size)?;
    // Every process knows all examples of the step, so all know its weight.
    let weight: f64 = examples.iter().map(|example| objective.weight(example)).sum();
    let n_tokens = examples.iter().map(Example::n_rows).sum();
    if weight <= 0.0 {
        return Err(Error::NothingToLearn { step: number });
    }
    let own: Vec<&Example> = examples.iter().skip(team.rank()).step_by(team.size()).collect();
    let mut sums = Sums::default();
    for (pass, examples) in passes(&own, options.rows_max).enumerate() {
        let seed = options.seed ^ (number << 20) ^ ((pass * team.size() + team.rank()) as u64);
        let training = Training { seed, keep: options.keep };
        let examples: Vec<Example> = examples.iter().map(|&example| example.clone()).collect();
        let scale = (1.0 / weight) as f32;
        let (loss, tape) = tape::record(|| objective.loss(&state.policy, &examples, scale, Some(training)));
        if !loss.sum.is_finite() {
            return Err(not_finite(state, number, "loss", &examples));
        }
        tape.backward(&loss.total);
        sums.add(&loss.metrics, loss.sum);
    }
    sums.share(team);
    let squares: f64 = (state.trained.iter())
        .map(|trained| {
            if team.size() > 1 {
                // An expert may have had rows in one process and none in another.
                trained.parameter.add_gradient(|_| ());
            }
            let mut gradient = trained.parameter.gradient();
            team.sum(&mut gradient);
            rhetor_kernels::reduce::sum_of_squares(&gradient)
        })
        .sum();
    let norm = squares.sqrt();
    if !norm.is_finite() {
        return Err(not_finite(state, number, "gradients", &examples));
    }
    let factor = match options.clip {
        Some(clip) => (f64::from(clip) / (norm + 1e-6)).min(1.0) as f32,
        None => 1.0,
    };
    let learning_rate = options.rate.at(state.progress.step, options.n_steps);
    state.optimizer.step(&state.trained, learning_rate, factor);
    for trained in &state.trained {
        trained.parameter.clear_gradient();
    }
    if let (Some(average), Some(decay)) = (&mut state.average, options.ema) {
        for (average, trained) in average.iter_mut().zip(&state.trained) {
            // average = decay · average + (1 − decay) · values
            rhetor_kernels::add::scale(average, decay);
            rhetor_kernels::add::add_scaled(average, 1.0 - decay, &trained.parameter.read());
        }
    }
    state.progress.step = number;
    state.progress.position = source.position();
    state.progress.n_tokens += n_tokens as u64;
    let loss = sums.loss / weight;
    let metrics = sums.means(weight, objective);
    Ok(StepReport {
        step: number,
        loss,
        learning_rate,
        gradient_norm: norm,
        n_tokens,
        weight,
        seconds: start.elapsed().as_secs_f64(),
        metrics,
    })
}

/// Sums over the passes of a step.
#[derive(Default)]
struct Sums {
    loss: f64,
    metrics: std::collections::BTreeMap<&'static str, f64>,
}

impl Sums {
    fn add(&mut self, metrics: &[(&'static str, f64)], loss: f64) {
        self.loss += loss;
        for &(name, value) in metrics {
            *self.metrics.entry(name).or_default() += value;
        }
    }

    /// The metrics per unit of weight, and what follows from them.
    fn means(self, weight: f64, objective: &dyn Objective) -> std::collections::BTreeMap<&'static str, f64> {
        let mut means = self.metrics.into_iter().map(|(name, sum)| (name, sum / weight)).collect();
        objective.conclude(&mut means);
        means
    }

    fn share(&mut self, team: &dyn Team) {
        let mut values: Vec<f64> = [self.loss].into_iter().chain(self.metrics.values().copied()).collect();
        team.sum_f64(&mut values);
        self.loss = values[0];
        self.metrics.values_mut().zip(&values[1..]).for_each(|(to, from)| *to = *from);
    }
}

/// Cuts examples into passes of at most `rows_max` rows; an example that is longer has a pass of its own.
fn passes<'e>(examples: &'e [&'e Example], rows_max: usize) -> impl Iterator<Item = &'e [&'e Example]> {
    let mut rest = examples;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut n_rows = 0;
        let n = rest
            .iter()
            .take_while(|example| {
                n_rows += example.n_rows();
                n_rows <= rows_max
            })
            .count()
            .max(1);
        let (pass, after) = rest.split_at(n);
        rest = after;
        Some(pass)
    })
}

/// The loss of the validation examples, under the moving average of the weights if there is one.
fn validate(
    state: &mut State,
    objective: &dyn Objective,
    source: &dyn Source,
    options: &TrainOptions,
    team: &dyn Team,
) -> Option<Validation> {
    if source.validation().is_empty() {
        return None;
    }
    let (loss, metrics) = state
        .with_average(|state| loss_of(&state.policy, objective, source.validation(), options.rows_max, team));
    let step = state.progress.step;
    let is_best = state.progress.best.is_none_or(|(best, _)| loss < best);
    if is_best {
        (state.progress.best, state.progress.n_worse) = (Some((loss, step)), 0);
    } else {
        state.progress.n_worse += 1;
    }
    Some(Validation { step, loss, is_best, metrics })
}

/// The mean loss of `examples` without training, and the objective's metrics.
pub fn loss_of(
    policy: &Policy,
    objective: &dyn Objective,
    examples: &[Example],
    rows_max: usize,
    team: &dyn Team,
) -> (f64, std::collections::BTreeMap<&'static str, f64>) {
    let weight: f64 = examples.iter().map(|example| objective.weight(example)).sum();
    let own: Vec<&Example> = examples.iter().skip(team.rank()).step_by(team.size()).collect();
    let mut sums = Sums::default();
    for examples in passes(&own, rows_max) {
        let examples: Vec<Example> = examples.iter().map(|&example| example.clone()).collect();
        let loss = objective.loss(policy, &examples, 1.0, None);
        sums.add(&loss.metrics, loss.sum);
    }
    sums.share(team);
    (sums.loss / weight, sums.means(weight, objective))
}

impl State {
    /// Calls `f` while the parameters hold their moving averages, if there are any.
    pub fn with_average<R>(&mut self, f: impl FnOnce(&State) -> R) -> R {
        self.swap_average();
        let result = f(self);
        self.swap_average();
        result
    }

    fn swap_average(&mut self) {
        for (average, trained) in self.average.iter_mut().flatten().zip(&self.trained) {
            std::mem::swap(average, &mut *trained.parameter.write());
        }
    }
}

/// The error for numbers that are not finite: where they are, and what was being learnt.
fn not_finite(state: &State, step: u64, what: &'static str, examples: &[Example]) -> Error {
    let is_broken = |values: &[f32]| rhetor_kernels::reduce::first_not_finite(values).is_some();
    let mut tensors = Vec::new();
    for Trained { parameter, .. } in &state.trained {
        if is_broken(&parameter.read()) {
            tensors.push(parameter.name().to_string());
        } else if is_broken(&parameter.gradient()) {
            tensors.push(format!("gradient of {}", parameter.name()));
        }
    }
    let first: Vec<u32> =
        examples.iter().flat_map(|e| &e.sequences).flat_map(|s| &s.tokens).take(16).copied().collect();
    Error::NotFinite { step, what, tensors, tokens: first }
}
