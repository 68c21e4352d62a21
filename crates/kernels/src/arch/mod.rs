//! Instruction sets: what the operations are written on, and the dispatch to it.

#[cfg(target_arch = "x86_64")]
mod vector_avx2;
#[cfg(target_arch = "x86_64")]
mod vector_avx512;

pub(crate) mod math;
pub(crate) mod vector;
