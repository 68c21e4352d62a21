//! OpenAI's API, under `/v1`.

pub(super) mod models;
