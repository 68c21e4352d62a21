//! A recipe becomes a run: model, data, objective and optimizer are put together, trained, and written down.

use rhetor_formats::Checkpoint;
use rhetor_generate::ChatTemplate;
use rhetor_kernels::gemm::Precision;
use rhetor_models::adapters::{self, Adapter};
use rhetor_models::estimate::Estimate;
use rhetor_models::{Family, Keep, Labelled, LoadOptions, Model, NewHead, Nf4};
use rhetor_tensor::Parameter;
use rhetor_tokenizer::{ControlTokens, Tokenizer};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint;
use crate::data::pack::{DocumentMask, Windows};
use crate::data::split::{self, Part, Validation, part_by_hash};
use crate::data::{self, Row, TokenCacheOptions, open_or_build};
use crate::error::Error;
use crate::example::{Example, IGNORE, Sequence, Tally};
use crate::examples::classification::Labels;
use crate::layer_groups::LayerGroups;
use crate::metrics::Metrics;
use crate::objectives::{self, Objective, Reading, Reads, Reference};
use crate::optimizers::{self, Optimizer, Trained};
use crate::policy::Policy;
use crate::recipe::{Recipe, given, unknown};
use crate::schedules::{Rate, Schedule};
use crate::source::{Packing, Pick, Rows, Text};
use crate::train::{self, Event, Occasion, Progress, Source, State, Team, TrainOptions, Wish};
use crate::writer::Writer;

/// A recipe whose names have become files.
pub struct Resolved {
    /// What is to be done.
    pub recipe: Recipe,
    /// The model to go on from.
    pub base: PathBuf,
    /// What an adapter's file calls it.
    pub base_name: String,
    /// A file that holds the teacher of a distillation.
    pub teacher: Option<PathBuf>,
    /// The vocabulary.
    pub tokenizer: Arc<Tokenizer>,
    /// The chat template, if there is one.
    pub template: Option<Arc<ChatTemplate>>,
    /// The source of the chat template, if the recipe chose another than the model's own: it is saved with the model.
    pub new_template: Option<String>,
    /// What is learnt: each part with how it is read and its weight.
    pub data: Vec<(Vec<data::Source>, data::ReadOptions, f64)>,
    /// What is measured, if it is a file of its own or a part of the data.
    pub validation: Validation,
    /// Where everything is written.
    pub out: PathBuf,
    /// What chat templates are told of the clock, in seconds since 1970.
    pub now: i64,
}

/// A run that is ready.
pub struct Run {
    recipe: Recipe,
    out: PathBuf,
    base: PathBuf,
    base_name: String,
    tokenizer: Arc<Tokenizer>,
    new_template: Option<String>,
    state: State,
    adapters: Vec<Box<dyn Adapter>>,
    /// The head, and what its outputs are called.
    labelled: Labelled,
    objective: Arc<dyn Objective>,
    source: Box<dyn Source>,
    options: TrainOptions,
    groups: LayerGroups,
    /// Steps after which one more group learns; 0 = all from the start.
    thaw_steps: f64,
    /// What became of the rows.
    pub tally: Tally,
    /// What is worth telling about how the data were read.
    pub notices: Vec<String>,
    /// Names the run: a checkpoint of another is refused.
    digest: String,
    data_digest: String,
}

/// What a run will be, before it is.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Description {
    /// Elements of the base model.
    pub n_parameters: usize,
    /// Elements that train.
    pub n_trained: usize,
    /// Bytes: weights of the base, trained values and gradients, the optimizer's memory, and what the tape keeps of one pass.
    pub bytes: Bytes,
    /// Updates.
    pub n_steps: u64,
    /// Examples of an update.
    pub batch_size: usize,
    /// Tokens of the first update, as a measure of what one takes.
    pub step_tokens: usize,
    /// Multiplications and additions of one update.
    pub step_flops: f64,
    /// Examples to validate with.
    pub n_validation: usize,
    /// The first example, with what is learnt in brackets.
    pub first: String,
}

