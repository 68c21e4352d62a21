//! Why an engine cannot be made.

/// Why an engine cannot be made as wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tokenizer may produce ids for which the model has no embedding.
    #[error("the tokenizer has {n_tokens} tokens; the model expects at most {vocab_size}")]
    TokenizerTooLarge {
        /// Tokens of the tokenizer.
        n_tokens: usize,
        /// Rows of the model's embedding.
        vocab_size: usize,
    },
    /// The model predicts no next token: an encoder, a recurrent network without a cache, a head for a task.
    #[error(
        "a model of the family {family} with a head for {task:?} writes no text: that takes a decoder with its vocabulary"
    )]
    NoGeneration {
        /// The family.
        family: &'static str,
        /// What its head is for.
        task: rhetor_models::Task,
    },
    /// The context asked for is longer than the model allows, or empty.
    #[error("a context of {context} tokens is asked for; the model allows 1 to {context_max}")]
    ContextOutOfRange {
        /// Tokens asked for.
        context: usize,
        /// Tokens the model allows.
        context_max: usize,
    },
    /// The cache cannot hold a single full context.
    #[error("the cache holds {cache_tokens} tokens; a context of {context} needs at least as many")]
    CacheTooSmall {
        /// Tokens of the cache.
        cache_tokens: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// The folder for beginnings of prompts cannot be used.
    #[error("{}: prefixes cannot be kept there: {source}", dir.display())]
    PrefixStore {
        /// The folder.
        dir: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The chat template is no valid Jinja.
    #[error("the chat template is not valid: {reason}")]
    InvalidTemplate {
        /// What the parser says, with the line.
        reason: String,
    },
    /// The model's adapters cannot run together.
    #[error(transparent)]
    Adapters(#[from] rhetor_models::adapters::AdapterError),
    /// An adapter leads to no base model.
    #[error("{}: the adapter {reason}", dir.display())]
    AdapterBase {
        /// The adapter's folder.
        dir: std::path::PathBuf,
        /// What it does wrong.
        reason: &'static str,
    },
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] rhetor_formats::Error),
    /// The checkpoint is no model that can be loaded.
    #[error(transparent)]
    Load(#[from] rhetor_models::LoadError),
    /// The vocabulary cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] rhetor_tokenizer::Error),
    /// The drafter cannot work for this model.
    #[error("the drafter `{method}`: {reason}")]
    Drafter {
        /// Its name.
        method: String,
        /// What is wrong, with what was given.
        reason: String,
    },
    /// No built-in template has that name.
    #[error("there is no chat template `{name}`; there are {known}")]
    UnknownTemplate {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
}
