//! The operations, one file each: shapes checked here, numbers in `rhetor-kernels`.

pub mod activation;
pub mod add;
pub mod attention;
pub mod columns;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod head_norm;
pub mod linear;
pub mod lstm;
pub mod mixture;
pub mod norm;
pub mod pooling;
pub mod rope;
pub mod rows;
pub mod scored_attention;
pub mod segments;
pub mod transpose;
