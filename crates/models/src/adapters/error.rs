//! Why an adapter cannot be made, attached, read or written.

use rhetor_catalog::BadOption;
use std::path::PathBuf;

/// Why an adapter cannot be made, attached, read or written.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file is broken, or cannot be read or written.
    #[error(transparent)]
    Format(#[from] rhetor_formats::Error),
    /// An option that the method does not have, or a value outside its range.
    #[error(transparent)]
    Option(#[from] BadOption),
    /// No method of the table has this name.
    #[error("there is no adapter `{got}`; there are {known}")]
    UnknownMethod {
        /// What was given.
        got: String,
        /// The names of the table.
        known: String,
    },
    /// What was asked for makes no sense for this method or this model.
    #[error("{method}: {what} is {got}, expected {expected}")]
    Refused {
        /// The method.
        method: &'static str,
        /// The option or property.
        what: &'static str,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
    /// A pattern of module names is no regular expression.
    #[error("`{pattern}` is no pattern of module names: {reason}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What the expression's reader says.
        reason: String,
    },
    /// No layer of the model is meant.
    #[error(
        "{method}: no layer of the model is called {targets}; its layers are called, for instance, {examples}"
    )]
    NoTarget {
        /// The method.
        method: &'static str,
        /// What was asked for.
        targets: String,
        /// Names of layers that there are.
        examples: String,
    },
    /// The directory holds no adapter.
    #[error("{}: no adapter: {expected} expected", dir.display())]
    NoAdapter {
        /// The directory.
        dir: PathBuf,
        /// What is looked for.
        expected: &'static str,
    },
    /// A key of the configuration has a value of the wrong kind, or is missing.
    #[error("{}: key `{key}` is {got}, expected {expected}", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        got: String,
        /// What would do.
        expected: &'static str,
    },
    /// The adapter uses something that changes its mathematics and that is not built here.
    #[error("{}: `{feature}` is {got}: an adapter with it computes something else, which is not supported", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The key of the configuration.
        feature: String,
        /// Its value.
        got: String,
    },
    /// A tensor that the configuration promises is absent.
    #[error("{}: tensor `{name}` is missing", file.display())]
    MissingTensor {
        /// The file.
        file: PathBuf,
        /// The tensor's name there.
        name: String,
    },
    /// A tensor that has no place in the model.
    #[error("{}: tensor `{name}` has no place in this model", file.display())]
    UnexpectedTensor {
        /// The file.
        file: PathBuf,
        /// The tensor's name there.
        name: String,
    },
    /// A tensor's shape contradicts the model or the configuration.
    #[error("{}: tensor `{name}` has shape {got:?}; this model expects {expected:?}", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor's name there.
        name: String,
        /// What the file holds.
        got: Vec<usize>,
        /// What the model has.
        expected: Vec<usize>,
    },
    /// A tensor's elements cannot be read as numbers, or are not finite.
    #[error("{}: tensor `{name}`: {got}; finite f32, f16 or bf16 expected", file.display())]
    Elements {
        /// The file.
        file: PathBuf,
        /// The tensor's name there.
        name: String,
        /// What is wrong.
        got: String,
    },
    /// The method adds something that no weight can hold.
    #[error("`{method}` cannot be merged into weights: {reason}")]
    NotMergeable {
        /// The method.
        method: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// Adapters that cannot be combined.
    #[error("{what} cannot be combined: {reason}")]
    NotCombinable {
        /// Which.
        what: String,
        /// Why.
        reason: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}
