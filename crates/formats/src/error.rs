//! What can be wrong with a model file: what, where, expected, got.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Where in a file something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The field by name, as in ``shape of tensor `output.weight` ``.
    pub field: String,
    /// The field's offset in bytes from the start of the file.
    pub offset: u64,
}

impl Place {
    pub(crate) fn new(file: &Path, field: impl fmt::Display, offset: usize) -> Place {
        Place { file: file.to_path_buf(), field: field.to_string(), offset: offset as u64 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at offset {}", self.file.display(), self.field, self.offset)
    }
}

/// Why a model file or directory cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused to open, read or write a file.
    #[error("cannot {action} {}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What was tried: `open`, `read`, `write`.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A file without a byte.
    #[error("{} is empty: expected a model, got 0 bytes; was the download or copy interrupted?", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// A page of HTML or XML that was saved under the name of a model.
    #[error(
        "{} is a web page: expected a model, got {got}; the download probably met a login or error page",
        file.display()
    )]
    WebPage {
        /// The file.
        file: PathBuf,
        /// The first characters.
        got: String,
    },
    /// The pointer that Git LFS keeps in place of a large file.
    #[error("{} is a Git LFS pointer to {got}: expected the model itself; fetch it with `git lfs pull`", file.display())]
    LfsPointer {
        /// The file.
        file: PathBuf,
        /// The size that the pointer names.
        got: String,
    },
    /// A file whose content belongs to no known format.
    #[error("{} is no model that can be read: expected {expected}, got {got}", file.display())]
    Unrecognized {
        /// The file.
        file: PathBuf,
        /// The formats known.
        expected: &'static str,
        /// The first bytes.
        got: String,
    },
    /// A directory with no weights, or with several files of weights none of which is the obvious one.
    #[error("{} is a directory without one model: expected {expected}, got {got}", file.display())]
    Directory {
        /// The directory.
        file: PathBuf,
        /// The files looked for.
        expected: &'static str,
        /// The candidates found.
        got: String,
    },
    /// A version or variant of a known format that is not read.
    #[error("{place}: unsupported: expected {expected}, got {got}")]
    Unsupported {
        /// Where.
        place: Place,
        /// The variants that are read.
        expected: &'static str,
        /// The variant found.
        got: String,
    },
    /// The file ends before the field does.
    #[error("{place}: the file is cut off: expected {expected} bytes, got {got}")]
    Truncated {
        /// Where.
        place: Place,
        /// Bytes that the field needs.
        expected: u64,
        /// Bytes that are left.
        got: u64,
    },
    /// A count, length or product beyond what the file or this machine can hold.
    #[error("{place}: too large: expected at most {expected}, got {got}")]
    TooLarge {
        /// Where.
        place: Place,
        /// The greatest value accepted.
        expected: u64,
        /// The value found.
        got: u64,
    },
    /// Nesting deeper than anything honest.
    #[error("{place}: nested too deeply: expected at most {expected} levels")]
    TooDeep {
        /// Where.
        place: Place,
        /// The greatest depth accepted.
        expected: usize,
    },
    /// Text that is no UTF-8.
    #[error("{place}: expected UTF-8, got {got}")]
    Utf8 {
        /// Where.
        place: Place,
        /// The text, wrong bytes replaced.
        got: String,
    },
    /// A number or name of a type that is not known.
    #[error("{place}: unknown type: expected {expected}, got {got}")]
    UnknownType {
        /// Where.
        place: Place,
        /// The types known.
        expected: &'static str,
        /// What was found.
        got: String,
    },
    /// A value that the format forbids.
    #[error("{place}: expected {expected}, got {got}")]
    Invalid {
        /// Where.
        place: Place,
        /// What the format asks for.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A name that occurs twice.
    #[error("{place}: expected unique names, got `{got}` twice")]
    Duplicate {
        /// Where the second one is.
        place: Place,
        /// The name.
        got: String,
    },
    /// Two tensors that share bytes.
    #[error("{place}: expected data of its own, got bytes that belong to `{got}`")]
    Overlap {
        /// Where.
        place: Place,
        /// The other tensor.
        got: String,
    },
    /// Text that is not the JSON expected.
    #[error("{place}: expected {expected}, got {got}")]
    Json {
        /// Where.
        place: Place,
        /// What was expected.
        expected: &'static str,
        /// What the JSON reader said.
        got: String,
    },
    /// A file name in an index that leads outside of the model's directory.
    #[error("{place}: expected the name of a file in the same directory, got `{got}`")]
    UnsafePath {
        /// Where.
        place: Place,
        /// The name.
        got: String,
    },
    /// A pickle that asks for something other than tensors; nothing of it was executed.
    #[error("{place}: expected tensors only, got {got}; refused, since loading it would run code")]
    Forbidden {
        /// Where.
        place: Place,
        /// The global or opcode by name.
        got: String,
    },
    /// A metadata key that is needed and absent.
    #[error("{}: metadata key `{key}` is missing: expected {expected}", file.display())]
    MissingKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// The type asked for.
        expected: &'static str,
    },
    /// A metadata value of another type than asked for.
    #[error("{}: metadata key `{key}`: expected {expected}, got {got}", file.display())]
    WrongType {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// The type asked for.
        expected: &'static str,
        /// The value found.
        got: String,
    },
    /// A tensor handed to a writer with more or fewer bytes than its shape and type have.
    #[error("{}: data of tensor `{tensor}`: expected {expected} bytes, got {got}", file.display())]
    WrongSize {
        /// The file written.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Bytes of its shape and type.
        expected: u64,
        /// Bytes handed over.
        got: u64,
    },
}

impl Error {
    /// What becomes of the system's refusal to create the folder `dir`.
    pub fn create(dir: &Path) -> impl FnOnce(io::Error) -> Error {
        Error::io("create", dir)
    }

    pub(crate) fn io(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Error {
        let file = file.to_path_buf();
        move |source| Error::Io { file, action, source }
    }
}
