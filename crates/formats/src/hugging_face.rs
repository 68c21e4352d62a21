//! Directories as the Hugging Face hub lays them out: `config.json`, weights in one file or in shards, and the
//! tokenizer's files beside them.
//!
//! Weights are looked for in this order: `model.safetensors`, its index of shards, `pytorch_model.bin`, its index,
//! then the only `*.safetensors` or `*.gguf` there is.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::checkpoint::{Contents, Kind, open_file};
use crate::metadata::Metadata;
use crate::safetensors::Pairs;
use crate::{Error, Place, gguf};

const CONFIG: &str = "config.json";

/// The largest JSON file in bytes that is read; `tokenizer.json` of a 256k vocabulary has 35 MB.
const JSON_BYTES_MAX: u64 = 256 << 20;

/// Files of weights by their usual names; those that end in `.index.json` list shards.
const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Opens the model of a directory.
pub(crate) fn open_directory(dir: &Path) -> Result<Contents, Error> {
    if let Some(path) = WEIGHTS.iter().map(|name| dir.join(name)).find(|path| path.is_file()) {
        return open_weights(&path);
    }
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let path = entry.map_err(Error::io("read", dir))?.path();
        let is_model = path.extension().is_some_and(|end| end == "gguf" || end == "safetensors");
        if is_model && path.is_file() && !gguf::is_later_part(&path) {
            found.push(path);
        }
    }
    found.sort();
    match found.as_slice() {
        [path] => open_weights(path),
        _ => {
            let names: Vec<_> = found.iter().filter_map(|path| path.file_name()?.to_str()).collect();
            let got = if names.is_empty() { "no weights".to_owned() } else { names.join(", ") };
            let expected =
                "model.safetensors, pytorch_model.bin, an index of shards, or one .gguf or .safetensors";
            Err(Error::Directory { file: dir.to_path_buf(), expected, got })
        }
    }
}

/// Opens a file of weights with its other parts, or an index of shards, and the `config.json` beside it where the format has none inside.
pub(crate) fn open_weights(path: &Path) -> Result<Contents, Error> {
    let is_index = path.to_str().is_some_and(|name| name.ends_with(".index.json"));
    let contents = if is_index { open_index(path)? } else { open_file(path)? };
    match contents.kind {
        Kind::Safetensors | Kind::PyTorch => with_config(path, contents),
        Kind::Gguf => gguf::join(path, contents),
        _ => Ok(contents),
    }
}

/// Puts `config.json`, where it exists, in place of the metadata of a file of weights beside it.
fn with_config(path: &Path, mut contents: Contents) -> Result<Contents, Error> {
    let config = path.with_file_name(CONFIG);
    if !config.is_file() {
        return Ok(contents);
    }
    let mut metadata = Metadata::new(&config);
    match read_json(&config)? {
        serde_json::Value::Object(object) => metadata.add_json(&object)?,
        other => {
            let place = Place::new(&config, "file", 0);
            let got = other.to_string().chars().take(60).collect();
            return Err(Error::Json { place, expected: "an object", got });
        }
    }
    contents.metadata = metadata;
    contents.kind = Kind::HuggingFace;
    Ok(contents)
}

/// Which file holds which tensor. The index' own `metadata` (a total size) is checked by nobody.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: Pairs<String>,
}

/// Opens the shards of an index.
fn open_index(path: &Path) -> Result<Contents, Error> {
    let place = |field: &str| Place::new(path, field, 0);
    let text = read_text(path)?;
    let index: Index = serde_json::from_str(&text).map_err(|error| json_error(path, &error))?;
    let mut shards: Vec<&str> = Vec::new();
    for (_, shard) in &index.weight_map.0 {
        let name = plain_name(shard)
            .ok_or_else(|| Error::UnsafePath { place: place("weight_map"), got: shard.clone() })?;
        shards.push(name);
    }
    shards.sort_unstable();
    shards.dedup();
    let mut all = Contents {
        kind: Kind::Safetensors,
        metadata: Metadata::new(path),
        tensors: Vec::new(),
        sources: Vec::new(),
    };
    // Tensor -> shard, as the files themselves say.
    let mut found: HashMap<String, &str> = HashMap::new();
    for shard in shards {
        let Contents { kind, tensors, sources, .. } = open_file(&path.with_file_name(shard))?;
        all.kind = kind;
        for mut tensor in tensors {
            if found.insert(tensor.name.clone(), shard).is_some() {
                return Err(Error::Duplicate { place: place(shard), got: tensor.name });
            }
            tensor.file += all.sources.len();
            all.tensors.push(tensor);
        }
        all.sources.extend(sources);
    }
    for (tensor, shard) in &index.weight_map.0 {
        if found.get(tensor) != Some(&shard.as_str()) {
            let got = match found.get(tensor) {
                Some(other) => format!("it in `{other}`"),
                None => "no such tensor".to_owned(),
            };
            let expected = format!("tensor `{tensor}` in `{shard}`");
            return Err(Error::Invalid { place: place("weight_map"), expected, got });
        }
    }
    Ok(all)
}

/// `name` if it is one plain file name, which cannot lead out of its directory on any system.
pub(crate) fn plain_name(name: &str) -> Option<&str> {
    let mut components = Path::new(name).components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    (plain && !name.contains(['/', '\\', ':', '\0'])).then_some(name)
}

/// Reads a JSON file of a bounded size.
pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value, Error> {
    serde_json::from_str(&read_text(path)?).map_err(|error| json_error(path, &error))
}

fn read_text(path: &Path) -> Result<String, Error> {
    let len = fs::metadata(path).map_err(Error::io("open", path))?.len();
    if len > JSON_BYTES_MAX {
        return Err(Error::TooLarge {
            place: Place::new(path, "file", 0),
            expected: JSON_BYTES_MAX,
            got: len,
        });
    }
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let got = String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 40)]).into_owned();
        Error::Utf8 { place: Place::new(path, "text", at), got }
    })
}

fn json_error(path: &Path, error: &serde_json::Error) -> Error {
    // serde_json counts lines and columns; the message carries both, the offset is not known.
    Error::Json { place: Place::new(path, "text", 0), expected: "JSON", got: error.to_string() }
}
