//! `rhetor estimate`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::machine;
use crate::manual;
use crate::output::{self, bytes, count};
use crate::range::range;
use crate::session::Session;
use rhetor_formats::{Checkpoint, Kind};
use rhetor_kernels::kv::{KvType, PAGE_LEN};
use rhetor_models::estimate::{Estimate, Machine, Step, TrainingBytes, Wall};
use rhetor_models::presets::PRESETS;
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Batch, Family, KvCache, LoadOptions, Model, SequenceSpan};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// Tell what a model costs before it is loaded: parameters, memory, operations, and the wall that binds
///
/// Bytes are those that this program would hold. Times are bounds that no program can beat: a token reads every weight
/// and all keys and values once, a prompt does two operations for each parameter and token. They are printed where
/// --bandwidth and --flops say what the machine does, or --measure finds out.
#[derive(Debug, clap::Args)]
#[command(name = "estimate")]
pub struct EstimateArgs {
    /// A model, a `config.json`, or the name of a published checkpoint such as llama-2-7b
    model: String,

    /// Tokens of a sequence [default: 4096, or the model's context if that is less]
    #[arg(long, value_name = "N", value_parser = range(1usize, 1 << 30))]
    context: Option<usize>,

    /// Sequences at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = range(1usize, 1 << 20))]
    batch: usize,

    /// Type of the weights, such as f16 or q4_k_m [default: that of the file, or f16]
    #[arg(long, value_name = "TYPE", value_parser = mix)]
    dtype: Option<Mix>,

    /// Type of keys and values: f16, f32, q8_0
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = kv)]
    kv: KvType,

    /// Also what training takes: of all weights, or of LoRA at the matrices of attention
    #[arg(long, value_name = "WHAT", value_parser = ["full", "lora"])]
    train: Option<String>,

    /// Rank of --train lora
    #[arg(long, value_name = "R", default_value_t = 16, value_parser = range(1usize, 4096))]
    rank: usize,

    /// What memory gives, in GB/s
    #[arg(long, value_name = "GB/s", value_parser = range(1e-3, 1e9), requires = "flops")]
    bandwidth: Option<f64>,

    /// What the processor does, in GFLOP/s
    #[arg(long, value_name = "GFLOP/s", value_parser = range(1e-3, 1e12), requires = "bandwidth")]
    flops: Option<f64>,

    /// Measure both on this machine for a moment; of a model with weights also how fast it generates
    #[arg(long)]
    measure: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn mix(text: &str) -> Result<Mix, String> {
    let names = || Mix::all().map(Mix::name).collect::<Vec<_>>().join(", ");
    Mix::from_name(text).ok_or_else(|| format!("there are {}", names()))
}

fn kv(text: &str) -> Result<KvType, String> {
    let name = if text == "q8_0" { "q8" } else { text };
    KvType::from_name(name).ok_or_else(|| "there are f16, f32 and q8_0".to_string())
}

impl Run for EstimateArgs {
    const NAME: &str = "estimate";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let folder = tempfile::tempdir()?;
        let checkpoint = open(session, &self.model, folder.path())?;
        let (family, mut config) = (Family::of(&checkpoint)?, Model::config_of(&checkpoint)?);
        // GGUF leaves the output layer out exactly when it is tied.
        config.tied |= checkpoint.kind() == Kind::Gguf && checkpoint.find("output.weight").is_none();
        let estimate = Estimate { family, config: &config };
        let context = self.context.unwrap_or(config.context_len.min(4096));
        let has_weights = !checkpoint.tensors().is_empty();
        let weight_bytes = match self.dtype {
            None if has_weights => checkpoint.tensors().iter().map(|tensor| tensor.n_bytes as u64).sum(),
            dtype => estimate.weight_bytes(dtype.unwrap_or(Mix::F16)),
        };
        let kv_bytes = self.batch as u64 * estimate.kv_bytes(self.kv, context);
        let windowed = self.batch as u64 * estimate.windowed_kv_bytes(self.kv, context);
        let type_name = self.dtype.map_or(if has_weights { "as stored" } else { "f16" }, Mix::name);
        let (n, n_active) = (estimate.n_parameters(), estimate.n_active());

