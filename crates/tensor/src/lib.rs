//! Tensors and their operations over rhetor-kernels.
#![forbid(unsafe_code)]
