//! Numeric kernels on slices, and the only `unsafe` code of rhetor.
//!
//! One operation is one file: formula and shapes, a safe public function that checks lengths, a `reference`
//! in obvious scalar code, and a dispatch to `arch`. No tensor, no file format, no allocation of results.

pub mod activation;
pub mod add;
pub mod attention;
pub mod cross_entropy;
pub mod dropout;
pub mod dtype;
pub mod embedding;
pub mod gemm;
pub mod half;
pub mod huge_pages;
pub mod isa;
pub mod kv;
pub mod layer_norm;
pub mod log_sum_exp;
pub mod lstm;
pub mod map;
pub mod matmul;
pub mod optimizer;
pub mod quant;
pub mod reduce;
pub mod rms_norm;
pub mod rope;
pub mod select;
pub mod softmax;
pub mod threads;

mod arch;
mod rows;
#[cfg(test)]
mod testing;

pub use dtype::DType;
