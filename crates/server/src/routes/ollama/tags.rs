//! `GET /api/tags`: the models of the store, the newest first.

use super::{blocking, digest_of, display, refusal};
use crate::app::App;
use crate::refusal::Refusal;
use crate::wire::ollama::clock;
use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, get};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /api/tags` and `HEAD /api/tags`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    get(answer)
}

async fn answer(State(app): State<Arc<App>>) -> Result<Json<Value>, Refusal> {
    blocking(move || {
        let mut manifests = app.store.list().map_err(|error| refusal(&error))?;
        manifests.sort_by(|a, b| b.pulled_at.cmp(&a.pulled_at).then_with(|| a.name.cmp(&b.name)));
        let mut models = Vec::new();
        for manifest in manifests {
            let name = display(&manifest.name);
            let Ok(model) = app.store.show(&manifest.name) else { continue };
            let details = app.details.of(&model);
            models.push(json!({
                "name": name,
                "model": name,
                "modified_at": clock::of_seconds(manifest.pulled_at),
                "size": manifest.size(),
                "digest": digest_of(&manifest),
                "details": details.to_json(manifest.settings.parent.as_deref()),
                "capabilities": details.capabilities,
            }));
        }
        Ok(Json(json!({ "models": models })))
    })
    .await
}
