//! `rhetor train`.

mod scaling;
mod tokenizer;

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::output::bytes;
use crate::session::Session;
use crate::training::Made;
use crate::{interrupt, output, recipes, team, training};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rhetor_train::{Alone, Description, Event, Progress, Recipe, StepReport, Team};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Train a model: from random weights, or going on from one
///
/// A recipe says everything about a run; flags of the same names take precedence over it. What is written to --out is a
/// model (or an adapter) that `rhetor chat`, `rhetor convert` and transformers open as it is, with `metrics.jsonl`,
/// `loss.svg` and the receipt `rhetor.json` beside it. A run that was broken off goes on with --resume, to the same bytes.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Train {
    #[command(subcommand)]
    part: Option<Part>,

    /// Name of a recipe, or a TOML file; none if flags say everything
    recipe: Option<String>,

    /// Where everything is written [default: the recipe's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// The model to go on from: a name, a directory, a file
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// What is learnt: names of data sets, files, folders; may be given several times
    #[arg(long, value_name = "DATA")]
    data: Vec<String>,

    /// What is measured: off, hash 5%, tail 10%, or a file
    #[arg(long, value_name = "WHAT")]
    validation: Option<String>,

    /// What is optimised; `rhetor list objectives` shows all
    #[arg(long, value_name = "NAME")]
    objective: Option<String>,

    /// What moves; `rhetor list adapters` shows all
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,

    /// Rank of the adapter
    #[arg(long, value_name = "N")]
    rank: Option<u32>,

    /// The highest learning rate
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,

    /// Updates
    #[arg(long, value_name = "N")]
    steps: Option<u64>,

    /// Passes over the data, if no steps are given
    #[arg(long, value_name = "N")]
    epochs: Option<f64>,

    /// Examples of an update
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,

    /// Tokens of an example at most
    #[arg(long, value_name = "N")]
    seq_len: Option<usize>,

    /// f32, or bf16 for products in bfloat16
    #[arg(long, value_name = "TYPE")]
    precision: Option<String>,

    /// Seed of everything random
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Any key of a recipe, as in `--set optimizer=lion` or `--set optimizer-options.beta1=0.95`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,

    /// Go on from the newest checkpoint in --out
    #[arg(long)]
    resume: bool,

    /// Say what would be done, and show the first example with what is learnt in ⟦brackets⟧
    #[arg(long)]
    dry_run: bool,

    /// Print the recipe with all its values and stop
    #[arg(long)]
    show_recipe: bool,

    /// Report each step as a line of JSON on stdout
    #[arg(long)]
    json: bool,
}

/// What is trained besides models.
#[derive(Debug, clap::Subcommand)]
enum Part {
    Tokenizer(tokenizer::TrainTokenizer),
    Scaling(scaling::TrainScaling),
}

impl Run for Train {
    const NAME: &str = "train";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        session.start_threads()?;
        match self.part {
            Some(Part::Tokenizer(part)) => return part.run(session),
            Some(Part::Scaling(part)) => return part.run(session),
            None => {}
        }
        let recipe = self.recipe()?;
        if self.show_recipe {
            let text = toml::to_string(&recipe).map_err(Failure::refused)?;
            output::line(text.trim_end())?;
            return Ok(Exit::Done);
        }
        let out = match (&self.out, &recipe.name) {
            (Some(out), _) => out.clone(),
            (None, Some(name)) => PathBuf::from(name),
            (None, None) => return Err(Failure::input("--out DIR must say where the model is written")),
        };
        let has_run = out.join("checkpoints").is_dir() || out.join("rhetor.json").is_file();
        if has_run && !self.resume && !self.dry_run {
            let hint = "--resume goes on with it; another --out begins anew";
            return Err(Failure::input(format!("{} holds a run already", out.display())).hint(hint));
        }
        if self.dry_run {
            // What has to be made to know more, a vocabulary and random weights, is made elsewhere.
            let elsewhere = tempfile::tempdir().map_err(Failure::refused)?;
            let resolved = training::resolve(session, recipe, elsewhere.path(), Made::Anew)?;
            let run = rhetor_train::Run::prepare(resolved, &Alone)?;
            return self.train(run, &Alone, elsewhere.path());
        }
        team::run(|team| {
            let is_first = team.rank() == 0;
            // What must be made, the first process makes; the others wait for it and read it.
            if !is_first {
                team.sum_f64(&mut [0.0]);
            }
            let made = if self.resume || !is_first { Made::Before } else { Made::Anew };
            let resolved = training::resolve(session, recipe, &out, made)?;
            let run = rhetor_train::Run::prepare(resolved, team)?;
            if is_first {
                team.sum_f64(&mut [0.0]);
            }
            self.train(run, team, &out)
        })
    }
}

