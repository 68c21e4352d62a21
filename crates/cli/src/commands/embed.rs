//! `rhetor embed`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::reading::{self, ReaderArgs, TextArgs};
use crate::session::Session;
use crate::{npy, output};
use rhetor_encode::Embedder;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Turn texts into vectors
///
/// The model is a directory of sentence-transformers, whose steps are followed; another encoder or decoder, whose rows are
/// averaged; or a GGUF file of an encoder. With --sparse a masked language model gives each token of its vocabulary a
/// weight, as SPLADE does.
#[derive(Debug, clap::Args)]
pub struct Embed {
    /// Name, reference or path of a model
    model: String,

    #[command(flatten)]
    texts: TextArgs,

    /// Put the model's prompt of this name before each text
    #[arg(long, value_name = "NAME")]
    prompt: Option<String>,

    /// Weights of tokens, not a dense vector
    #[arg(long)]
    sparse: bool,

    #[command(flatten)]
    reader: ReaderArgs,

    /// Write the vectors to this file, as NumPy reads them
    #[arg(long, value_name = "FILE")]
    npy: Option<PathBuf>,

    /// Print JSON
    #[arg(long, conflicts_with = "npy")]
    json: bool,
}

impl Run for Embed {
    const NAME: &str = "embed";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let (checkpoint, tokenizer) = reading::open(session, &self.model)?;
        let embedder = Embedder::open(&checkpoint, tokenizer, self.reader.options(), self.sparse)?;
        let texts = self.texts.read()?;
        let found = embedder.embed(&texts, self.prompt.as_deref())?;
        reading::warn_of_cuts(found.n_cut.iter().copied(), embedder.max_len());
        if let Some(file) = &self.npy {
            npy::write(file, &found.vectors)?;
            return Ok(Exit::Done);
        }
        let tokenizer = embedder.reader().tokenizer();
        let is_sparse = embedder.is_sparse();
        if self.json {
            let of_text = |(i, vector): (usize, &Vec<f32>)| {
                let vector: Value = match is_sparse {
                    true => weights(vector, |id| tokenizer.piece(id).unwrap_or_default())
                        .map(|(piece, weight)| json!({ "token": piece, "weight": weight }))
                        .collect(),
                    false => vector.as_slice().into(),
                };
                let key = if is_sparse { "weights" } else { "vector" };
                json!({ "text": texts[i], key: vector, "tokens_left_out": found.n_cut[i] })
            };
            let list: Vec<Value> = found.vectors.iter().enumerate().map(of_text).collect();
            output::json(&json!({ "tokens": found.n_tokens, "embeddings": list }))?;
            return Ok(Exit::Done);
        }
        for vector in &found.vectors {
            let numbers: Vec<String> = match is_sparse {
                true => weights(vector, |id| tokenizer.piece(id).unwrap_or_default())
                    .map(|(piece, weight)| format!("{piece}:{weight:.4}"))
                    .collect(),
                false => vector.iter().map(f32::to_string).collect(),
            };
            output::line(&numbers.join(" "))?;
        }
        Ok(Exit::Done)
    }
}

/// The tokens whose weight is above 0, the heaviest first.
fn weights<'t>(vector: &[f32], piece: impl Fn(u32) -> &'t str) -> impl Iterator<Item = (&'t str, f32)> {
    let mut tokens: Vec<(u32, f32)> = (0..).zip(vector.iter().copied()).filter(|(_, w)| *w > 0.0).collect();
    tokens.sort_by(|a, b| b.1.total_cmp(&a.1));
    tokens.into_iter().map(move |(id, weight)| (piece(id), weight))
}
