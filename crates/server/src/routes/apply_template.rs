//! `POST /apply-template`: the text that a conversation becomes before a model reads it.

use super::asking;
use crate::app::App;
use crate::refusal::Refusal;
use crate::wire::body::JsonBody;
use crate::wire::openai::chat;
use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, post};
use serde_json::{Value, json};
use std::sync::Arc;

/// `POST /apply-template` with the body of a chat request.
pub(super) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Json<Value>, Refusal> {
    let mut asked = chat::read(body, app.config.lenient)?;
    let putting = asking::put(&app, &mut asked).await?;
    let mut reply =
        json!({ "model": asked.model, "prompt": putting.lease.engine()?.render(&putting.request)? });
    if !asked.warnings.is_empty() {
        reply["warnings"] = asked.warnings.into();
    }
    Ok(Json(reply))
}
