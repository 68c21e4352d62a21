//! Here is a file: what is in it?
//!
//! [`Checkpoint::open`] tells by content, not by name, what a file or directory is (GGUF, safetensors, a Hugging Face
//! directory, a PyTorch pickle, ONNX, llama2.c), checks all of it, and gives one view of every kind: [`Metadata`], a list
//! of [`TensorEntry`]s, and their bytes in a memory map. [`gguf::write`] and [`safetensors::write`] go the other way.
//!
//! Nothing here computes: bytes stay as they are in the file. No input makes it panic, and it allocates no more than
//! a small multiple of the file's size. Pickles are read without being executed.
#![forbid(unsafe_code)]

mod atomic;
mod checkpoint;
mod element;
mod error;
pub mod gguf;
mod hugging_face;
mod llama2c;
mod metadata;
mod onnx;
mod pickle;
mod reader;
pub mod safetensors;

pub use atomic::write_bytes;
pub use checkpoint::{Checkpoint, Kind, TensorEntry, TensorToWrite};
pub use element::ElementType;
pub use error::{Error, Place};
pub use metadata::{Array, Metadata, Strings, TypedValue, Value, ValueType};