        let mut lines = vec![
            line("family", family.about.name.into(), json!(family.about.name)),
            line("parameters", format!("{n} ({})", count(n)), json!(n)),
        ];
        if n_active != n {
            lines.push(line(
                "active parameters",
                format!("{n_active} ({})", count(n_active)),
                json!(n_active),
            ));
        }
        lines.push(sized(&format!("weights, {type_name}"), "weight_bytes", weight_bytes));
        let of_context = format!("keys and values, {}, {} x {context} tokens", self.kv.name(), self.batch);
        lines.push(sized(&of_context, "kv_bytes", kv_bytes));
        if windowed < kv_bytes {
            lines.push(sized("  of those inside the windows", "kv_bytes_in_windows", windowed));
        }
        lines.push(sized("weights, keys and values", "run_bytes", weight_bytes + kv_bytes));
        if let Some(what) = &self.train {
            self.training(&estimate, what, weight_bytes, context, &mut lines);
        }
        let forward = estimate.forward_flops(context - 1);
        lines.push(line("operations for a token at that length", flops(forward), json!(forward)));
        let training = estimate.training_flops(context);
        lines.push(line("operations of training on a token", flops(training), json!(training)));

        let decode = estimate.decode(weight_bytes, self.kv, context, self.batch);
        let prefill = estimate.prefill(weight_bytes, self.kv, context);
        let intensity = |name: &str, step: &Step| {
            line(name, format!("{:.2} operations for a byte", step.intensity()), json!(step.intensity()))
        };
        lines.push(intensity("intensity of generating", &decode));
        lines.push(intensity("intensity of reading a prompt", &prefill));
        let given = self.bandwidth.zip(self.flops);
        let given = given.map(|(gb, gflop)| Machine { bandwidth: gb * 1e9, flops: gflop * 1e9 });
        if let Some(machine) = &given {
            self.walls("given machine", machine, &decode, &prefill, &mut lines);
        }
        if self.measure {
            session.start_threads()?;
            let n_threads = session.n_threads();
            let (read, copy) = (machine::read_bandwidth(n_threads), machine::copy_bandwidth(n_threads));
            let here = Machine { bandwidth: read, flops: machine::gemm_flops() };
            let rate = |value: f64| format!("{}/s", bytes(value as u64));
            lines.push(line("measured reading of memory", rate(read), json!(read)));
            lines.push(line("measured copying in memory", rate(copy), json!(copy)));
            lines.push(line("measured product of matrices", flops(here.flops) + "/s", json!(here.flops)));
            self.walls("this machine", &here, &decode, &prefill, &mut lines);
            if has_weights {
                let model = Model::load(&checkpoint, LoadOptions::default())?;
                if model.generates() && !config.has_encoder() {
                    let speed = generating(&model, self.kv);
                    let bound = 1.0 / estimate.decode(weight_bytes, self.kv, PAGE_LEN, 1).seconds(&here);
                    let text = format!("{speed:.1} tokens/s in a short context, of at most {bound:.1}");
                    lines.push(line("measured generating", text, json!(speed)));
                }
            }
        }
        if self.json {
            let pairs = lines.into_iter().map(|(name, _, value)| (key(&name), value));
            return output::json(&Value::Object(pairs.collect())).map(|()| Exit::Done);
        }
        let rows: Vec<Vec<String>> =
            lines.into_iter().map(|(name, text, _)| vec![shown(&name), text]).collect();
        output::table(&rows)?;
        Ok(Exit::Done)
    }
}

/// A line: what it is called (for people, and after `|` in JSON if that differs), for people, in JSON.
type Line = (String, String, Value);

fn line(name: &str, text: String, value: Value) -> Line {
    (name.to_string(), text, value)
}

fn sized(name: &str, key: &str, n_bytes: u64) -> Line {
    (format!("{name}|{key}"), format!("{n_bytes} B ({})", bytes(n_bytes)), json!(n_bytes))
}

fn shown(name: &str) -> String {
    name.split('|').next().unwrap_or_default().to_string()
}

fn key(name: &str) -> String {
    name.rsplit('|').next().unwrap_or_default().replace(' ', "_")
}

fn flops(value: f64) -> String {
    match value {
        x if x >= 1e12 => format!("{:.2} TFLOP", x / 1e12),
        x if x >= 1e9 => format!("{:.2} GFLOP", x / 1e9),
        x => format!("{:.2} MFLOP", x / 1e6),
    }
}

