//! Why a file is no picture, or a picture no input.

use std::path::PathBuf;

/// Why a file is no picture, or a picture no input.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file has more bytes than any picture should.
    #[error("a picture of {got} bytes; at most {max} are read")]
    TooManyBytes {
        /// Its bytes.
        got: u64,
        /// The limit.
        max: u64,
    },
    /// The content is of no format that is read here.
    #[error("the content is no PNG, JPEG or WebP (first bytes \"{got}\")")]
    Format {
        /// The first bytes, escaped.
        got: String,
    },
    /// More pixels than are held in memory.
    #[error("a picture of {width} x {height} pixels; at most {max} in all are read")]
    TooManyPixels {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// The limit.
        max: u64,
    },
    /// The format is known, and the content breaks its rules.
    #[error("the picture is broken: {reason}")]
    Broken {
        /// What the decoder says.
        reason: String,
    },
    /// A key of `preprocessor_config.json` has a value that is not supported.
    #[error("preprocessor_config.json: key `{key}` is {got}, expected {expected}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// Its value.
        got: String,
        /// What would do.
        expected: &'static str,
    },
}
