//! `rhetor adapter`.

use super::{Run, write_vocabulary};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::session::Session;
use crate::{models, output, voice};
use rhetor_formats::{Checkpoint, Kind};
use rhetor_kernels::DType;
use rhetor_models::adapters::{Adapter, Purpose, merge, peft};
use rhetor_models::convert;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Look at adapters, and merge them into their models
#[derive(Debug, clap::Args)]
pub struct AdapterArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write a model that needs its adapter no more
    ///
    /// DST that ends in .gguf becomes a GGUF file of the base's own types (the base must be one), anything else a Hugging
    /// Face directory.
    Merge {
        /// The adapter's directory
        #[arg(value_name = "ADAPTER")]
        adapter: PathBuf,

        /// The file or directory to write
        #[arg(value_name = "DST")]
        destination: PathBuf,

        /// The model it belongs to [default: the one that the adapter names]
        #[arg(long, value_name = "MODEL")]
        base: Option<String>,

        /// Type of the weights in a directory: f32, bf16 or f16
        #[arg(long = "type", value_name = "TYPE", default_value = "f32")]
        dtype: String,

        /// Replace DST if it exists
        #[arg(long)]
        force: bool,
    },
    /// Say what adapters there are in a folder
    List {
        /// The folder; each adapter is a folder in it
        #[arg(value_name = "DIR", default_value = ".")]
        folder: PathBuf,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what an adapter is: method, base, tensors
    Show {
        /// The adapter's directory
        #[arg(value_name = "ADAPTER")]
        adapter: PathBuf,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Run for AdapterArgs {
    const NAME: &str = "adapter";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        match self.action {
            Action::Merge { adapter, destination, base, dtype, force } => {
                session.start_threads()?;
                if destination.exists() && !force {
                    let failure = Failure::input(format!("{} exists already", destination.display()));
                    return Err(failure.hint("--force replaces it"));
                }
                let base = match base {
                    Some(base) => base,
                    None => base_of(&adapter)?,
                };
                merge_into(session, &adapter, &base, &destination, &dtype)
            }
            Action::List { folder, json } => list(&folder, json),
            Action::Show { adapter, json } => show(&adapter, json),
        }
    }
}

fn base_of(adapter: &Path) -> Result<String, Failure> {
    let (base, dirs) = voice::base_of(&adapter.to_string_lossy())?;
    match dirs.len() {
        0 => Err(Failure::input(format!("{} holds no adapter", adapter.display()))),
        1 => Ok(base),
        _ => Err(Failure::input(format!(
            "{} stands on another adapter: merge that one first",
            adapter.display()
        ))),
    }
}

fn merge_into(
    session: &Session,
    adapter: &Path,
    base: &str,
    destination: &Path,
    dtype: &str,
) -> Result<Exit, Failure> {
    let to_gguf = destination.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    let found = models::find(session, base)?;
    let mut checkpoint = Checkpoint::open(&found.path)?;
    let opened = peft::open(adapter, Purpose::Inference).map_err(Failure::input)?;
    opened.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let mut adapters: Vec<Box<dyn Adapter>> = vec![opened.adapter];
    let merged = if to_gguf {
        merge::to_gguf(&checkpoint, &mut adapters, destination).map_err(Failure::input)?
    } else {
        let dtype = match dtype {
            "f32" => DType::F32,
            "bf16" => DType::BF16,
            "f16" => DType::F16,
            other => return Err(Failure::input(format!("--type {other}: it must be f32, bf16 or f16"))),
        };
        // A GGUF base is written as a directory first.
        let folder;
        if checkpoint.kind() == Kind::Gguf {
            folder = tempfile::tempdir().map_err(Failure::from)?;
            convert::to_hugging_face(&checkpoint, folder.path(), DType::F32, &mut |_| {})?;
            write_vocabulary(&checkpoint, folder.path())?;
            checkpoint = Checkpoint::open(folder.path())?;
        }
        merge::to_hugging_face(&checkpoint, &mut adapters, destination, dtype).map_err(Failure::input)?
    };
    eprintln!(
        "{} tensors changed; stored, they differ from the exact sum by at most {:.2e} ({})",
        merged.n_changed, merged.error_max, merged.error_of
    );
    output::line(&destination.display().to_string())?;
    Ok(Exit::Done)
}

/// What an adapter says about itself.
fn describe(dir: &Path) -> Result<serde_json::Value, Failure> {
    let opened = peft::open(dir, Purpose::Inference).map_err(Failure::input)?;
    let tensors = Checkpoint::open(&dir.join(peft::TENSORS))?;
    let n_parameters: usize =
        tensors.tensors().iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let shapes: Vec<serde_json::Value> = (tensors.tensors().iter())
        .map(|tensor| json!({ "name": tensor.name, "shape": tensor.shape, "type": tensor.dtype.name() }))
        .collect();
    Ok(json!({
        "path": dir,
        "method": opened.adapter.about().name,
        "base": opened.base,
        "task": opened.task,
        "parameters": n_parameters,
        "warnings": opened.warnings,
        "tensors": shapes,
    }))
}

fn list(folder: &Path, is_json: bool) -> Result<Exit, Failure> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(Failure::file(folder))?;
    let mut dirs: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    dirs.push(folder.to_path_buf());
    dirs.sort();
    for dir in dirs.into_iter().filter(|dir| peft::is_adapter(dir)) {
        found.push(describe(&dir)?);
    }
    if is_json {
        output::json(&json!(found))?;
        return Ok(Exit::Done);
    }
    for adapter in &found {
        output::line(&line_of(adapter))?;
    }
    Ok(Exit::Done)
}

fn line_of(adapter: &serde_json::Value) -> String {
    let text = |key: &str| adapter[key].as_str().unwrap_or("-").to_string();
    format!(
        "{}  {}  {} parameters  base {}",
        text("path"),
        text("method"),
        adapter["parameters"],
        text("base")
    )
}

fn show(dir: &Path, is_json: bool) -> Result<Exit, Failure> {
    let adapter = describe(dir)?;
    if is_json {
        output::json(&adapter)?;
        return Ok(Exit::Done);
    }
    output::line(&line_of(&adapter))?;
    for tensor in adapter["tensors"].as_array().into_iter().flatten() {
        output::line(&format!("{}  {}", tensor["name"].as_str().unwrap_or("-"), tensor["shape"]))?;
    }
    Ok(Exit::Done)
}