/// Bytes that a run takes.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Bytes {
    /// The base model.
    pub weights: usize,
    /// Gradients of what trains.
    pub gradients: usize,
    /// What the optimizer remembers.
    pub optimizer: usize,
    /// What the tape keeps of one pass, about.
    pub activations: usize,
}

impl Run {
    /// Puts everything together. Errors name what in the recipe, the model or the data is wrong.
    pub fn prepare(resolved: Resolved, team: &dyn Team) -> Result<Run, Error> {
        let Resolved { recipe, base, teacher, tokenizer, template, .. } = &resolved;
        recipe.check()?;
        let method = objectives::Method::find(&recipe.objective)?;
        if resolved.data.is_empty() {
            return Err(Error::Recipe("no `data` to learn from".to_string()));
        }
        let checkpoint = Checkpoint::open(base)?;
        let config = Model::config_of(&checkpoint)?;
        let kinds = match (method.reads, config.has_encoder()) {
            (Reads::Nothing, true) => Some("a decoder or an encoder alone"),
            (Reads::Source, false) => Some("an encoder and a decoder"),
            _ => None,
        };
        if let Some(expected) = kinds {
            let (objective, family) = (method.about.name, config.family);
            return Err(Error::Parts { objective, expected, family });
        }
        let decoder_start = config.has_encoder().then(|| config.decoder_start.unwrap_or(0));
        let mut loaded = Loaded::default();
        let rows = if method.reads_windows { None } else { Some(loaded.read(&resolved)?) };
        let labels =
            labels(&checkpoint, rows.iter().flat_map(|(learnt, held_out)| learnt.iter().chain(held_out)))?;
        let reading = Reading {
            is_encoder: config.is_encoder,
            decoder_start,
            picture_rows: config.picture_rows(),
            labels,
            tokenizer: tokenizer.clone(),
            template: template.clone(),
            max_len: recipe.seq_len,
            now: resolved.now,
        };
        let objective: Arc<dyn Objective> = method.build(given(&recipe.objective_options), reading)?.into();
        let labelled = objective.head();
        let (model, adapters) = load(recipe, base, tokenizer, labelled.as_ref())?;
        let labelled = labelled.unwrap_or(Labelled { head: model.config().head, labels: Vec::new() });
        let reference = match objective.reference() {
            Reference::None => None,
            // With adapters the model itself is the reference: they are switched off.
            Reference::Before if trains_base(recipe) => Some(base),
            Reference::Before => None,
            Reference::Teacher => match teacher {
                Some(teacher) => Some(teacher),
                None => return Err(Error::Recipe("distillation needs `teacher`".to_string())),
            },
        };
        let reference = reference
            .map(|path| Ok::<_, Error>(Model::load(&Checkpoint::open(path)?, LoadOptions::default())?))
            .transpose()?;
        check_vocabulary(&model, tokenizer)?;
        let mut trained = trained(&model, recipe)?;
        if trained.is_empty() {
            return Err(Error::Recipe(format!("adapter `{}` trains nothing in this model", recipe.adapter)));
        }
        if recipe.rate_decay.is_nan() || recipe.rate_decay < 1.0 {
            return Err(Error::Recipe(format!("rate-decay is {}, expected 1 or more", recipe.rate_decay)));
        }
        let groups = LayerGroups::of(model.parameters(), model.config());
        groups.decay_rates(&mut trained, recipe.rate_decay);
        let optimizer = optimizers::Method::find(&recipe.optimizer).ok_or_else(|| {
            let known: Vec<&str> = optimizers::OPTIMIZERS.iter().map(|method| method.about.name).collect();
            unknown("optimizer", &recipe.optimizer, &known.join(", "))
        })?;
        let optimizer = Optimizer::new(optimizer.build(given(&recipe.optimizer_options))?, &trained);
        let source = match rows {
            Some(rows) => loaded.rows(recipe, rows, objective.clone())?,
            None => loaded.text(&resolved, objective.clone())?,
        };
        let n_items = loaded.n_items.max(1);
        let batch_size = recipe.batch_size * team.size();
        let n_steps = recipe
            .steps
            .unwrap_or_else(|| ((recipe.epochs * n_items as f64) / batch_size as f64).ceil().max(1.0) as u64);
        let options = train_options(recipe, n_steps, batch_size)?;
        let thaw_steps = recipe.unfreeze_every * n_items as f64 / batch_size as f64;
        let average = (recipe.ema > 0.0)
            .then(|| trained.iter().map(|trained| trained.parameter.read().clone()).collect());
        let policy = Policy { model, reference };
        let state = State { policy, trained, optimizer, average, progress: Progress::default() };
        let digest = run_digest(&resolved, &loaded.digest, n_steps);
        Ok(Run {
            state,
            adapters,
            labelled,
            objective,
            source,
            options,
            groups,
            thaw_steps,
            tally: loaded.tally,
            notices: loaded.notices,
            digest,
            data_digest: loaded.digest,
            recipe: resolved.recipe,
            out: resolved.out,
            base: resolved.base,
            base_name: resolved.base_name,
            tokenizer: resolved.tokenizer,
            new_template: resolved.new_template,
        })
    }

