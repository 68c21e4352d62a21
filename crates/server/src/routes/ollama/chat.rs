//! `POST /api/chat`: the next turn of a conversation.

use super::put;
use crate::app::App;
use crate::refusal::Refusal;
use crate::wire::body::JsonBody;
use crate::wire::ollama::asked;
use crate::wire::ollama::reply::Shape;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use std::sync::Arc;

/// `POST /api/chat`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Response, Refusal> {
    let asked = asked::chat(body, app.config.lenient)?;
    put::reply(app, asked, Shape::Chat).await
}
