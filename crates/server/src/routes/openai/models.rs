//! `GET /v1/models`: the models that can be used.

use crate::app::App;
use crate::refusal::Refusal;
use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, get};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /v1/models`.
pub(in crate::routes) fn list() -> MethodRouter<Arc<App>> {
    get(async |State(app): State<Arc<App>>| -> Result<Json<Value>, Refusal> {
        let manifests = app.store.list().map_err(|error| {
            Refusal::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        })?;
        let models = manifests.iter().map(|manifest| {
            json!({ "id": manifest.name, "object": "model", "created": manifest.pulled_at, "owned_by": "rhetor" })
        });
        Ok(Json(json!({ "object": "list", "data": models.collect::<Vec<_>>() })))
    })
}
