//! Token ids to logits: families, layers, key-value cache.
#![forbid(unsafe_code)]

pub mod quant_mix;
