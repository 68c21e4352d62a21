//! Why a text cannot be read so.

use std::path::PathBuf;

/// Why a model cannot be used so, or a text cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(#[from] rhetor_models::LoadError),
    /// A file of the model cannot be read.
    #[error(transparent)]
    Format(#[from] rhetor_formats::Error),
    /// The vocabulary cannot do that.
    #[error(transparent)]
    Tokenizer(#[from] rhetor_tokenizer::Error),
    /// The tokenizer may produce ids for which the model has no embedding.
    #[error("the tokenizer has {n_tokens} tokens; the model expects at most {vocab_size}")]
    TokenizerTooLarge {
        /// Tokens of the tokenizer.
        n_tokens: usize,
        /// Rows of the model's embedding.
        vocab_size: usize,
    },
    /// The model has another head.
    #[error(
        "{what} takes a model with a head for {expected:?}; this one, of the family {family}, has one for {got:?}"
    )]
    WrongHead {
        /// What was asked for.
        what: &'static str,
        /// The head that it takes.
        expected: rhetor_models::Task,
        /// The head that there is.
        got: rhetor_models::Task,
        /// The family.
        family: &'static str,
    },
    /// A setting of a directory that means something else than we know.
    #[error("{}: `{key}` is {got}, expected {expected}", file.display())]
    Setting {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
    /// There is no prompt of that name.
    #[error("the model has no prompt `{name}`; it has {known}")]
    UnknownPrompt {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The vocabulary lacks a token that this takes.
    #[error("{what} takes a vocabulary with {token}; this one has none")]
    MissingToken {
        /// What was asked for.
        what: &'static str,
        /// What is missing.
        token: &'static str,
    },
    /// A text without a hidden word.
    #[error("the text has no {mask}: that is what is to be filled in")]
    NoMask {
        /// How the vocabulary writes it.
        mask: String,
    },
    /// A text that leaves no room for another.
    #[error("{what} has {got} tokens; with a context of {max} at most {allowed} have room")]
    TooLong {
        /// Which text.
        what: &'static str,
        /// Its tokens.
        got: usize,
        /// Of the model.
        max: usize,
        /// How many would do.
        allowed: usize,
    },
    /// An option outside its range.
    #[error("{option} is {got}, expected {expected}")]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
}
