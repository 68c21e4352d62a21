//! GGUF, the format of llama.cpp: typed metadata, tensor table, aligned data; versions 2 and 3, little-endian.
//!
//! Version 1 (32-bit lengths) and big-endian files are refused by name. Source: the GGUF specification,
//! `docs/gguf.md` of the ggml project.

mod read;
mod split;
mod write;

pub(crate) use read::{Contents, read};
pub(crate) use split::{is_later_part, join};
pub use write::write;

pub(crate) const MAGIC: &[u8] = b"GGUF";

/// Alignment of tensor data in bytes, unless the file says otherwise.
const ALIGNMENT: usize = 32;

/// The key that says otherwise.
const ALIGNMENT_KEY: &str = "general.alignment";

/// The most dimensions that ggml knows.
const DIMS_MAX: usize = 4;

/// The deepest nesting of arrays; real files have 1.
const DEPTH_MAX: usize = 8;