    /// What the run will be; draws the first examples to say so.
    pub fn describe(&mut self) -> Result<Description, Error> {
        let position = self.source.position();
        let examples = self.source.next(self.options.batch_size)?;
        self.source.restore(&position)?;
        let model = &self.state.policy.model;
        let n_trained: usize = self.state.trained.iter().map(|t| t.parameter.n_elements()).sum();
        let step_tokens: usize = examples.iter().map(Example::n_rows).sum();
        let pass_rows = step_tokens.min(self.options.rows_max.max(self.recipe.seq_len));
        let estimate = Estimate { family: model.family(), config: model.config() };
        let recomputes = self.options.keep == Keep::Blocks;
        // Forward, backward to the inputs, backward to what trains.
        let n = model.n_parameters() as f64;
        let step_flops = step_tokens as f64 * (4.0 * n + 2.0 * (n_trained as f64).min(n));
        Ok(Description {
            n_parameters: model.n_parameters(),
            n_trained,
            bytes: Bytes {
                weights: model.n_bytes() + if trains_base(&self.recipe) { 0 } else { 4 * n_trained },
                gradients: 4 * n_trained,
                optimizer: self.state.optimizer.n_bytes(),
                activations: estimate.activations_here(pass_rows, recomputes) as usize,
            },
            n_steps: self.options.n_steps,
            batch_size: self.options.batch_size,
            step_tokens,
            step_flops,
            n_validation: self.source.validation().len(),
            first: examples.first().map_or_else(String::new, |example| show(example, &self.tokenizer)),
        })
    }

    /// The model that learns.
    pub fn model(&self) -> &Model {
        &self.state.policy.model
    }

    /// Where training stands.
    pub fn progress(&self) -> &Progress {
        &self.state.progress
    }

    /// Updates in all.
    pub fn n_steps(&self) -> u64 {
        self.options.n_steps
    }

    /// Elements of the model without its embeddings and its output layer: what scaling laws count.
    pub fn n_inner_parameters(&self) -> usize {
        let is_outer = |name: &str| ["embed", "wte", "wpe", "lm_head"].iter().any(|part| name.contains(part));
        let inner = self.state.trained.iter().filter(|trained| !is_outer(trained.parameter.name()));
        inner.map(|trained| trained.parameter.n_elements()).sum()
    }

    /// Goes on from the newest checkpoint in the run's folder; says from which step, or 0 if there is none.
    pub fn resume(&mut self) -> Result<u64, Error> {
        let Some((step, path)) = checkpoint::steps(&self.out.join("checkpoints"))?.pop() else {
            return Ok(0);
        };
        checkpoint::restore(&mut self.state, &path, &self.digest)?;
        Ok(step)
    }

