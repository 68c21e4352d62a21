//! `rhetor embed`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::reading::{self, ReaderArgs, TextArgs};
use crate::session::Session;
use crate::{models, npy, output};
use rhetor_encode::Embedder;
use rhetor_formats::Checkpoint;
use rhetor_images::{Picture, Preparation};
use rhetor_models::{LoadOptions, Model};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Turn texts or pictures into vectors
///
/// The model is a directory of sentence-transformers, whose steps are followed; another encoder or decoder, whose rows are
/// averaged; or a GGUF file of an encoder. With --sparse a masked language model gives each token of its vocabulary a
/// weight, as SPLADE does. With --image the model is a vision tower, and each picture becomes one vector.
#[derive(Debug, clap::Args)]
pub struct Embed {
    /// Name, reference or path of a model
    model: String,

    #[command(flatten)]
    texts: TextArgs,

    /// Look at this picture (PNG, JPEG or WebP), not at texts; may be given several times
    #[arg(long, value_name = "FILE", conflicts_with_all = ["texts", "file", "prompt", "sparse"])]
    image: Vec<PathBuf>,

    /// With --image: which of the model's rows is the picture's vector
    #[arg(long, value_name = "ROW", default_value = "cls", requires = "image",
        conflicts_with_all = ["texts", "file", "prompt", "sparse"])]
    row: RowArg,

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

/// Which row stands for a picture, as the person types it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RowArg {
    /// The class row
    Cls,
    /// The mean of the patches' rows
    Mean,
}

impl RowArg {
    /// The vector of a picture with these rows, the class row first. rows: [1 + patches, D] → [D]
    fn of(self, rows: &[f32], width: usize) -> Vec<f32> {
        let (class, patches) = rows.split_at(width);
        match self {
            RowArg::Cls => class.to_vec(),
            RowArg::Mean => {
                let n_patches = (patches.len() / width) as f32;
                let column = |i: usize| patches.iter().skip(i).step_by(width).sum::<f32>() / n_patches;
                (0..width).map(column).collect()
            }
        }
    }
}

impl Embed {
    /// The vectors of the pictures.
    fn look(self, session: &Session) -> Result<Exit, Failure> {
        session.start_threads()?;
        let checkpoint = Checkpoint::open(&models::find(session, &self.model)?.path)?;
        let precision = self.reader.options().precision;
        let model = Model::load(&checkpoint, LoadOptions { precision, ..LoadOptions::default() })?;
        let Some(sight) = model.sight() else {
            return Err(Failure::input(format!("--image: {} has no eyes", self.model)));
        };
        if model.generates() {
            let message = "speaks about pictures and has no vector for one; a vision tower has";
            return Err(Failure::input(format!("--image: {} {message}", self.model)));
        }
        if !model.beside().is_empty() {
            let (n, first) = (model.beside().len(), &model.beside()[0]);
            eprintln!("note: {n} tensors are built upon the encoder and not read: {first} ...");
        }
        let preparation = match checkpoint.json("preprocessor_config.json")? {
            Some(config) => Preparation::from_json(&config).map_err(Failure::input)?,
            None if model.family().about.name == "dinov2" => Preparation::dinov2(),
            None => Preparation::square(sight.side),
        };
        let mut vectors = Vec::with_capacity(self.image.len());
        for file in &self.image {
            let planes = preparation.apply(&Picture::open(file).map_err(Failure::input)?);
            let size = [planes.height, planes.width];
            if size.iter().any(|side| side % sight.patch != 0) {
                let (file, patch) = (file.display(), sight.patch);
                let [height, width] = size;
                let message = format!("{width} x {height} pixels do not fall into patches of {patch}");
                return Err(Failure::input(format!("{file}: {message}")));
            }
            let rows = model.see(&planes.values, size, None);
            vectors.push(self.row.of(rows.data(), model.config().hidden_size));
        }
        if let Some(file) = &self.npy {
            npy::write(file, &vectors)?;
            return Ok(Exit::Done);
        }
        if self.json {
            let of_picture =
                |(file, vector): (&PathBuf, &Vec<f32>)| json!({ "image": file, "vector": vector });
            let list: Vec<Value> = self.image.iter().zip(&vectors).map(of_picture).collect();
            output::json(&json!({ "embeddings": list }))?;
            return Ok(Exit::Done);
        }
        for vector in &vectors {
            output::line(&vector.iter().map(f32::to_string).collect::<Vec<_>>().join(" "))?;
        }
        Ok(Exit::Done)
    }
}

impl Run for Embed {
    const NAME: &str = "embed";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        if !self.image.is_empty() {
            return self.look(session);
        }
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
