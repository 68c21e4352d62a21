//! From a model's name to something that reads: what the commands over encoders share.

use crate::errors::Failure;
use crate::session::Session;
use crate::{input, models, voice};
use rhetor_encode::{Reader, ReaderOptions, Text};
use rhetor_formats::Checkpoint;
use rhetor_kernels::gemm::Precision;
use rhetor_tokenizer::Tokenizer;
use std::path::PathBuf;

/// Texts on the command line or in a file.
#[derive(Debug, Clone, clap::Args)]
pub struct TextArgs {
    /// The texts; with neither texts nor --file they are the lines of stdin
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    texts: Vec<String>,

    /// A file with one text on each line; `-` is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl TextArgs {
    /// The texts, at least one.
    pub fn read(self) -> Result<Vec<String>, Failure> {
        let lines = match (self.texts.is_empty(), self.file) {
            (false, _) => return Ok(self.texts),
            (true, Some(file)) => input::file(&file)?,
            (true, None) => input::stdin()?,
        };
        let texts: Vec<String> = lines.lines().map(str::to_string).collect();
        if texts.is_empty() { Err(Failure::input("there is no text")) } else { Ok(texts) }
    }
}

/// Precision of the products with weights, as the person types it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PrecisionArg {
    /// As exact as the weights
    F32,
    /// 8 bits for each factor: faster where the CPU has instructions for it
    Bf16,
}

/// How a model that reads is loaded.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct ReaderArgs {
    /// In what numbers weights of 32 bits are multiplied
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    precision: PrecisionArg,
}

impl ReaderArgs {
    /// As the library takes it.
    pub fn options(self) -> ReaderOptions {
        let precision = match self.precision {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::Bf16 => Precision::Bf16,
        };
        ReaderOptions { task: None, precision }
    }
}

/// The file of the model that `reference` names, pulled if it is not here, and its vocabulary.
pub fn open(session: &Session, reference: &str) -> Result<(Checkpoint, Tokenizer), Failure> {
    session.start_threads()?;
    let found = models::find(session, reference)?;
    let checkpoint = Checkpoint::open(&found.path)?;
    let tokenizer = voice::tokenizer_of(&checkpoint)?;
    Ok((checkpoint, tokenizer))
}

/// The model that `reference` names, with the head that its file has.
pub fn reader(session: &Session, reference: &str, args: ReaderArgs) -> Result<Reader, Failure> {
    let (checkpoint, tokenizer) = open(session, reference)?;
    Ok(Reader::open(&checkpoint, tokenizer, args.options())?)
}

/// Says on stderr which texts lost tokens.
pub fn warn_of_cuts(cuts: impl IntoIterator<Item = usize>, max_len: usize) {
    for (i, n_cut) in cuts.into_iter().enumerate().filter(|(_, n_cut)| *n_cut > 0) {
        eprintln!(
            "warning: text {}: the last {n_cut} tokens were left out; the model reads {max_len}",
            i + 1
        );
    }
}

/// The tokens that each text lost.
pub fn cuts(texts: &[Text]) -> impl Iterator<Item = usize> {
    texts.iter().map(|text| text.n_cut)
}

/// The number of the character that begins at byte `at` of `text`.
pub fn character(text: &str, at: usize) -> usize {
    text[..at].chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters() {
        assert_eq!(character("caf\u{e9} x", 6), 5);
    }
}
