//! Why data cannot be trained on.

use crate::data::{Place, ReadReport};
use std::path::{Path, PathBuf};

/// Why data cannot be trained on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A row is not what its format says.
    #[error("{place}: expected {expected}; got {got}")]
    Row {
        /// The file and the line or row in it.
        place: Place,
        /// What would have been right.
        expected: String,
        /// What is there.
        got: String,
    },
    /// Nothing in the data set can be used.
    #[error("{data} has no row to train on: {report}")]
    NoRows {
        /// The files or folders given.
        data: String,
        /// What was found instead.
        report: Box<ReadReport>,
    },
    /// The name of a file does not tell how to read it.
    #[error("{path}: the name does not say what kind of file this is; formats are {known}")]
    UnknownKind {
        /// The file.
        path: PathBuf,
        /// The names of the formats.
        known: String,
    },
    /// A format, data set or the like has no such name.
    #[error("there is no {what} `{name}`; there are {known}")]
    UnknownName {
        /// What was asked for: a format, a data set.
        what: &'static str,
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// An archive is broken, or lacks what was asked for.
    #[error("{path}: {reason}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A text file is not UTF-8.
    #[error("{place}: byte {offset} is not UTF-8; a file named *.latin1.* is read as ISO 8859-1")]
    NotUtf8 {
        /// The file.
        place: Place,
        /// Bytes before the first wrong one.
        offset: u64,
    },
    /// A file of token ids is damaged or of another kind.
    #[error("{path}: {reason}")]
    Tokens {
        /// The file.
        path: PathBuf,
        /// What is wrong, with what was expected and what was found.
        reason: String,
    },
    /// An option has a value that cannot be.
    #[error("option `{option}`: {reason}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it, with the value given.
        reason: String,
    },
    /// A checkpoint cannot be gone on from.
    #[error("{path}: {reason}")]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Numbers are not finite; the step was not made.
    #[error(
        "step {step}: the {what} are not finite, so the step was not made; not finite are: {}; the step's first tokens \
         are {tokens:?}", if tensors.is_empty() { "no tensor but the loss".to_string() } else { tensors.join(", ") }
    )]
    NotFinite {
        /// The step, from 1.
        step: u64,
        /// Loss or gradients.
        what: &'static str,
        /// The tensors in which such numbers are.
        tensors: Vec<String>,
        /// The first tokens of the step.
        tokens: Vec<u32>,
    },
    /// All targets of a step are ignored.
    #[error("step {step}: no target is left to learn: the labels of all its examples are masked")]
    NothingToLearn {
        /// The step, from 1.
        step: u64,
    },
    /// A recipe contradicts itself or lacks something.
    #[error("recipe: {0}")]
    Recipe(String),
    /// The vocabulary has tokens that the model does not know.
    #[error(
        "the vocabulary has {n_tokens} tokens, the model's embedding {vocab_size} rows: they do not belong together"
    )]
    Vocabulary {
        /// Of the tokenizer.
        n_tokens: usize,
        /// Of the model.
        vocab_size: usize,
    },
    /// The objective trains models of other parts.
    #[error("the objective `{objective}` trains models that are {expected}; a {family} is not")]
    Parts {
        /// The objective.
        objective: &'static str,
        /// What the models must have.
        expected: &'static str,
        /// The model's family.
        family: &'static str,
    },
    /// No row became an example.
    #[error("none of {n_rows} rows gives an example: {reasons}")]
    NoExamples {
        /// Rows that were read.
        n_rows: usize,
        /// Why not, each with the first row.
        reasons: String,
    },
    /// An adapter cannot be made, read or written.
    #[error(transparent)]
    Adapter(#[from] rhetor_models::adapters::AdapterError),
    /// A method has no such option, or does not allow the value.
    #[error("{0}")]
    BadOption(String),
    /// A model cannot be loaded or written.
    #[error(transparent)]
    Model(#[from] rhetor_models::LoadError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Format(#[from] rhetor_formats::Error),
    /// The caller broke off; nothing was changed.
    #[error("broken off")]
    Cancelled,
    /// The objective needs a token that the vocabulary lacks.
    #[error("{objective} needs the token {token}, and the vocabulary has none")]
    MissingToken {
        /// The objective.
        objective: &'static str,
        /// The token, as it is usually written.
        token: String,
    },
}

impl Error {
    /// Turns what the system says into an error that names `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { path: path.to_path_buf(), source }
    }

    pub(crate) fn tokens(path: &Path, reason: impl Into<String>) -> Error {
        Error::Tokens { path: path.to_path_buf(), reason: reason.into() }
    }
}
