//! What can be wrong with a vocabulary.

use std::path::PathBuf;

/// Why a tokenizer could not be read, trained or saved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file around the vocabulary could not be read.
    #[error(transparent)]
    Format(#[from] rhetor_formats::Error),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no vocabulary in the file, nor in a file beside it.
    #[error("{path}: no vocabulary; looked for {looked_for}")]
    NoVocabulary {
        /// The checkpoint.
        path: PathBuf,
        /// The names tried.
        looked_for: &'static str,
    },
    /// The tokenizer's algorithm is none of ours.
    #[error("tokenizer model `{name}` is not supported; supported are {supported}")]
    UnsupportedModel {
        /// What the file says.
        name: String,
        /// What could be read.
        supported: &'static str,
    },
    /// The name of the pre-tokenizer is not in the table.
    #[error(
        "pre-tokenizer `{name}` (tokenizer.ggml.pre) is unknown; splitting text by another's rules would give wrong ids"
    )]
    UnknownPreTokenizer {
        /// What the file says.
        name: String,
    },
    /// A field has a value that cannot be.
    #[error("{source_name}: {field}: expected {expected}, got {got}")]
    Field {
        /// The file or the kind of file.
        source_name: String,
        /// The field, key, line or offset.
        field: String,
        /// What would have been right.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A `tokenizer.json` that the engine for it refuses.
    #[error("tokenizer.json: {reason}")]
    TokenizerJson {
        /// What the engine says.
        reason: String,
    },
    /// Training failed.
    #[error("training a {kind} tokenizer: {reason}")]
    Training {
        /// The algorithm.
        kind: &'static str,
        /// Why.
        reason: String,
    },
    /// This tokenizer does not tell where in a text its tokens stand.
    #[error(
        "a tokenizer read from {read_from} does not say where in the text a token stands: that takes tokenizer.json or vocab.txt"
    )]
    NoSpans {
        /// Where it comes from.
        read_from: &'static str,
    },
    /// This tokenizer has no form as `tokenizer.json`.
    #[error("a tokenizer read from {read_from} cannot be saved as tokenizer.json")]
    CannotSave {
        /// Where it comes from.
        read_from: &'static str,
    },
}

impl Error {
    /// A [`Error::Field`].
    pub(crate) fn field(
        source_name: impl Into<String>,
        field: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Error {
        Error::Field {
            source_name: source_name.into(),
            field: field.into(),
            expected: expected.into(),
            got: got.into(),
        }
    }
}