    /// Trains to the end and writes everything. `on` hears each event and may end the run after a step, from whose
    /// checkpoint it can be resumed.
    pub fn go(
        mut self,
        team: &dyn Team,
        on: &mut dyn FnMut(&Progress, Event) -> Wish,
    ) -> Result<Progress, Error> {
        let is_first = team.rank() == 0;
        let mut metrics = match is_first {
            true => {
                std::fs::create_dir_all(&self.out).map_err(Error::io(&self.out))?;
                Some(Metrics::open(&self.out, self.state.progress.step)?)
            }
            false => None,
        };
        let writer = Writer {
            recipe: &self.recipe,

            base: &self.base,
            base_name: &self.base_name,
            new_template: self.new_template.as_deref(),
            adapters: &self.adapters,
            labelled: &self.labelled,
            data_digest: &self.data_digest,
        };
        let folder = self.out.join("checkpoints");
        let (digest, keep, keeps_best) = (&self.digest, self.recipe.keep, self.recipe.best);
        let mut save = |state: &State, occasion: Occasion| -> Result<(), Error> {
            if !is_first {
                return Ok(());
            }
            match occasion {
                Occasion::Due => checkpoint::save(state, &folder, digest, keep).map(drop),
                Occasion::Best if keeps_best => writer.write(state, &self.out.join("best")),
                Occasion::Best => Ok(()),
                Occasion::End => writer.write(state, &self.out),
            }
        };
        let mut hear = |state: &State, event: Event| -> Wish {
            if let Some(metrics) = &mut metrics {
                match event {
                    Event::Step(report) => metrics.step(report)?,
                    Event::Validated(validation) => {
                        metrics.validation(validation)?;
                        metrics.draw()?;
                    }
                }
            }
            on(&state.progress, event)
        };
        let (groups, thaw_steps) = (&self.groups, self.thaw_steps);
        let mut before = |state: &mut State| {
            if thaw_steps > 0.0 {
                groups.thaw(&state.trained, 1 + (state.progress.step as f64 / thaw_steps) as usize);
            }
        };
        train::train(
            &mut self.state,
            &*self.objective,
            &mut *self.source,
            &self.options,
            team,
            &mut before,
            &mut save,
            &mut hear,
        )?;
        if let Some(metrics) = &metrics {
            metrics.draw()?;
        }
        Ok(self.state.progress)
    }
}

/// Whether what trains is the base itself, so that a whole model is saved.
pub(crate) fn trains_base(recipe: &Recipe) -> bool {
    matches!(recipe.adapter.as_str(), "full" | "bitfit")
}

/// The model with its adapter attached.
fn load(
    recipe: &Recipe,
    base: &Path,
    tokenizer: &Tokenizer,
    labelled: Option<&Labelled>,
) -> Result<(Model, Vec<Box<dyn Adapter>>), Error> {
    let precision = match recipe.precision.as_str() {
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        other => return Err(unknown("precision", other, "f32, bf16")),
    };
    let initial_ids = match &recipe.init_text {
        Some(text) => tokenizer.encode(text, rhetor_tokenizer::Special::Literal),
        None => Vec::new(),
    };
    let checkpoint = Checkpoint::open(base)?;
    let mut chosen = recipe.adapter_options(initial_ids)?;
    if let Some(labelled) = labelled.filter(|_| !trains_base(recipe)) {
        // Heads train in full, and are saved beside the adapter.
        let modules = Family::of(&checkpoint)?.head_modules(labelled.head.task);
        chosen.modules_to_save.extend(modules.map(str::to_string));
    }
    let mut adapters = vec![adapters::build(&recipe.adapter, &chosen)?];
    let head = labelled.map(|labelled| NewHead { head: labelled.head, seed: recipe.seed });
    let quantize = match recipe.quantize.as_deref() {
        None => None,
        Some("nf4") => Some(Nf4 { double: true }),
        Some("nf4-plain") => Some(Nf4 { double: false }),
        Some(other) => return Err(unknown("quantize", other, "nf4, nf4-plain")),
    };
    let options = LoadOptions { precision, quantize, head, ..LoadOptions::default() };
    let model = Model::load_adapted(&checkpoint, options, &mut adapters)?;
    Ok((model, adapters))
}

