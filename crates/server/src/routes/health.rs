//! `GET /health`: whether the server is up, and what it has in memory.

use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, get};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /health`. Needs no key, so it tells no names.
pub(super) fn methods() -> MethodRouter<Arc<App>> {
    get(async |State(app): State<Arc<App>>| -> Json<Value> {
        let loaded = app.residents.ps();
        let bytes: u64 = loaded.iter().map(|loaded| loaded.resident.bytes).sum();
        Json(json!({
            "status": "ok",
            "version": env!("CARGO_PKG_VERSION"),
            "requests_in_flight": app.metrics.n_in_flight(),
            "models_loaded": loaded.len(),
            "models_in_use": loaded.iter().filter(|loaded| loaded.n_users > 0).count(),
            "memory_bytes": bytes,
            "memory_bytes_max": app.residents.budget(),
        }))
    })
}
