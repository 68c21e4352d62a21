//! Tensors and their operations over `rhetor-kernels`.
//!
//! Operations run at once (eagerly). Outputs live in recycled buffers of a thread-local arena, so a forward pass in
//! steady state allocates nothing. Operations are coarse: one for each step that a paper would name (linear, norm, rope, attention, ...),
//! which is also the grain at which the [`tape`] records them: an operation owns its output and only reads its inputs,
//! and writes in place only into a buffer that nobody else holds; a record that holds an input therefore
//! turns the same call into one that leaves the input as it was.
//!
//! No file, no model, no thread pool of its own. Shapes are checked by assertions that show both sides: loading has
//! checked what comes from outside.
#![forbid(unsafe_code)]

mod arena;
pub mod gradient_check;
pub mod ops;
mod parameter;
mod shape;
pub mod tape;
mod tensor;
mod weight;

pub use parameter::{Parameter, Vector};
pub use shape::Shape;
pub use tensor::Tensor;
pub use weight::Weight;
