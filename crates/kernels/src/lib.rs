//! Numeric kernels on slices, and the only `unsafe` code of rhetor.
//!
//! One operation is one file: formula and shapes, a safe public function that checks lengths, a `reference`
//! in obvious scalar code, and a dispatch to `arch`. No tensor, no file format, no allocation of results.

pub mod dtype;
pub mod isa;
pub mod map;
pub mod threads;

pub use dtype::DType;
