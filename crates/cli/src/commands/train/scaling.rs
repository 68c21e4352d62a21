//! `rhetor train scaling`.

use crate::errors::Failure;
use crate::exit::Exit;
use crate::output;
use crate::recipes;
use crate::session::Session;
use crate::training::{self, Made};
use rhetor_formats::write_bytes;
use rhetor_train::scaling::{Interval, PowerLaw};
use rhetor_train::{Alone, Error, Event, Recipe, Run};
use serde::Serialize;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Train a ladder of small models, fit loss = a compute^b + c, and foretell the next size
///
/// The recipe must begin a new model (`config`). Each model of the ladder is the recipe's with another width: heads, layers and
/// inner width go along with it, the learning rate with the root of its inverse. All see the same data in the same
/// vocabulary, the same number of tokens for each parameter, and a schedule that ends with their run.
/// Parameters are counted without embedding and output layer, which at such sizes would be most of them.
/// --out holds runs.csv, scaling.json, scaling.svg and a folder for each run; what is finished is not run again.
#[derive(Debug, clap::Args)]
pub struct TrainScaling {
    /// Name of a recipe, or a TOML file, with `config`
    recipe: String,

    /// Widths of the ladder, from which the law is fitted
    #[arg(long, value_name = "WIDTHS", value_delimiter = ',', default_value = "16,24,32,48,64")]
    widths: Vec<usize>,

    /// The width that is foretold, then trained and compared; 0 = none
    #[arg(long, value_name = "WIDTH", default_value_t = 96)]
    held_out: usize,

    /// Tokens for each parameter
    #[arg(long, value_name = "N", default_value_t = 20.0)]
    tokens_per_parameter: f64,

    /// Where everything is written
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// One run of the ladder.
#[derive(Debug, Clone, Serialize)]
struct Rung {
    width: usize,
    /// Without embedding and output layer.
    n_parameters: f64,
    n_tokens: f64,
    /// 6 N D.
    compute: f64,
    /// On what is held out, nats per token.
    loss: f64,
}

/// What came out.
#[derive(Debug, Serialize)]
struct Report {
    law: PowerLaw,
    rungs: Vec<Rung>,
    predicted: Option<f64>,
    /// Of the prediction, 95 %.
    interval: Option<Interval>,
    held_out: Option<Rung>,
    /// |predicted − actual| / actual.
    error: Option<f64>,
}

impl TrainScaling {
    pub(super) fn run(self, session: &Session) -> Result<Exit, Failure> {
        if self.widths.len() < 3 {
            return Err(Failure::input("--widths: a law with three unknowns needs three widths or more"));
        }
        let positive = self.tokens_per_parameter.is_finite() && self.tokens_per_parameter > 0.0;
        if !positive {
            return Err(Failure::input("--tokens-per-parameter must be above 0"));
        }
        let mut recipe = Recipe::from_toml(&recipes::text_of(&self.recipe)?)?;
        if recipe.config.is_none() {
            let hint = "a ladder begins each model anew; shakespeare-char is such a recipe";
            return Err(Failure::input("the recipe has no `config`").hint(hint));
        }
        if recipe.validation == "off" {
            return Err(Failure::input("the recipe measures nothing: `validation` is off"));
        }
        std::fs::create_dir_all(&self.out).map_err(Failure::file(&self.out))?;
        recipe.tokenizer = Some(self.vocabulary(session, &recipe)?);
        let mut rungs = Vec::new();
        for &width in &self.widths {
            rungs.push(self.train(session, &recipe, width)?);
            write_bytes(&self.out.join("runs.csv"), table(&rungs).as_bytes())?;
        }
        let points: Vec<(f64, f64)> = rungs.iter().map(|rung| (rung.compute, rung.loss)).collect();
        let law = PowerLaw::fit(&points).ok_or_else(|| {
            Failure::refused("the losses do not fall with compute, so that no law can be fitted")
                .hint("more tokens for each parameter, a longer warm-up, or widths further apart")
        })?;
        eprintln!("loss = {:.4} · compute^{:.4} + {:.4}", law.a, law.b, law.c);
        let mut report = Report { law, rungs, predicted: None, interval: None, held_out: None, error: None };
        if self.held_out > 0 {
            // Foretold and written down before it is trained.
            let plan = self.plan(session, &recipe, self.held_out)?;
            let predicted = law.loss(plan.compute);
            report.predicted = Some(predicted);
            report.interval = PowerLaw::interval(&points, plan.compute, 1000, recipe.seed);
            self.write(&report)?;
            eprintln!("foretold for width {}: {predicted:.4}", self.held_out);
            let actual = self.train(session, &recipe, self.held_out)?;
            report.error = Some((predicted - actual.loss).abs() / actual.loss);
            report.held_out = Some(actual);
        }
        self.write(&report)?;
        self.show(&report)?;
        Ok(Exit::Done)
    }

