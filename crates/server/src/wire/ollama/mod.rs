//! Ollama's API: how its requests are read and its replies written.

pub(crate) mod asked;
pub(crate) mod clock;
pub(crate) mod messages;
pub(crate) mod options;
pub(crate) mod reply;
