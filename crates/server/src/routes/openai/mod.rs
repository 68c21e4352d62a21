//! OpenAI's API, under `/v1`.

mod asking;
pub(super) mod chat;
pub(super) mod models;