    /// One vocabulary for all: of the recipe's own data.
    fn vocabulary(&self, session: &Session, recipe: &Recipe) -> Result<String, Failure> {
        let words = recipe.tokenizer.clone().unwrap_or_default();
        let Some(kind) = words.strip_prefix("train ") else { return Ok(words) };
        let file = self.out.join("tokenizer.json");
        if !file.is_file() {
            let part = |part: &rhetor_train::Data| {
                training::find_data(session, part.name()).map(|(sources, read)| (sources, read, 1.0))
            };
            let parts = recipe.data.iter().map(part).collect::<Result<Vec<training::Part>, Failure>>()?;
            training::learn_vocabulary(kind, Vec::new(), &parts)?.save_json(&file)?;
        }
        Ok(file.display().to_string())
    }

    /// A run of this width, before it is trained.
    fn prepare(&self, session: &Session, recipe: &Recipe, width: usize) -> Result<(Run, Rung), Failure> {
        let mut recipe = of_width(recipe, width)?;
        let out = self.out.join(format!("width-{width}"));
        let prepare = |recipe: &Recipe| -> Result<Run, Failure> {
            let made = training::resolve(session, recipe.clone(), &out, Made::Before)?;
            Ok(Run::prepare(made, &Alone)?)
        };
        // How many steps it takes depends on its size, which the model itself says.
        let n_parameters = prepare(&Recipe { steps: Some(1), ..recipe.clone() })?.n_inner_parameters() as f64;
        let step_tokens = (recipe.batch_size * recipe.seq_len) as f64;
        let n_steps = (self.tokens_per_parameter * n_parameters / step_tokens).ceil().max(1.0);
        recipe.steps = Some(n_steps as u64);
        // A tenth of the run at most, or the small ones would do nothing else.
        recipe.warmup = if recipe.warmup < 1.0 { recipe.warmup } else { recipe.warmup.min(n_steps / 10.0) };
        let n_tokens = n_steps * step_tokens;
        let compute = 6.0 * n_parameters * n_tokens;
        Ok((prepare(&recipe)?, Rung { width, n_parameters, n_tokens, compute, loss: f64::NAN }))
    }

    fn plan(&self, session: &Session, recipe: &Recipe, width: usize) -> Result<Rung, Failure> {
        self.prepare(session, recipe, width).map(|(_, rung)| rung)
    }

