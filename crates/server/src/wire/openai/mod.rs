//! OpenAI's API as it is on the wire.

pub(crate) mod chat;
pub(crate) mod chat_chunks;
pub(crate) mod completion_chunks;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod format;
pub(crate) mod logprobs;
pub(crate) mod messages;
pub(crate) mod options;
pub(crate) mod reply;
pub(crate) mod response;
pub(crate) mod response_events;
pub(crate) mod response_items;
