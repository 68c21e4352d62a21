//! `GET /v1/models` and `GET /v1/models/{id}`: the models that can be used.

use crate::app::App;
use crate::refusal::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /v1/models`.
pub(in crate::routes) fn list() -> MethodRouter<Arc<App>> {
    get(async |State(app): State<Arc<App>>| -> Result<Json<Value>, Refusal> {
        Ok(Json(json!({ "object": "list", "data": models(&app)? })))
    })
}

/// `GET /v1/models/{id}`; `DELETE` is refused.
pub(in crate::routes) fn one() -> MethodRouter<Arc<App>> {
    get(async |State(app): State<Arc<App>>, Path(id): Path<String>| -> Result<Json<Value>, Refusal> {
        find(&app, &id).map(Json)
    })
    .delete(
        async |State(app): State<Arc<App>>, Path(id): Path<String>| -> Result<Json<Value>, Refusal> {
            find(&app, &id)?;
            let message =
                format!("model '{id}' is not deleted here; `rhetor rm` and DELETE /api/delete do it");
            Err(Refusal::new(StatusCode::FORBIDDEN, message))
        },
    )
}

fn find(app: &App, id: &str) -> Result<Value, Refusal> {
    let plain = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_string();
    let is_it = |model: &Value| model["id"].as_str().is_some_and(|name| plain(name) == plain(id));
    models(app)?.into_iter().find(is_it).ok_or_else(|| Refusal::no_model(id))
}

/// The models of the store and the adapters that the server was set up with, as far as they may be used.
fn models(app: &App) -> Result<Vec<Value>, Refusal> {
    let broken =
        |error: rhetor_store::Error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let allowed = &app.config.models;
    let is_allowed = |name: &str| allowed.is_empty() || allowed.iter().any(|model| model == name);
    let manifests = app.store.list().map_err(broken)?;
    let of_store = manifests.iter().filter(|manifest| is_allowed(&manifest.name)).map(|manifest| {
        json!({ "id": manifest.name, "object": "model", "created": manifest.pulled_at, "owned_by": "rhetor" })
    });
    let adapters = app.config.adapters.iter().filter(|(name, ..)| is_allowed(name)).map(|(name, base, _)| {
        json!({ "id": name, "object": "model", "created": 0, "owned_by": "rhetor", "parent": base })
    });
    Ok(of_store.chain(adapters).collect())
}
