//! `rhetor inspect`.

mod heat_map;
mod inside;

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::output::{self, bytes, count};
use crate::session::Session;
use rhetor_formats::{Checkpoint, Value};
use rhetor_models::{Model, ModelConfig};
use serde_json::{Map, json};
use std::collections::BTreeMap;

/// Show what a model file holds: format, metadata, architecture, types, tensors
///
/// The file is opened and checked, and nothing is loaded, unless one of the questions about the inside is asked: what kinds
/// of heads there are and where they look, which heads work together, what the model would say after each layer, and which
/// part of it decides between two prompts.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// A file, a folder, or the name of a pulled model
    path: String,

    /// Also list every tensor
    #[arg(long)]
    tensors: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    inside: inside::Inside,
}

impl Run for Inspect {
    const NAME: &str = "inspect";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        if self.inside.is_asked() {
            return self.inside.answer(session, &self.path, self.json);
        }
        let path = session.store.resolve(&self.path)?;
        let checkpoint = Checkpoint::open(&path)?;
        let tensors = checkpoint.tensors();
        let elements = |shape: &[usize]| shape.iter().product::<usize>() as u64;
        let parameters: u64 = tensors.iter().map(|tensor| elements(&tensor.shape)).sum();
        let n_bytes: u64 = tensors.iter().map(|tensor| tensor.n_bytes as u64).sum();
        let mut types: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
        for tensor in tensors {
            let (n_tensors, n_elements, size) = types.entry(tensor.dtype.name()).or_default();
            *n_tensors += 1;
            *n_elements += elements(&tensor.shape);
            *size += tensor.n_bytes as u64;
        }
        let kind = format!("{:?}", checkpoint.kind());
        // A file of another architecture can be looked at all the same.
        let config = Model::config_of(&checkpoint);

        if self.json {
            let metadata: Map<_, _> =
                checkpoint.metadata().iter().map(|(key, value)| (key.to_string(), to_json(value))).collect();
            let types: Map<_, _> = types
                .iter()
                .map(|(name, (n_tensors, n_elements, size))| {
                    (name.to_string(), json!({ "tensors": n_tensors, "elements": n_elements, "bytes": size }))
                })
                .collect();
            let mut report = json!({
                "path": path, "format": kind, "parameters": parameters, "tensor_bytes": n_bytes,
                "types": types, "metadata": metadata,
            });
            match &config {
                Ok(config) => report["model"] = sizes(config, n_bytes),
                Err(error) => report["not_runnable"] = json!(error.to_string()),
            }
            if self.tensors {
                let list = tensors.iter().map(|tensor| {
                    json!({
                        "name": tensor.name, "type": tensor.dtype.name(), "shape": tensor.shape,
                        "file": tensor.file, "offset": tensor.offset, "bytes": tensor.n_bytes,
                    })
                });
                report["tensors"] = list.collect();
            }
            return output::json(&report).map(|()| Exit::Done);
        }

        let row = |name: &str, value: String| vec![name.to_string(), value];
        let mut rows = vec![
            row("path", path.display().to_string()),
            row("format", kind),
            row("parameters", count(parameters)),
            row("tensors", format!("{} in {}", tensors.len(), bytes(n_bytes))),
        ];
        for (name, (n_tensors, n_elements, size)) in &types {
            rows.push(row(
                name,
                format!("{n_tensors} tensors, {} elements, {}", count(*n_elements), bytes(*size)),
            ));
        }
        match &config {
            Ok(config) => {
                let sizes = sizes(config, n_bytes);
                for (name, value) in sizes.as_object().expect("it is an object") {
                    let value = match (value.as_u64(), name.ends_with("_bytes")) {
                        (Some(n), true) => bytes(n),
                        (None, _) => value.as_str().unwrap_or_default().to_string(),
                        (Some(n), false) => n.to_string(),
                    };
                    rows.push(row(&name.trim_end_matches("_bytes").replace('_', " "), value));
                }
            }
            Err(error) => rows.push(row("cannot be run", error.to_string())),
        }
        output::table(&rows)?;
        output::line("")?;
        let rows: Vec<_> =
            checkpoint.metadata().iter().map(|(key, value)| row(key, one_line(&value.to_string()))).collect();
        output::table(&rows)?;
        if self.tensors {
            output::line("")?;
            let rows: Vec<_> = tensors
                .iter()
                .map(|tensor| {
                    let shape = format!("{:?}", tensor.shape);
                    vec![
                        tensor.name.clone(),
                        tensor.dtype.name().to_string(),
                        shape,
                        bytes(tensor.n_bytes as u64),
                    ]
                })
                .collect();
            output::table(&rows)?;
        }
        Ok(Exit::Done)
    }
}

/// What the model's family makes of the file, and the memory that running it takes.
fn sizes(config: &ModelConfig, n_bytes: u64) -> serde_json::Value {
    let kv = |bytes_per_element: f64| config.kv_bytes_per_token(bytes_per_element) as u64;
    let short = config.context_len.min(4096) as u64;
    json!({
        "family": config.family,
        "layers": config.n_layers,
        "hidden_size": config.hidden_size,
        "ffn_size": config.ffn_size,
        "heads": config.n_heads,
        "kv_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "context": config.context_len,
        "kv_f16_per_token_bytes": kv(2.0),
        // 32 values share a scale of two bytes.
        "kv_q8_per_token_bytes": kv(34.0 / 32.0),
        "kv_f16_full_context_bytes": kv(2.0) * config.context_len as u64,
        // Packed weights are as large as the file's; the rest is buffers.
        "memory_at_short_context_bytes": n_bytes + kv(2.0) * short + 60_000_000,
    })
}

/// Lists are summarised, as vocabularies are long.
fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(b) => json!(b),
        Value::U64(n) => json!(n),
        Value::I64(n) => json!(n),
        Value::F64(x) => json!(x),
        Value::String(text) => json!(text),
        Value::Array(_) => json!(value.to_string()),
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
