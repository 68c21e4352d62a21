//! The files that vocabularies come in, one reader for each.

mod beside;
mod gguf;
mod gpt2_files;
pub(crate) mod hf_json;
mod llama2c;
mod sentencepiece;
mod vocab_txt;

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
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match name.rsplit('.').next() {
        Some("gguf") => gguf::read(Checkpoint::open(path)?.metadata()),
        Some("model") => sentencepiece::read(&bytes(path)?, &beside),
        Some("bin") => llama2c::read(&bytes(path)?),
        Some("txt") if name != "merges.txt" => vocab_txt::read(&bytes(path)?, &beside),
        Some("json") if name != "vocab.json" => hf_json::read(&bytes(path)?, &beside),
        // vocab.json and merges.txt stand for each other.
        _ => {
            let file = |name: &str| Some(path.with_file_name(name)).filter(|path| path.is_file());
            let both =
                |wanted: &str| matches!(wanted, "vocab.json" | "merges.txt").then(|| file(wanted)).flatten();
            from_files(path, &both, &beside)
        }
    }
}

/// A `tokenizer.json` made by training.
pub(crate) fn from_engine(tokenizer: tokenizers::Tokenizer) -> Result<Tokenizer, Error> {
    hf_json::from_engine(tokenizer, &Beside::default(), "training")
}

const LOOKED_FOR: &str =
    "tokenizer.json, tokenizer.model, vocab.json with merges.txt, vocab.txt, tok512.bin, tokenizer.bin";

/// The first vocabulary file that `file` finds.
fn from_files(
    path: &Path,
    file: &dyn Fn(&str) -> Option<PathBuf>,
    beside: &Beside,
) -> Result<Tokenizer, Error> {
    if let Some(path) = file("tokenizer.json") {
        return hf_json::read(&bytes(&path)?, beside);
    }
    if let Some(path) = file("tokenizer.model") {
        return sentencepiece::read(&bytes(&path)?, beside);
    }
    if let (Some(vocab), Some(merges)) = (file("vocab.json"), file("merges.txt")) {
        return gpt2_files::read(&bytes(&vocab)?, &bytes(&merges)?, beside);
    }
    if let Some(path) = file("vocab.txt") {
        return vocab_txt::read(&bytes(&path)?, beside);
    }
    for name in ["tok512.bin", "tokenizer.bin"] {
        if let Some(path) = file(name) {
            return llama2c::read(&bytes(&path)?);
        }
    }
    Err(Error::NoVocabulary { path: path.to_path_buf(), looked_for: LOOKED_FOR })
}

fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { path: path.to_path_buf(), source })
}
