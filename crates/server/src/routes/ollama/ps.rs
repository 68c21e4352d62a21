//! `GET /api/ps`: the models in memory, those that stay longest first.

use super::{blocking, digest_of, display};
use crate::app::App;
use crate::refusal::Refusal;
use crate::wire::ollama::clock;
use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, get};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /api/ps` and `HEAD /api/ps`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    get(answer)
}

async fn answer(State(app): State<Arc<App>>) -> Result<Json<Value>, Refusal> {
    blocking(move || {
        let mut loaded = app.residents.ps();
        loaded.sort_by_key(|one| std::cmp::Reverse((one.expires_at.is_none(), one.expires_at)));
        let models = loaded.iter().map(|one| {
            let resident = &one.resident;
            let name = display(&resident.name);
            let model = app.store.show(&resident.name).ok();
            let details = model.as_ref().map(|model| app.details.of(model)).unwrap_or_default();
            let manifest = model.and_then(|model| model.manifest);
            let parent = manifest.as_ref().and_then(|manifest| manifest.settings.parent.as_deref());
            json!({
                "name": name,
                "model": name,
                "size": resident.bytes,
                "digest": manifest.as_ref().map(digest_of).unwrap_or_default(),
                "details": details.to_json(parent),
                "expires_at": one.expires_at.map_or_else(clock::forever, clock::rfc3339),
                "size_vram": 0,
                "context_length": resident.context,
            })
        });
        Ok(Json(json!({ "models": models.collect::<Vec<_>>() })))
    })
    .await
}
