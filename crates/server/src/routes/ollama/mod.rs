//! Ollama's API, under `/api`, and the part of a registry's that other instances pull from, under `/v2`.

pub(super) mod blobs;
pub(super) mod chat;
pub(super) mod copy;
pub(super) mod create;
pub(super) mod delete;
pub(super) mod embed;
pub(super) mod embeddings;
pub(super) mod generate;
mod progress;
pub(super) mod ps;
pub(super) mod pull;
pub(super) mod push;
mod put;
pub(super) mod registry;
pub(super) mod show;
pub(super) mod tags;
mod vectors;
pub(super) mod version;

use crate::app::App;
use crate::refusal::Refusal;
use axum::http::StatusCode;
use rhetor_store::{Error, PulledModel};

/// The model of that name, by any spelling.
fn find(app: &App, name: &str) -> Result<PulledModel, Refusal> {
    app.store.show(name).map_err(|error| match error {
        Error::NotPulled { .. } | Error::Reference { .. } | Error::FileName { .. } => Refusal::no_model(name),
        other => refusal(&other),
    })
}

/// What the store says, as a refusal.
fn refusal(error: &Error) -> Refusal {
    let status = match error {
        Error::NotPulled { .. } | Error::UnknownModel { .. } | Error::NotFound { .. } => {
            StatusCode::NOT_FOUND
        }
        Error::Io { .. } | Error::Manifest { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        Error::Space { .. } | Error::DiskFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
        Error::Connection { .. } | Error::Status { .. } | Error::Protocol { .. } | Error::Archive { .. } => {
            StatusCode::BAD_GATEWAY
        }
        _ => StatusCode::BAD_REQUEST,
    };
    Refusal::new(status, error.to_string())
}

/// The name of a model as clients see it, with its tag; references to packages and addresses stay as they are.
fn display(stored: &str) -> String {
    rhetor_store::ModelName::parse(stored).map_or_else(|_| stored.to_string(), |name| name.to_string())
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Refusal::panicked()))
}

/// sha256 of a model's manifest as a registry gives it, in hex.
fn digest_of(manifest: &rhetor_store::Manifest) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(manifest.to_registry()).iter().map(|byte| format!("{byte:02x}")).collect()
}