/// The classes of these rows, by the numbers that the checkpoint gives them if it knows them all.
fn labels<'r>(checkpoint: &Checkpoint, rows: impl Iterator<Item = &'r Row>) -> Result<Labels, Error> {
    let labels = Labels::of(rows);
    let known = rhetor_models::labels_of(checkpoint)?;
    Ok(match &labels {
        Labels::Classes(names) if names.iter().all(|name| known.contains(name)) => Labels::Classes(known),
        _ => labels,
    })
}

fn check_vocabulary(model: &Model, tokenizer: &Tokenizer) -> Result<(), Error> {
    let (n_tokens, vocab_size) = (tokenizer.n_tokens(), model.config().vocab_size);
    if n_tokens > vocab_size {
        return Err(Error::Vocabulary { n_tokens, vocab_size });
    }
    Ok(())
}

/// What trains, with the decay of each.
fn trained(model: &Model, recipe: &Recipe) -> Result<Vec<Trained>, Error> {
    let decays = |parameter: &Parameter| -> Result<bool, Error> {
        let name = parameter.name().to_lowercase();
        Ok(match recipe.decay.as_str() {
            "all" => true,
            "ndim2" => parameter.shape().len() >= 2,
            "no-bias-norm" => !(name.ends_with("bias") || name.contains("norm") || name.contains("ln_")),
            other => return Err(unknown("decay", other, "no-bias-norm, ndim2, all")),
        })
    };
    let of = |parameter: &Parameter| {
        Ok(Trained { parameter: parameter.clone(), rate: 1.0, decays: decays(parameter)? })
    };
    model.parameters().iter().map(of).collect()
}

fn train_options(recipe: &Recipe, n_steps: u64, batch_size: usize) -> Result<TrainOptions, Error> {
    let schedule = Schedule::find(&recipe.schedule).ok_or_else(|| {
        let known: Vec<&str> = crate::schedules::SCHEDULES.iter().map(|s| s.about.name).collect();
        unknown("schedule", &recipe.schedule, &known.join(", "))
    })?;
    let values = rhetor_catalog::Values::of(&schedule.about, given(&recipe.schedule_options))?;
    Ok(TrainOptions {
        n_steps,
        batch_size,
        rows_max: recipe.rows_max,
        rate: Rate { schedule, values, peak: recipe.learning_rate, n_warmup: recipe.n_warmup(n_steps) },
        clip: (recipe.clip > 0.0).then_some(recipe.clip),
        keep: if recipe.recompute { Keep::Blocks } else { Keep::All },
        seed: recipe.seed,
        validate_every: recipe.validate_every,
        save_every: recipe.save_every,
        patience: (recipe.patience > 0).then_some(recipe.patience),
        ema: (recipe.ema > 0.0).then_some(recipe.ema),
    })
}

/// What reading the data gives besides the source.
#[derive(Default)]
struct Loaded {
    tally: Tally,
    notices: Vec<String>,
    n_items: u64,
    digest: String,
}

