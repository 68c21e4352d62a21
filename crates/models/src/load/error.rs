//! Why a checkpoint cannot become a model.

use std::path::PathBuf;

use crate::adapters::AdapterError;
use crate::head::Task;
use crate::misfits::Misfits;

/// Why a checkpoint cannot become a model.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file itself is broken or a key has the wrong type.
    #[error(transparent)]
    Format(#[from] rhetor_formats::Error),
    /// An adapter does not fit.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// No family of the table reads this architecture.
    #[error("{}: architecture `{architecture}` is not supported; supported are {supported}", file.display())]
    UnknownArchitecture {
        /// The file or directory.
        file: PathBuf,
        /// What it says.
        architecture: String,
        /// What the table holds.
        supported: String,
    },
    /// The file does not say which architecture it holds.
    #[error("{}: the file names no architecture (`general.architecture` in GGUF, `architectures` or `model_type` in config.json; in ONNX the tensors of a dinov2 under `backbone.`)", file.display())]
    NoArchitecture {
        /// The file or directory.
        file: PathBuf,
    },
    /// A key that the architecture needs is absent.
    #[error("{}: key `{key}` is missing", file.display())]
    MissingKey {
        /// The file or directory.
        file: PathBuf,
        /// The key's name in this kind of file.
        key: String,
    },
    /// A key's value is outside what the architecture allows or rhetor supports.
    #[error("{}: key `{key}` is {got}, expected {expected}", file.display())]
    BadValue {
        /// The file or directory.
        file: PathBuf,
        /// The key's name in this kind of file.
        key: String,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
    /// Query heads cannot be shared out evenly.
    #[error("{n_heads} query heads cannot share {n_kv_heads} key and value heads evenly")]
    Heads {
        /// H
        n_heads: usize,
        /// K
        n_kv_heads: usize,
    },
    /// A head that models of this family do not have.
    #[error("{}: models of the family {family} have no head for {task:?}", file.display())]
    NoHead {
        /// The file or directory.
        file: PathBuf,
        /// The family.
        family: &'static str,
        /// What was asked for.
        task: Task,
    },
    /// More positions asked for than the model was made for.
    #[error("a context of {asked} tokens was asked for; the model was made for 1 to {trained}")]
    ContextTooLong {
        /// What was asked for.
        asked: usize,
        /// What the file says.
        trained: usize,
    },
    /// Tensors are missing, unknown or of wrong shape.
    #[error("{}: the tensors are not those of {family} with the sizes that the file gives{misfits}", file.display())]
    Tensors {
        /// The file or directory.
        file: PathBuf,
        /// The family.
        family: &'static str,
        /// Which.
        misfits: Box<Misfits>,
    },
    /// A part of a matrix in four bits is absent.
    #[error("{}: tensor `{name}` is missing", file.display())]
    MissingTensor {
        /// The file or directory.
        file: PathBuf,
        /// The tensor's name in this kind of file.
        name: String,
    },
    /// A tensor's elements are of a type that weights cannot have.
    #[error("{}: tensor `{name}` has elements of type {got}; weights are {expected}", file.display())]
    ElementType {
        /// The file or directory.
        file: PathBuf,
        /// The tensor's name in this kind of file.
        name: String,
        /// What the file holds.
        got: String,
        /// What would do.
        expected: &'static str,
    },
    /// A weight holds NaN or infinite values.
    #[error("{}: tensor `{name}` holds a value that is not finite (element {element})", file.display())]
    NotFinite {
        /// The file or directory.
        file: PathBuf,
        /// The tensor's name in this kind of file.
        name: String,
        /// Which element.
        element: usize,
    },
}
