//! From a model's name to something that speaks.

use crate::errors::Failure;
use crate::models;
use crate::range::range;
use crate::session::Session;
use rhetor_formats::{Checkpoint, Kind};
use rhetor_generate::{Engine, EngineOptions};
use rhetor_kernels::kv::KvType;
use rhetor_models::adapters::{Purpose, peft};
use rhetor_models::{LoadOptions, Model};
use rhetor_tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

/// How a model is loaded.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Model options")]
pub struct VoiceArgs {
    /// Tokens of the context [default: what the model was made for]
    #[arg(long, value_name = "N", value_parser = range(1usize, 1 << 30))]
    pub context: Option<usize>,

    /// How keys and values are kept
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    pub kv: KvArg,

    /// An adapter over the model, as PEFT or `rhetor train` leaves it; repeat it to stack several
    #[arg(long = "adapter", value_name = "DIR")]
    pub adapters: Vec<PathBuf>,
}

/// [`KvType`] as the person types it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KvArg {
    /// Half precision
    F16,
    /// 8 bits and a scale: half the memory
    Q8,
    /// Full precision: twice the memory
    F32,
}

impl From<KvArg> for KvType {
    fn from(arg: KvArg) -> KvType {
        match arg {
            KvArg::F16 => KvType::F16,
            KvArg::Q8 => KvType::Q8,
            KvArg::F32 => KvType::F32,
        }
    }
}

/// Loads the model that `reference` names, pulling it if it is not here. `template` replaces its chat template.
pub fn load(
    session: &Session,
    reference: &str,
    args: &VoiceArgs,
    template: Option<&str>,
) -> Result<Engine, Failure> {
    session.start_threads()?;
    let Parts { model, tokenizer, adapters } = load_parts(session, reference, args.context, &args.adapters)?;
    let kv = args.kv.into();
    let options = EngineOptions { context: args.context, kv, adapters, ..EngineOptions::default() };
    let mut engine = Engine::new(reference, model, tokenizer, options)?;
    if let Some(template) = template {
        engine.set_template(template)?;
    }
    Ok(engine)
}

/// What a voice is made of.
pub struct Parts {
    /// The numbers, with adapters attached.
    pub model: Model,
    /// The vocabulary.
    pub tokenizer: Tokenizer,
    /// The names of the adapters, by number.
    pub adapters: Vec<String>,
}

/// Loads the numbers and the vocabulary of the model that `reference` names, pulling it if it is not here.
///
/// A directory that holds an adapter stands for its base with that adapter; `adapters` are stacked on top.
pub fn load_parts(
    session: &Session,
    reference: &str,
    context: Option<usize>,
    adapters: &[PathBuf],
) -> Result<Parts, Failure> {
    let (base, mut dirs) = base_of(reference)?;
    dirs.extend_from_slice(adapters);
    let mut opened = Vec::with_capacity(dirs.len());
    for dir in &dirs {
        let adapter = peft::open(dir, Purpose::Inference).map_err(Failure::input)?;
        adapter.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        opened.push(adapter.adapter);
    }
    let found = models::find(session, &base)?;
    let checkpoint = Checkpoint::open(&found.path)?;
    // A vocabulary beside the adapter is the one that it was trained with.
    let beside = dirs.iter().rev().map(|dir| dir.join("tokenizer.json")).find(|file| file.is_file());
    let tokenizer = match beside {
        Some(file) => Tokenizer::from_file(&file)?,
        None => tokenizer_of(&checkpoint)?,
    };
    let options = LoadOptions { context, ..LoadOptions::default() };
    let model = Model::load_adapted(&checkpoint, options, &mut opened)?;
    let name = |dir: &PathBuf| dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
    Ok(Parts { model, tokenizer, adapters: dirs.iter().map(name).collect() })
}

/// The base that `reference` stands for, and the adapters between it and `reference`, the base's own first.
pub fn base_of(reference: &str) -> Result<(String, Vec<PathBuf>), Failure> {
    let (mut base, mut dirs) = (reference.to_string(), Vec::new());
    while peft::is_adapter(Path::new(&base)) {
        let dir = PathBuf::from(&base);
        if dirs.contains(&dir) {
            return Err(Failure::input(format!("{}: the adapter names itself as its base", dir.display())));
        }
        let Some(named) = peft::base_of(&dir).map_err(Failure::input)? else {
            let message = format!("{}: the adapter does not say which model it belongs to", dir.display());
            return Err(Failure::input(message));
        };
        // A path as it stands, one from the adapter's own place, or a name of the store.
        let beside = dir.join(&named);
        let is_path = !Path::new(&named).exists() && beside.exists();
        base = if is_path { beside.to_string_lossy().into_owned() } else { named };
        dirs.insert(0, dir);
    }
    Ok((base, dirs))
}

/// The model's vocabulary: inside the file, or beside a GGUF file that has none, as `rhetor convert` leaves it.
pub fn tokenizer_of(checkpoint: &Checkpoint) -> Result<Tokenizer, Failure> {
    let has_none = checkpoint.kind() == Kind::Gguf && !checkpoint.metadata().contains("tokenizer.ggml.model");
    match checkpoint.file("tokenizer.json").filter(|_| has_none) {
        Some(beside) => Ok(Tokenizer::from_file(&beside)?),
        None => Ok(Tokenizer::from_checkpoint(checkpoint)?),
    }
}
