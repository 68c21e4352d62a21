//! The `rhetor` program as a library: one module per command.
#![forbid(unsafe_code)]
