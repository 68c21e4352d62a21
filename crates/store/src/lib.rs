//! Names of models become files on this machine.
#![forbid(unsafe_code)]
