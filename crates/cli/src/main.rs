//! The `rhetor` program.
#![forbid(unsafe_code)]

fn main() {}
