//! `POST /api/push`: nothing leaves this machine; others pull from here.

use super::{find, progress};
use crate::app::App;
use crate::refusal::Refusal;
use crate::wire::body::JsonBody;
use crate::wire::fields::Fields;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use serde_json::json;
use std::sync::Arc;

/// `POST /api/push`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Response, Refusal> {
    let mut fields = Fields::of(body, "", app.config.lenient)?;
    let (model, name): (Option<String>, Option<String>) = (fields.take("model")?, fields.take("name")?);
    let is_stream = fields.take("stream")?.unwrap_or(true);
    let insecure: Option<bool> = fields.take("insecure")?;
    let _ = insecure;
    fields.finish()?;
    let name = model.or(name).unwrap_or_default();
    find(&app, &name)?;
    progress::reply(is_stream, move |told| {
        let _ = told.tell(json!({ "status": "retrieving manifest" }));
        let message = format!(
            "model '{name}' is not pushed: nothing leaves this machine; another instance can pull it from here as \
             HOST:PORT/library/{name}"
        );
        Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, message))
    })
    .await
}