impl EstimateArgs {
    /// What training takes here, and in 16-bit mixed precision elsewhere.
    fn training(
        &self,
        estimate: &Estimate,
        what: &str,
        weight_bytes: u64,
        context: usize,
        lines: &mut Vec<Line>,
    ) {
        let TrainingBytes { weights, gradients, optimizer } = match what {
            "full" => estimate.full_training(),
            _ => estimate.lora_training(self.rank, weight_bytes),
        };
        if what == "lora" {
            let n = estimate.n_lora(self.rank);
            lines.push(line(&format!("trained by LoRA of rank {}|trained", self.rank), count(n), json!(n)));
        }
        lines.push(sized("training: weights, f32 where trained", "training_weight_bytes", weights));
        lines.push(sized("training: gradients, f32", "training_gradient_bytes", gradients));
        lines.push(sized("training: AdamW's moments, f32", "training_optimizer_bytes", optimizer));
        let n_rows = self.batch * context;
        let all = estimate.activations_here(n_rows, false);
        lines.push(sized("training: activations, f32", "training_activation_bytes", all));
        let few = estimate.activations_here(n_rows, true);
        lines.push(sized("  if blocks are computed again", "training_activation_bytes_recomputed", few));
        let all = estimate.activations_16_bit(context, self.batch, false) as u64;
        lines.push(sized("elsewhere in 16 bits: activations", "reference_activation_bytes", all));
        let few = estimate.activations_16_bit(context, self.batch, true) as u64;
        lines.push(sized("  if blocks are computed again", "reference_activation_bytes_recomputed", few));
        if what == "full" {
            let n = estimate.n_parameters();
            let text = format!("{} to {} (16 to 18 B a parameter)", bytes(16 * n), bytes(18 * n));
            lines.push(line(
                "elsewhere in 16 bits: all but activations|reference_bytes",
                text,
                json!([16 * n, 18 * n]),
            ));
        }
    }

    /// The bounds on a machine.
    fn walls(&self, name: &str, machine: &Machine, decode: &Step, prefill: &Step, lines: &mut Vec<Line>) {
        let wall = |step: &Step| match step.wall(machine) {
            Wall::Memory => "memory binds",
            Wall::Compute => "operations bind",
        };
        let balance = machine.flops / machine.bandwidth;
        lines.push(line(
            &format!("{name}: busy from|{}_balance", key(name)),
            format!("{balance:.1} operations for a byte"),
            json!(balance),
        ));
        let seconds = decode.seconds(machine);
        let speed = self.batch as f64 / seconds;
        lines.push(line(
            &format!("{name}: generating at most|{}_decode", key(name)),
            format!("{speed:.2} tokens/s, {:.2} ms a step; {}", 1e3 * seconds, wall(decode)),
            json!({ "tokens_per_second": speed, "seconds": seconds, "wall": wall(decode) }),
        ));
        let seconds = prefill.seconds(machine);
        lines.push(line(
            &format!("{name}: reading the prompt at least|{}_prefill", key(name)),
            format!("{seconds:.3} s; {}", wall(prefill)),
            json!({ "seconds": seconds, "wall": wall(prefill) }),
        ));
    }
}

/// The checkpoint of a model, or one without tensors for a configuration.
fn open(session: &Session, name: &str, folder: &Path) -> Result<Checkpoint, Failure> {
    let path = Path::new(name);
    let text = match PRESETS.iter().find(|known| known.name.eq_ignore_ascii_case(name) && !path.exists()) {
        Some(preset) => preset.text(),
        None if path.extension().is_some_and(|extension| extension == "json") => {
            std::fs::read_to_string(path).map_err(Failure::file(path))?
        }
        None => {
            let names = || PRESETS.iter().map(|preset| &*preset.name).collect::<Vec<_>>().join(", ");
            let found = session.store.resolve(name);
            let found =
                found.map_err(|e| Failure::from(e).hint(format!("known without files: {}", names())))?;
            return Ok(Checkpoint::open(&found)?);
        }
    };
    Ok(manual::without_weights(&text, folder)?)
}

/// Tokens a second of one sequence, by the best of a few steps.
fn generating(model: &Model, kv: KvType) -> f64 {
    let n_tokens = model.config().context_len.min(PAGE_LEN);
    let mut cache = KvCache::new(model.config(), kv, 1);
    let steps = (0..n_tokens).map(|start| {
        let span = SequenceSpan { pages: vec![0], start, len: 1, ..SequenceSpan::default() };
        let token = (start % model.config().vocab_size) as u32;
        let batch = Batch { tokens: vec![token], spans: vec![span], outputs: vec![0], ..Batch::default() };
        let begin = Instant::now();
        std::hint::black_box(model.forward(&batch, Some(&mut cache)));
        begin.elapsed().as_secs_f64()
    });
    1.0 / steps.fold(f64::INFINITY, f64::min)
}
