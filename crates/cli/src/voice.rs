//! From a model's name to something that speaks.

use crate::errors::Failure;
use crate::models;
use crate::range::range;
use crate::session::Session;
use rhetor_formats::{Checkpoint, Kind};
use rhetor_generate::{Engine, EngineOptions};
use rhetor_kernels::kv::KvType;
use rhetor_models::{LoadOptions, Model};
use rhetor_tokenizer::Tokenizer;

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
    let (model, tokenizer) = load_parts(session, reference, args.context)?;
    let options = EngineOptions { context: args.context, kv: args.kv.into(), ..EngineOptions::default() };
    let mut engine = Engine::new(reference, model, tokenizer, options)?;
    if let Some(template) = template {
        engine.set_template(template)?;
    }
    Ok(engine)
}

/// Loads the numbers and the vocabulary of the model that `reference` names, pulling it if it is not here.
pub fn load_parts(
    session: &Session,
    reference: &str,
    context: Option<usize>,
) -> Result<(Model, Tokenizer), Failure> {
    let found = models::find(session, reference)?;
    let checkpoint = Checkpoint::open(&found.path)?;
    let tokenizer = tokenizer_of(&checkpoint)?;
    let model = Model::load(&checkpoint, LoadOptions { context, ..LoadOptions::default() })?;
    Ok((model, tokenizer))
}

/// The model's vocabulary: inside the file, or beside a GGUF file that has none, as `rhetor convert` leaves it.
pub fn tokenizer_of(checkpoint: &Checkpoint) -> Result<Tokenizer, Failure> {
    let has_none = checkpoint.kind() == Kind::Gguf && !checkpoint.metadata().contains("tokenizer.ggml.model");
    match checkpoint.file("tokenizer.json").filter(|_| has_none) {
        Some(beside) => Ok(Tokenizer::from_file(&beside)?),
        None => Ok(Tokenizer::from_checkpoint(checkpoint)?),
    }
}
