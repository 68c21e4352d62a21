//! Text to token ids and back.
#![forbid(unsafe_code)]
