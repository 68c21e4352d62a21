//! From a checkpoint's path to an engine: its adapters found, its vocabulary read, its weights packed.

use crate::{Engine, EngineOptions, Error, PrefixStoreOptions};
use rhetor_formats::{Checkpoint, Kind};
use rhetor_models::adapters::{Purpose, peft};
use rhetor_models::{LoadOptions, Model};
use rhetor_tokenizer::Tokenizer;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// What a voice is made of.
pub struct Opened {
    /// The numbers, with adapters attached.
    pub model: Model,
    /// The vocabulary.
    pub tokenizer: Tokenizer,
    /// The names of the adapters, by number.
    pub adapters: Vec<String>,
    /// What the files leave unsaid or say twice.
    pub warnings: Vec<String>,
    /// Tells the model with its adapters from every other; see [`crate::PrefixStoreOptions::model`].
    pub digest: String,
}

impl Opened {
    /// Loads a checkpoint and attaches the adapters in `dirs`, as PEFT or training leaves them, in this order.
    ///
    /// `context`: tokens of the context; `None` = what the model was made for.
    pub fn read(path: &Path, dirs: &[PathBuf], context: Option<usize>) -> Result<Opened, Error> {
        let (mut opened, mut warnings) = (Vec::with_capacity(dirs.len()), Vec::new());
        for dir in dirs {
            let adapter = peft::open(dir, Purpose::Inference)?;
            warnings.extend(adapter.warnings);
            opened.push(adapter.adapter);
        }
        let checkpoint = Checkpoint::open(path)?;
        // A vocabulary beside the adapter is the one that it was trained with.
        let beside = dirs.iter().rev().map(|dir| dir.join("tokenizer.json")).find(|file| file.is_file());
        let tokenizer = match beside {
            Some(file) => Tokenizer::from_file(&file)?,
            None => tokenizer_of(&checkpoint)?,
        };
        let options = LoadOptions { context, ..LoadOptions::default() };
        let model = Model::load_adapted(&checkpoint, options, &mut opened)?;
        let digest = digest_of(&checkpoint, dirs, &model);
        let name = |dir: &PathBuf| dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
        Ok(Opened { model, tokenizer, adapters: dirs.iter().map(name).collect(), warnings, digest })
    }

    /// An engine called `name`; the names of the adapters in `options` are replaced by those of their folders, and what
    /// tells the model from others by its digest.
    pub fn speak(self, name: impl Into<String>, options: EngineOptions) -> Result<Engine, Error> {
        let model = self.digest;
        let prefix_store = options.prefix_store.map(|store| PrefixStoreOptions { model, ..store });
        let options = EngineOptions { adapters: self.adapters, prefix_store, ..options };
        Engine::new(name, self.model, self.tokenizer, options)
    }
}

/// Bytes that the digest takes from either end of a tensor.
const SAMPLE: usize = 4096;

/// SHA-256 of the configuration, of the name, type, shape and both ends of every tensor, and of the adapters' files: what
/// was trained or quantized differently differs there.
fn digest_of(checkpoint: &Checkpoint, dirs: &[PathBuf], model: &Model) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", model.config()));
    for tensor in checkpoint.tensors() {
        hash.update(format!("{tensor:?}"));
        let bytes = checkpoint.bytes(tensor);
        hash.update(&bytes[..bytes.len().min(SAMPLE)]);
        hash.update(&bytes[bytes.len().saturating_sub(SAMPLE)..]);
        checkpoint.release(tensor);
    }
    for dir in dirs {
        for name in ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"] {
            // Which of them there are has been seen when the adapter was read.
            if let Ok(bytes) = std::fs::read(dir.join(name)) {
                hash.update(name);
                hash.update(Sha256::digest(bytes));
            }
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The base that `reference` stands for, and the adapters between it and `reference`, the base's own first.
pub fn base_of(reference: &str) -> Result<(String, Vec<PathBuf>), Error> {
    let (mut base, mut dirs) = (reference.to_string(), Vec::new());
    while peft::is_adapter(Path::new(&base)) {
        let dir = PathBuf::from(&base);
        if dirs.contains(&dir) {
            return Err(Error::AdapterBase { dir, reason: "names itself as its base" });
        }
        let Some(named) = peft::base_of(&dir)? else {
            return Err(Error::AdapterBase { dir, reason: "does not say which model it belongs to" });
        };
        // A path as it stands, one from the adapter's own place, or a name of the store.
        let beside = dir.join(&named);
        let is_path = !Path::new(&named).exists() && beside.exists();
        base = if is_path { beside.to_string_lossy().into_owned() } else { named };
        dirs.insert(0, dir);
    }
    Ok((base, dirs))
}

/// The model's vocabulary: inside the file, or beside a GGUF file that has none, as a conversion leaves it.
pub fn tokenizer_of(checkpoint: &Checkpoint) -> Result<Tokenizer, Error> {
    let has_none = checkpoint.kind() == Kind::Gguf && !checkpoint.metadata().contains("tokenizer.ggml.model");
    match checkpoint.file("tokenizer.json").filter(|_| has_none) {
        Some(beside) => Ok(Tokenizer::from_file(&beside)?),
        None => Ok(Tokenizer::from_checkpoint(checkpoint)?),
    }
}
