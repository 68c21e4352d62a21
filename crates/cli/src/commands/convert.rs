//! `rhetor convert`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::models::Bar;
use crate::session::Session;
use crate::{importance, output};
use rhetor_encode::Modules;
use rhetor_formats::{Checkpoint, Kind, TypedValue};
use rhetor_models::convert::{self, ConvertOptions, Converted};
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Family, Model};
use rhetor_tokenizer::convert as vocabulary;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files beside the weights of a Hugging Face directory that are not the weights.
const BESIDE: &[&str] = &[
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "generation_config.json",
    "chat_template.jinja",
];

/// Write a model in another type or kind of file
///
/// A DST that ends in .gguf becomes a GGUF file, anything else a Hugging Face directory (of f32, f16 or bf16). Mixes
/// such as q4_k_m give each tensor the type that llama-quantize of llama.cpp gives it.
///
/// The vocabulary and the chat template come along, inside a GGUF file and as files of a directory.
#[derive(Debug, clap::Args)]
pub struct Convert {
    /// A GGUF file, a Hugging Face directory, or the name of a pulled model
    #[arg(value_name = "SRC")]
    source: String,

    /// The file or directory to write
    #[arg(value_name = "DST")]
    destination: PathBuf,

    /// f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, iq4_nl, q2_k, q3_k_s, q3_k_m, q3_k_l, q4_k_s, q4_k_m,
    /// q5_k_s, q5_k_m or q6_k
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_mix)]
    mix: Mix,

    /// Importance matrix of llama.cpp's llama-imatrix, to spend the bits where they matter
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,

    /// Replace DST if it exists
    #[arg(long)]
    force: bool,

    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

impl Run for Convert {
    const NAME: &str = "convert";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let destination = self.destination.as_path();
        if destination.exists() && !self.force {
            let failure = Failure::input(format!("{} exists already", destination.display()));
            return Err(failure.hint("--force replaces it"));
        }
        session.start_threads()?;
        let source = Checkpoint::open(&session.store.resolve(&self.source)?)?;
        let to_gguf = destination.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        if !to_gguf && self.mix.base().is_quantized() {
            let failure = Failure::input(format!("{} cannot be stored in a directory", self.mix.name()));
            return Err(
                failure.hint("a DST that ends in .gguf holds every type; a directory f32, f16 and bf16")
            );
        }
        if self.imatrix.is_some() && !self.mix.base().is_quantized() {
            let message =
                format!("--imatrix changes nothing about {}: nothing is quantized", self.mix.name());
            return Err(Failure::input(message));
        }
        let importance = self.imatrix.as_deref().map(importance::read).transpose()?;
        let mut bar = Bar::new();
        let mut types: BTreeMap<&str, usize> = BTreeMap::new();
        let mut on_tensor = |converted: Converted<'_>| {
            *types.entry(converted.types.1.name()).or_default() += 1;
            bar.count(converted.name, converted.done as u64, converted.total as u64);
        };
        let files = if to_gguf {
            let vocabulary = match source.kind() {
                Kind::Gguf => Vec::new(),
                _ => vocabulary::to_gguf(&source, Model::config_of(&source)?.vocab_size)?,
            };
            let vocabulary = [vocabulary, pooling(&source)?].into_iter().flatten().collect();
            let options = ConvertOptions { mix: self.mix, importance: importance.as_ref(), vocabulary };
            convert::to_gguf(&source, destination, &options, &mut on_tensor)?;
            Vec::new()
        } else {
            convert::to_hugging_face(&source, destination, self.mix.base(), &mut on_tensor)?;
            match source.kind() {
                Kind::Gguf => write_vocabulary(&source, destination)?,
                _ => copy_beside(&source, destination)?,
            }
        };
        bar.clear();
        if self.json {
            output::json(
                &json!({ "path": destination, "type": self.mix.name(), "tensors": types, "files": files }),
            )?;
        } else {
            output::line(&destination.display().to_string())?;
        }
        Ok(Exit::Done)
    }
}

/// The key that says how a directory of sentence-transformers pools; none for other models.
fn pooling(source: &Checkpoint) -> Result<Vec<(String, TypedValue)>, Failure> {
    let Some(modules) = Modules::read(source)? else { return Ok(Vec::new()) };
    let architecture = Family::of(source)?.gguf;
    match modules.gguf_pooling() {
        Some(number) => Ok(vec![(format!("{architecture}.pooling_type"), number.into())]),
        None => {
            let path = source.path().display();
            Err(Failure::input(format!("{path}: the steps of modules.json cannot be said in GGUF")))
        }
    }
}

/// Writes the vocabulary of a GGUF file as the files of a directory.
pub(crate) fn write_vocabulary(source: &Checkpoint, folder: &Path) -> Result<Vec<&'static str>, Failure> {
    let files = vocabulary::to_hugging_face(source.metadata())?;
    let pairs = [("tokenizer.json", &files.tokenizer), ("tokenizer_config.json", &files.tokenizer_config)];
    for (name, value) in pairs {
        let text = serde_json::to_string_pretty(value).expect("a JSON value can be written") + "\n";
        rhetor_formats::write_bytes(&folder.join(name), text.as_bytes())?;
    }
    Ok(pairs.map(|pair| pair.0).into())
}

/// Copies what lies beside the weights, without replacing anything.
fn copy_beside(source: &Checkpoint, folder: &Path) -> Result<Vec<&'static str>, Failure> {
    let mut copied = Vec::new();
    for name in BESIDE {
        let to = folder.join(name);
        if let Some(from) = source.file(name)
            && !to.exists()
        {
            std::fs::copy(&from, &to).map_err(Failure::file(&to))?;
            copied.push(*name);
        }
    }
    Ok(copied)
}

fn parse_mix(name: &str) -> Result<Mix, String> {
    let known = || Mix::all().map(Mix::name).collect::<Vec<_>>().join(", ");
    Mix::from_name(name).ok_or_else(|| format!("it must be one of {}", known()))
}