impl Loaded {
    /// Windows of texts that are tokenized once.
    fn text(&mut self, resolved: &Resolved, objective: Arc<dyn Objective>) -> Result<Box<dyn Source>, Error> {
        let (recipe, tokenizer) = (&resolved.recipe, &*resolved.tokenizer);
        let mask = if recipe.document_mask { DocumentMask::On } else { DocumentMask::Off };
        let pick = match recipe.windows.as_str() {
            "each-once" => Pick::EachOnce,
            "anywhere" => Pick::Anywhere,
            other => return Err(unknown("windows", other, "each-once, anywhere")),
        };
        let cache = resolved.out.join("cache");
        std::fs::create_dir_all(&cache).map_err(Error::io(&cache))?;
        let mut build = |name: String, sources: &[data::Source], read: &data::ReadOptions, part| {
            let before = tokenizer.bos().filter(|_| tokenizer.adds_bos());
            let options = TokenCacheOptions { read: read.clone(), before, after: tokenizer.eos(), part };
            let path = cache.join(name);
            let (file, built) = open_or_build(&path, sources, tokenizer, &options, &mut |_| {
                std::ops::ControlFlow::Continue(())
            })?;
            if let data::Built::New { report, notice } = built {
                self.notices.extend(notice);
                self.notices.push(report.to_string());
            }
            Ok::<_, Error>(file)
        };
        let (mut files, mut n_learnt, mut held_out) = (Vec::new(), Vec::new(), Vec::new());
        let windows = |file: &data::TokenFile, from: u64| -> Vec<Vec<Sequence>> {
            let windows = Windows::new(file, from..file.n_tokens(), recipe.seq_len, mask);
            (0..windows.n()).map(|i| windows.get(i)).collect()
        };
        for (i, (sources, read, weight)) in resolved.data.iter().enumerate() {
            let learnt = match &resolved.validation {
                Validation::Hash(share) => {
                    let part = Some((Part::Validation, *share));
                    held_out
                        .extend(windows(&build(format!("validation-{i}.tokens"), sources, read, part)?, 0));
                    Some((Part::Train, *share))
                }
                _ => None,
            };
            let file = build(format!("train-{i}.tokens"), sources, read, learnt)?;
            let n = match resolved.validation {
                Validation::Tail(share) => split::n_before_tail(file.n_tokens(), share),
                _ => file.n_tokens(),
            };
            if matches!(resolved.validation, Validation::Tail(_)) {
                held_out.extend(windows(&file, n));
            }
            files.push((file, *weight));
            n_learnt.push(n);
        }
        if let Validation::Separate(source) = &resolved.validation {
            let read = data::ReadOptions::default();
            let file = build("validation.tokens".to_string(), std::slice::from_ref(source), &read, None)?;
            held_out.extend(windows(&file, 0));
        }
        thin(&mut held_out, recipe.validation_max);
        self.digest = digest_of(files.iter().map(|(file, _)| file.tokens(0..file.n_tokens())));
        let text = Text::new(files, n_learnt, held_out, recipe.seq_len, mask, pick, recipe.seed, objective)?;
        self.n_items = text.n_windows();
        Ok(Box::new(text))
    }

    /// The rows that are learnt and those that are held out.
    fn read(&mut self, resolved: &Resolved) -> Result<(Vec<Row>, Vec<Row>), Error> {
        let mut rows = Vec::new();
        for (sources, read, weight) in &resolved.data {
            let (read, report) = data::read_all(sources, read)?;
            self.notices.push(report.to_string());
            // A weight of two is every row twice in an epoch.
            for _ in 0..weight.round().max(1.0) as usize {
                rows.extend(read.iter().cloned());
            }
        }
        let mut held_out = Vec::new();
        match &resolved.validation {
            Validation::Off => {}
            Validation::Hash(share) => {
                let is_kept = |row: &Row| part_by_hash(&format!("{row:?}"), *share) == Part::Train;
                (rows, held_out) = rows.into_iter().partition(is_kept);
            }
            Validation::Tail(share) => {
                held_out = rows.split_off(split::n_before_tail(rows.len() as u64, *share) as usize)
            }
            Validation::Separate(source) => {
                let (read, _) = data::read_all(std::slice::from_ref(source), &data::ReadOptions::default())?;
                held_out = read;
            }
        }
        Ok((rows, held_out))
    }

