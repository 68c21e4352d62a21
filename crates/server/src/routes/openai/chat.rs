//! `POST /v1/chat/completions`: the next turn of a conversation.

use crate::app::App;
use crate::refusal::Refusal;
use crate::routes::asking::{self, Putting};
use crate::wire::body::JsonBody;
use crate::wire::openai::chat_chunks::Chunks;
use crate::wire::openai::reply::Envelope;
use crate::wire::{openai, sse, stream};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use std::sync::Arc;

/// `POST /v1/chat/completions`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Response, Refusal> {
    let mut asked = openai::chat::read(body, app.config.lenient)?;
    let Putting { lease, request } = asking::put(&app, &mut asked).await?;
    let mut speech = crate::speech::Speech::begin(lease, request);
    if !asked.is_stream {
        let envelope = Envelope::new("chatcmpl-", "chat.completion", &asked.model);
        let completions = speech.completions().await?;
        return Ok(Json(openai::chat::write(&envelope, &asked, &completions)).into_response());
    }
    let first = stream::begun(&mut speech).await?;
    let envelope = Envelope::new("chatcmpl-", "chat.completion.chunk", &asked.model);
    let mut chunks = Chunks::new(envelope, asked);
    Ok(sse::reply(stream::body(speech, first, move |heard, out| chunks.write(heard, out))))
}