impl Train {
    /// The recipe with the flags on top.
    fn recipe(&self) -> Result<Recipe, Failure> {
        let text = self.recipe.as_deref().map(recipes::text_of).transpose()?.unwrap_or_default();
        let mut table: toml::Table = text.parse().map_err(Failure::input)?;
        let mut set = |key: &str, value: Option<toml::Value>| {
            if let Some(value) = value {
                table.insert(key.to_string(), value);
            }
        };
        let text = |value: &Option<String>| value.clone().map(toml::Value::String);
        let whole = |value: Option<u64>| value.map(|value| toml::Value::Integer(value as i64));
        set("model", text(&self.model));
        let data: Vec<toml::Value> = self.data.iter().cloned().map(toml::Value::String).collect();
        set("data", (!data.is_empty()).then_some(toml::Value::Array(data)));
        set("validation", text(&self.validation));
        set("objective", text(&self.objective));
        set("adapter", text(&self.adapter));
        set("learning-rate", self.learning_rate.map(toml::Value::Float));
        set("steps", whole(self.steps));
        set("epochs", self.epochs.map(toml::Value::Float));
        set("batch-size", whole(self.batch_size.map(|n| n as u64)));
        set("seq-len", whole(self.seq_len.map(|n| n as u64)));
        set("precision", text(&self.precision));
        set("seed", whole(self.seed));
        for setting in &self.settings {
            self.apply(setting, &mut table)?;
        }
        if let Some(rank) = self.rank {
            let options = table.entry("adapter-options").or_insert_with(|| toml::Table::new().into());
            if let Some(options) = options.as_table_mut() {
                options.insert("rank".to_string(), toml::Value::Float(f64::from(rank)));
            }
        }
        // Whole numbers stand for numbers wherever a recipe wants those.
        Ok(Recipe::from_toml(&table.to_string())?)
    }

    /// `KEY=VALUE` or `TABLE.KEY=VALUE`.
    fn apply(&self, setting: &str, table: &mut toml::Table) -> Result<(), Failure> {
        let wrong = || Failure::input(format!("--set {setting}: it must be KEY=VALUE"));
        let (key, value) = setting.split_once('=').ok_or_else(wrong)?;
        let parsed = format!("value = {value}").parse::<toml::Table>();
        let value = match parsed {
            Ok(mut parsed) => parsed.remove("value").ok_or_else(wrong)?,
            Err(_) => toml::Value::String(value.to_string()),
        };
        let (mut table, mut key) = (table, key);
        while let Some((outer, inner)) = key.split_once('.') {
            let entry = table.entry(outer).or_insert_with(|| toml::Table::new().into());
            table = entry.as_table_mut().ok_or_else(wrong)?;
            key = inner;
        }
        table.insert(key.to_string(), value);
        Ok(())
    }

