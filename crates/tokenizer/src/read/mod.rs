//! The files that vocabularies come in, one reader for each.

mod beside;
mod gguf;
pub(crate) mod hf_json;

use std::path::{Path, PathBuf};

use rhetor_formats::{Checkpoint, Kind};

use crate::{Error, Tokenizer};
use beside::Beside;

/// The vocabulary inside or beside a checkpoint.
pub(crate) fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Tokenizer, Error> {
    if checkpoint.kind() == Kind::Gguf {
        return gguf::read(checkpoint.metadata());
    }
    let beside = Beside::of_checkpoint(checkpoint)?;
    from_files(checkpoint.path(), &|name| checkpoint.file(name), &beside)
}

/// A `tokenizer.json` with nothing beside it.
pub(crate) fn from_json_bytes(bytes: &[u8]) -> Result<Tokenizer, Error> {
    hf_json::read(bytes, &Beside::default())
}

/// A vocabulary file, or a directory with one.
pub(crate) fn from_file(path: &Path) -> Result<Tokenizer, Error> {
    if path.is_dir() {
        let beside = Beside::of_directory(path)?;
        let file = |name: &str| Some(path.join(name)).filter(|path| path.is_file());
        return from_files(path, &file, &beside);
    }
    let beside = Beside::of_directory(path.parent().unwrap_or(Path::new(".")))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let only = |wanted: &str| (wanted == name).then(|| path.to_path_buf());
    from_files(path, &only, &beside)
}

const LOOKED_FOR: &str = "tokenizer.json";

/// The first vocabulary file that `file` finds.
fn from_files(
    path: &Path,
    file: &dyn Fn(&str) -> Option<PathBuf>,
    beside: &Beside,
) -> Result<Tokenizer, Error> {
    if let Some(path) = file("tokenizer.json") {
        return hf_json::read(&bytes(&path)?, beside);
    }
    Err(Error::NoVocabulary { path: path.to_path_buf(), looked_for: LOOKED_FOR })
}

fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { path: path.to_path_buf(), source })
}