    fn train(&self, session: &Session, recipe: &Recipe, width: usize) -> Result<Rung, Failure> {
        let (mut run, mut rung) = self.prepare(session, recipe, width)?;
        run.resume()?;
        let n_steps = run.n_steps();
        eprintln!(
            "width {width}: {:.0} parameters, {:.0} tokens, {n_steps} steps",
            rung.n_parameters, rung.n_tokens
        );
        let _stops = crate::interrupt::StopsAnswer::begin();
        let progress = run.go(&Alone, &mut |_, _: Event| -> Result<ControlFlow<()>, Error> {
            let is_over = crate::interrupt::raised();
            Ok(if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if progress.step < n_steps {
            return Err(Failure::interrupted());
        }
        rung.loss = last_loss(&self.out.join(format!("width-{width}/metrics.jsonl")))?;
        eprintln!("width {width}: loss {:.4}", rung.loss);
        Ok(rung)
    }

    fn write(&self, report: &Report) -> Result<(), Failure> {
        let mut rungs = report.rungs.clone();
        rungs.extend(report.held_out.clone());
        write_bytes(&self.out.join("runs.csv"), table(&rungs).as_bytes())?;
        let text = serde_json::to_string_pretty(report).map_err(Failure::refused)? + "\n";
        write_bytes(&self.out.join("scaling.json"), text.as_bytes())?;
        Ok(write_bytes(&self.out.join("scaling.svg"), picture(&report.law, &rungs).as_bytes())?)
    }

    fn show(&self, report: &Report) -> Result<(), Failure> {
        if self.json {
            return output::json(&serde_json::to_value(report).map_err(Failure::refused)?);
        }
        let PowerLaw { a, b, c } = report.law;
        output::line(&format!("law        loss = {a:.4} · compute^{b:.4} + {c:.4}"))?;
        if let (Some(predicted), Some(rung), Some(error)) = (report.predicted, &report.held_out, report.error)
        {
            let range =
                report.interval.map_or(String::new(), |i| format!(" ({:.4} to {:.4})", i.low, i.high));
            output::line(&format!("predicted  {predicted:.4}{range} for width {}", rung.width))?;
            output::line(&format!("actual     {:.4}, {:.1} % off", rung.loss, 100.0 * error))?;
        }
        Ok(())
    }
}

/// The recipe with another width, and all that goes along with it.
fn of_width(recipe: &Recipe, width: usize) -> Result<Recipe, Failure> {
    let mut recipe = recipe.clone();
    let config = recipe.config.get_or_insert_default();
    let missing = |key: &str| Failure::input(format!("the recipe's `config` has no number `{key}`"));
    let first = |keys: &[&'static str]| {
        let found = keys.iter().find_map(|key| Some((*key, config.get(*key)?.as_u64()?)));
        found.ok_or_else(|| missing(keys[0]))
    };
    let (width_key, was) = first(&["hidden_size", "n_embd"])?;
    let (layers_key, n_layers) = first(&["num_hidden_layers", "n_layer"])?;
    let (heads_key, n_heads) = first(&["num_attention_heads", "n_head"])?;
    let ratio = width as f64 / was as f64;
    let head_dim = was / n_heads;
    if width == 0 || !(width as u64).is_multiple_of(head_dim) {
        let message = format!("--widths {width}: heads of this recipe are {head_dim} wide");
        return Err(Failure::input(message).hint("give multiples of that"));
    }
    let new_heads = width as u64 / head_dim;
    let share =
        n_heads / config.get("num_key_value_heads").and_then(|n| n.as_u64()).unwrap_or(n_heads).max(1);
    let mut changes = vec![
        (width_key, width as u64),
        (heads_key, new_heads),
        (layers_key, ((n_layers as f64 * ratio).round() as u64).max(1)),
    ];
    if let Some(inner) = config.get("intermediate_size").and_then(|n| n.as_u64()) {
        changes.push(("intermediate_size", ((inner as f64 * ratio / 8.0).round() as u64).max(1) * 8));
    }
    if config.contains_key("num_key_value_heads") {
        let is_shared = new_heads.is_multiple_of(share);
        changes.push(("num_key_value_heads", if is_shared { new_heads / share } else { new_heads }));
    }
    for (key, value) in changes {
        config.insert(key.to_string(), value.into());
    }
    recipe.learning_rate /= ratio.sqrt();
    (recipe.validate_every, recipe.save_every, recipe.best, recipe.patience) = (0, 0, false, 0);
    Ok(recipe)
}

/// The last measured loss of a run.
fn last_loss(file: &Path) -> Result<f64, Failure> {
    let text = std::fs::read_to_string(file).map_err(Failure::file(file))?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let last = lines
        .filter(|line| line["kind"] == "validation")
        .filter_map(|line| line["loss"].as_f64())
        .next_back();
    last.ok_or_else(|| Failure::refused(format!("{} holds no validation loss", file.display())))
}

fn table(rungs: &[Rung]) -> String {
    let mut text = String::from("width,parameters,tokens,compute,loss\n");
    for Rung { width, n_parameters, n_tokens, compute, loss } in rungs {
        let _ = writeln!(text, "{width},{n_parameters:.0},{n_tokens:.0},{compute:e},{loss}");
    }
    text
}

/// Points and law over the logarithm of compute.
fn picture(law: &PowerLaw, rungs: &[Rung]) -> String {
    let (width, height, margin) = (720.0, 420.0, 60.0);
    let extent = |values: Vec<f64>| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (low - 0.05 * (high - low), high + 0.05 * (high - low).max(1e-9))
    };
    let (left, right) = extent(rungs.iter().map(|rung| rung.compute.log10()).collect());
    let (low, high) = extent(rungs.iter().map(|rung| rung.loss).collect());
    let x = |log: f64| margin + (width - 2.0 * margin) * (log - left) / (right - left);
    let y = |loss: f64| height - margin - (height - 2.0 * margin) * (loss - low) / (high - low);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let curve: Vec<String> = (0..=100)
        .map(|i| left + (right - left) * f64::from(i) / 100.0)
        .map(|log| format!("{:.1},{:.1}", x(log), y(law.loss(10f64.powf(log)))))
        .collect();
    let _ = writeln!(svg, "<polyline fill=\"none\" stroke=\"#9bb8d3\" points=\"{}\"/>", curve.join(" "));
    for rung in rungs {
        let (x, y) = (x(rung.compute.log10()), y(rung.loss));
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"#c0392b\"/><text x=\"{:.1}\" y=\"{:.1}\">{}: \
             {:.3}</text>",
            x + 7.0,
            y - 5.0,
            rung.width,
            rung.loss
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">compute 6 N D, from 10^{left:.1} to 10^{right:.1}</text>\
         <text x=\"14\" y=\"20\">loss, nats: {:.3} · C^{:.4} + {:.3}</text></svg>",
        width / 2.0,
        height - 16.0,
        law.a,
        law.b,
        law.c
    );
    svg
}
