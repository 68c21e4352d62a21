//! `POST /api/embeddings`: the vector of one text, as the model gives it. Older clients ask so.

use super::vectors;
use crate::app::App;
use crate::refusal::Refusal;
use crate::wire::body::JsonBody;
use crate::wire::fields::Fields;
use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, post};
use serde_json::{Value, json};
use std::sync::Arc;

/// `POST /api/embeddings`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Json<Value>, Refusal> {
    let mut fields = Fields::of(body, "", app.config.lenient)?;
    let prompt: String = fields.take("prompt")?.unwrap_or_default();
    let asked = vectors::read(&mut fields)?;
    let mut warnings = fields.finish()?;
    let lease = vectors::lease(&app, &asked).await?;
    let mut reply = json!({ "embedding": [] });
    if !prompt.is_empty() {
        let found = vectors::of(&app, &lease, &[prompt], true).await?;
        reply["embedding"] = json!(found.vectors.first());
        if found.n_cut > 0 {
            warnings.push(format!("{} tokens had no room and were cut off", found.n_cut));
        }
    }
    if !warnings.is_empty() {
        reply["warnings"] = json!(warnings);
    }
    Ok(Json(reply))
}
