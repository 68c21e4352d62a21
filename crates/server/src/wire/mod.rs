//! How bodies are read and written.

pub(crate) mod body;
pub(crate) mod fields;
pub(crate) mod keep_alive;
pub(crate) mod ollama;
pub(crate) mod openai;
pub(crate) mod pictures;
pub(crate) mod request;
pub(crate) mod sse;
pub(crate) mod stream;
