//! OpenAI's API, under `/v1`.

pub(super) mod chat;
pub(super) mod completions;
pub(super) mod embeddings;
pub(super) mod models;
pub(super) mod responses;
