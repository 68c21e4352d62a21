//! From a model's name to something that speaks.

use crate::errors::Failure;
use crate::models;
use crate::range::range;
use crate::session::Session;
use crate::speculation::SpeculationArgs;
pub use rhetor_generate::open::{Opened, base_of, tokenizer_of};
use rhetor_generate::{Engine, EngineOptions};
use rhetor_kernels::kv::KvType;
use std::path::PathBuf;

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

    #[command(flatten)]
    pub speculation: SpeculationArgs,
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
    let opened = open(session, reference, args.context, &args.adapters)?;
    let drafter = args.speculation.drafter(session)?;
    let options =
        EngineOptions { context: args.context, kv: args.kv.into(), drafter, ..EngineOptions::default() };
    let mut engine = opened.speak(reference, options)?;
    if let Some(template) = template {
        engine.set_template(template)?;
    }
    Ok(engine)
}

/// Loads the numbers and the vocabulary of the model that `reference` names, pulling it if it is not here.
///
/// A directory that holds an adapter stands for its base with that adapter; `adapters` are stacked on top.
pub fn open(
    session: &Session,
    reference: &str,
    context: Option<usize>,
    adapters: &[PathBuf],
) -> Result<Opened, Failure> {
    let (base, mut dirs) = base_of(reference)?;
    dirs.extend_from_slice(adapters);
    let found = models::find(session, &base)?;
    let opened = Opened::read(&found.path, &dirs, context)?;
    opened.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    Ok(opened)
}
