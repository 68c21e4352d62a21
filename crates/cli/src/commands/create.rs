//! `rhetor create`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::models::Bar;
use crate::session::Session;
use rhetor_server::{Making, MakingError, Modelfile, Step};
use rhetor_store::{ModelName, Store, StoredFile};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Ends of the names of files that belong to a model.
const ENDS: &[&str] = &[".gguf", ".safetensors", ".json", ".model", ".jinja", ".txt"];

/// Make a model out of another as a Modelfile says
///
/// FROM names a model of the store, or a GGUF file or Hugging Face directory beside the Modelfile. ADAPTER names a
/// directory in PEFT's format.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// The new model's name, such as mine or mine:v2
    #[arg(value_name = "NAME")]
    name: String,

    /// The Modelfile
    #[arg(short, long, value_name = "FILE", default_value = "Modelfile")]
    file: PathBuf,

    /// Store the weights, which must be f16, bf16 or f32, as another type: q8_0, q4_K_M ...
    #[arg(short, long, value_name = "TYPE")]
    quantize: Option<String>,
}

impl Run for Create {
    const NAME: &str = "create";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let name = ModelName::parse(&self.name)?;
        let bytes = std::fs::read(&self.file).map_err(Failure::file(&self.file))?;
        let wrong =
            |error: &dyn std::fmt::Display| Failure::input(format!("{}: {error}", self.file.display()));
        let file = Modelfile::read(&bytes).map_err(|error| wrong(&error))?;
        let store = &session.store;
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let making = Making::of_modelfile(&file, &mut |argument| bring(store, folder, argument));
        let mut making = making.map_err(|error| wrong(&error))?;
        making.quantize = self.quantize;
        if making.quantize.is_some() {
            session.start_threads()?;
        }
        if let Some(from) = &making.from {
            session.store.pull(from, &session.pull_options, &mut |_| ControlFlow::Continue(()))?;
        }
        let mut bar = Bar::new();
        let made = making.make(store, &name, &mut |step| {
            match step {
                Step::Status(status) => tracing::info!("{status}"),
                Step::Quantizing { status, done, total } => bar.count(&status, done, total),
            }
            ControlFlow::Continue(())
        });
        bar.clear();
        made.map_err(|error| match error {
            MakingError::Store(error) => error.into(),
            other => wrong(&other),
        })?;
        eprintln!("created {name}");
        Ok(Exit::Done)
    }
}

/// The files that an argument of FROM or ADAPTER names, copied into the store; `None` if there is no such path.
fn bring(store: &Store, folder: &Path, argument: &str) -> Result<Option<Vec<StoredFile>>, MakingError> {
    let path = folder.join(argument);
    if path.is_file() {
        return Ok(Some(vec![store.import(&path)?]));
    }
    if !path.is_dir() {
        return Ok(None);
    }
    let mut files = Vec::new();
    for (name, file) in files_of(&path, "").map_err(|error| MakingError::Field {
        field: "FROM",
        reason: format!("{}: {error}", path.display()),
    })? {
        files.push(StoredFile { path: name, ..store.import(&file)? });
    }
    Ok(Some(files))
}

/// The files of a model in a folder and the folders in it, with their names from there.
fn files_of(folder: &Path, before: &str) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && before.is_empty() && !name.starts_with('.') {
            files.extend(files_of(&path, &format!("{name}/"))?);
        } else if path.is_file() && ENDS.iter().any(|end| name.ends_with(end)) {
            files.push((format!("{before}{name}"), path));
        }
    }
    files.sort();
    Ok(files)
}
