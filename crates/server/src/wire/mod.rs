//! How bodies are read and written.

pub(crate) mod fields;