    fn train(&self, mut run: rhetor_train::Run, team: &dyn Team, out: &Path) -> Result<Exit, Failure> {
        let is_first = team.rank() == 0;
        if is_first {
            for notice in &run.notices {
                eprintln!("{notice}");
            }
            for (reason, n) in &run.tally.skipped {
                eprintln!("{n} rows left out: {reason}, such as: {}", run.tally.first[reason]);
            }
        }
        let description = run.describe()?;
        if self.dry_run {
            return show(&description, self.json);
        }
        if self.resume {
            let step = run.resume()?;
            if is_first {
                eprintln!("going on after step {step} of {}", run.n_steps());
            }
        }
        let n_steps = run.n_steps();
        if is_first {
            eprintln!(
                "training {} of {} parameters for {n_steps} steps",
                count(description.n_trained),
                count(description.n_parameters.max(description.n_trained)),
            );
        }
        let mut screen = Screen::new(n_steps, run.progress().step, self.json, is_first);
        let _stops = interrupt::StopsAnswer::begin();
        let mut was_stopped = false;
        let progress = run.go(team, &mut |progress: &Progress, event: Event| {
            screen.show(progress, &event);
            // All stop after the same step, or none.
            let mut wishes = [f64::from(u8::from(interrupt::raised()))];
            team.sum_f64(&mut wishes);
            was_stopped = wishes[0] > 0.0;
            Ok(if was_stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        screen.bar.finish_and_clear();
        if was_stopped && progress.step < n_steps {
            if is_first {
                eprintln!("stopped after step {}; --resume goes on", progress.step);
            }
            return Ok(Exit::Interrupted);
        }
        if is_first {
            match progress.best {
                Some((loss, step)) => eprintln!("lowest validation loss {loss:.4} at step {step}"),
                None => eprintln!("{} steps", progress.step),
            }
            if !self.json {
                output::line(&out.display().to_string())?;
            }
        }
        Ok(Exit::Done)
    }
}

/// What is seen while training.
struct Screen {
    bar: ProgressBar,
    is_json: bool,
    is_first: bool,
    /// Tokens and time since the bar was drawn last.
    since: (u64, Instant),
    speed: f64,
    validation: Option<f64>,
}

impl Screen {
    fn new(n_steps: u64, step: u64, is_json: bool, is_first: bool) -> Screen {
        let target = if is_first { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(n_steps), target);
        let style = ProgressStyle::with_template("{pos}/{len} {wide_bar} {msg} {eta}");
        bar.set_style(style.expect("the template is a constant").progress_chars("=> "));
        bar.set_position(step);
        bar.reset_eta();
        Screen { bar, is_json, is_first, since: (0, Instant::now()), speed: 0.0, validation: None }
    }

    fn show(&mut self, progress: &Progress, event: &Event) {
        if !self.is_first {
            return;
        }
        match event {
            Event::Step(report) => self.step(progress, report),
            Event::Validated(validation) => {
                self.validation = Some(validation.loss);
                let line = format!("step {}: validation loss {:.4}", validation.step, validation.loss);
                if self.bar.is_hidden() {
                    eprintln!("{line}")
                } else {
                    self.bar.println(line)
                }
                if self.is_json {
                    // A reader that went away ends nothing: the model is what counts.
                    let _ = output::line(&serde_json::json!({ "validation": validation }).to_string());
                }
            }
        }
    }

    fn step(&mut self, progress: &Progress, report: &StepReport) {
        if self.is_json {
            let _ = output::line(&serde_json::json!({ "step": report }).to_string());
        }
        let seconds = self.since.1.elapsed().as_secs_f64();
        if seconds > 0.5 {
            self.speed = (progress.n_tokens - self.since.0.min(progress.n_tokens)) as f64 / seconds;
            self.since = (progress.n_tokens, Instant::now());
        }
        let validation = self.validation.map_or(String::new(), |loss| format!(" validation {loss:.4}"));
        self.bar.set_message(format!(
            "loss {:.4}{validation} lr {:.2e} {} tokens/s",
            report.loss,
            report.learning_rate,
            count(self.speed as usize)
        ));
        self.bar.set_position(report.step);
    }
}

/// Prints what a run will be.
fn show(description: &Description, is_json: bool) -> Result<Exit, Failure> {
    if is_json {
        output::json(&serde_json::to_value(description).map_err(Failure::refused)?)?;
        return Ok(Exit::Done);
    }
    let Description { n_parameters, n_trained, bytes: b, n_steps, batch_size, step_tokens, .. } = description;
    let total = b.weights + b.gradients + b.optimizer + b.activations;
    // Two cores at half of what a core of 3 GHz with 512-bit registers can do; the first steps tell better.
    let threads = rhetor_kernels::threads::threads() as f64;
    let seconds = description.step_flops * *n_steps as f64 / (threads * 1.2e11);
    output::line(&format!(
        "parameters  {} in the model, {} trained",
        count(*n_parameters),
        count(*n_trained)
    ))?;
    output::line(&format!(
        "memory      {} (weights {}, gradients {}, optimizer {}, activations {})",
        bytes(total as u64),
        bytes(b.weights as u64),
        bytes(b.gradients as u64),
        bytes(b.optimizer as u64),
        bytes(b.activations as u64)
    ))?;
    output::line(&format!(
        "steps       {n_steps} of {batch_size} examples, about {step_tokens} tokens each"
    ))?;
    output::line(&format!("time        about {}, if a core gives 120 GFLOP/s", duration(seconds)))?;
    output::line(&format!("validation  {} examples", description.n_validation))?;
    output::line(&format!("first example, what is learnt in ⟦brackets⟧:\n{}", description.first))?;
    Ok(Exit::Done)
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// 808320 as 808k.
fn count(n: usize) -> String {
    match n as f64 {
        x if x < 1e4 => format!("{n}"),
        x if x < 1e6 => format!("{:.0}k", x / 1e3),
        x if x < 1e9 => format!("{:.1}M", x / 1e6),
        x => format!("{:.2}B", x / 1e9),
    }
}