    /// Rows that become examples one by one.
    fn rows(
        &mut self,
        recipe: &Recipe,
        (rows, held_out): (Vec<Row>, Vec<Row>),
        objective: Arc<dyn Objective>,
    ) -> Result<Box<dyn Source>, Error> {
        let examples = objective.examples(&rows, &mut self.tally);
        if examples.is_empty() {
            let reasons: Vec<String> = self
                .tally
                .first
                .iter()
                .map(|(reason, first)| format!("{reason}, such as: {first}"))
                .collect();
            return Err(Error::NoExamples { n_rows: rows.len(), reasons: reasons.join("; ") });
        }
        let mut held_out = objective.examples(&held_out, &mut Tally::default());
        thin(&mut held_out, recipe.validation_max);
        let tokens = |example: &Example| example.sequences.iter().flat_map(|s| s.tokens.clone()).collect();
        self.digest = digest_of(examples.iter().map(tokens));
        let packing = if recipe.packing { Packing::UpTo(recipe.seq_len) } else { Packing::Off };
        let rows = Rows::new(examples, held_out, packing, recipe.seed, objective);
        self.n_items = rows.n_items() as u64;
        Ok(Box::new(rows))
    }
}

/// Leaves about `n_max` items, evenly spread.
fn thin<T>(items: &mut Vec<T>, n_max: usize) {
    if items.len() > n_max {
        let n = items.len();
        let mut i = 0;
        items.retain(|_| {
            i += 1;
            i * n_max / n > (i - 1) * n_max / n
        });
    }
}

/// SHA-256 of the tokens that are learnt, in hex.
fn digest_of(parts: impl Iterator<Item = Vec<u32>>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        part.iter().for_each(|token| hash.update(token.to_le_bytes()));
        hash.update(u32::MAX.to_le_bytes());
    }
    hex(hash)
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names a run: all that its state depends on. What only says when to look or to save may change from run to run, and so
/// may rate and clipping: they are what one lowers after numbers that were not finite.
fn run_digest(resolved: &Resolved, data: &str, n_steps: u64) -> String {
    let recipe = Recipe {
        steps: Some(n_steps),
        name: None,
        summary: None,
        save_every: 0,
        keep: 0,
        best: false,
        save_type: None,
        validate_every: 0,
        patience: 0,
        learning_rate: 0.0,
        clip: 0.0,
        ..resolved.recipe.clone()
    };
    let mut hash = Sha256::new();
    hash.update(serde_json::to_string(&recipe).expect("a recipe is always JSON"));
    hash.update(data);
    hex(hash)
}

/// An example as text: what is learnt stands in brackets.
pub fn show(example: &Example, tokenizer: &Tokenizer) -> String {
    let mut shown = String::new();
    for (i, sequence) in example.sequences.iter().enumerate() {
        if i > 0 {
            shown.push_str("\n----\n");
        }
        if !sequence.source.is_empty() {
            shown.push_str(&tokenizer.decode(&sequence.source, ControlTokens::Show));
            shown.push_str("\n----\n");
        }
        // Row t predicts token t + 1: the first token is never learnt, the last target is no token of the input.
        let mut runs: Vec<(bool, Vec<u32>)> = Vec::new();
        let mut add = |is_learnt: bool, token: u32| match runs.last_mut() {
            Some((same, run)) if *same == is_learnt => run.push(token),
            _ => runs.push((is_learnt, vec![token])),
        };
        let is_shifted = sequence.tokens.len() < 2
            || sequence.targets.iter().zip(&sequence.tokens[1..]).all(|(&t, &x)| t == IGNORE || t == x);
        if is_shifted {
            if let Some(&first) = sequence.tokens.first() {
                add(false, first);
            }
            let after = sequence.tokens.iter().skip(1).chain(sequence.targets.last());
            for (&target, &token) in sequence.targets.iter().zip(after) {
                if token != IGNORE {
                    add(target != IGNORE, token);
                }
            }
        } else {
            for (&target, &token) in sequence.targets.iter().zip(&sequence.tokens) {
                add(target != IGNORE, if target == IGNORE { token } else { target });
            }
        }
        for (is_learnt, run) in runs {
            let text = tokenizer.decode(&run, ControlTokens::Show);
            shown.push_str(&if is_learnt { format!("⟦{text}⟧") } else { text });
        }
    }
    shown
}
