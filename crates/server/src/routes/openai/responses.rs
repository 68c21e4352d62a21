//! `POST /v1/responses`: an answer that may be asked for again and continued.

use crate::app::App;
use crate::refusal::Refusal;
use crate::routes::asking::{self, Putting};
use crate::speech::{Heard, Speech};
use crate::wire::body::JsonBody;
use crate::wire::openai::response;
use crate::wire::openai::response_events::Events;
use crate::wire::{sse, stream};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde_json::{Value, json};
use std::sync::Arc;

/// `POST /v1/responses`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

/// `GET` and `DELETE /v1/responses/{id}`.
pub(in crate::routes) fn one() -> MethodRouter<Arc<App>> {
    get(async |State(app): State<Arc<App>>, Path(id): Path<String>| -> Result<Json<Value>, Refusal> {
        app.responses.get(&id).map(|kept| Json(kept.response.clone())).ok_or_else(|| unknown(&id, "id"))
    })
    .delete(
        async |State(app): State<Arc<App>>, Path(id): Path<String>| -> Result<Json<Value>, Refusal> {
            match app.responses.delete(&id) {
                true => Ok(Json(json!({ "id": id, "object": "response", "deleted": true }))),
                false => Err(unknown(&id, "id")),
            }
        },
    )
}

fn unknown(id: &str, path: &str) -> Refusal {
    let message =
        format!("response '{id}' not found: it was not stored, was deleted, or made room for others");
    Refusal { param: Some(path.to_string()), ..Refusal::new(StatusCode::NOT_FOUND, message) }
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Response, Refusal> {
    let before = match response::previous(&body) {
        Some(id) => Some(app.responses.get(id).ok_or_else(|| unknown(id, "previous_response_id"))?),
        None => None,
    };
    let mut asked = response::read(body, before.as_deref(), app.config.lenient)?;
    let Putting { lease, mut request } = asking::put(&app, &mut asked.asked).await?;
    if let Some(before) = &before {
        request.pictures.splice(0..0, before.pictures.iter().cloned());
        asked.asked.request.pictures.clone_from(&request.pictures);
    }
    let is_stream = asked.asked.is_stream;
    let mut speech = Speech::begin(lease, request);
    let first = stream::begun(&mut speech).await?;
    let mut events = Events::new(asked);
    if is_stream {
        let mut has_begun = false;
        let write = move |heard: Heard, out: &mut Vec<u8>| {
            if !std::mem::replace(&mut has_begun, true) {
                events.begin(out);
            }
            events.write(heard, out);
            keep(&app, &mut events);
        };
        return Ok(sse::reply(stream::body(speech, first, write)));
    }
    let mut heard = first;
    loop {
        heard = match heard {
            Heard::Panicked => return Err(Refusal::panicked()),
            Heard::Done(Err(error)) => return Err(error.into()),
            heard => {
                let is_over = matches!(heard, Heard::Done(_));
                events.write(heard, &mut Vec::new());
                if is_over {
                    keep(&app, &mut events);
                    return Ok(Json(events.response()).into_response());
                }
                speech.next().await
            }
        };
    }
}

fn keep(app: &App, events: &mut Events) {
    if let Some((id, kept)) = events.take_kept() {
        app.responses.keep(&id, kept);
    }
}
