//! `HEAD` and `POST /api/blobs/{digest}`: files that clients bring for `create`.

use super::{blocking, refusal};
use crate::app::App;
use crate::refusal::Refusal;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{MethodRouter, head};
use futures_util::StreamExt;
use rhetor_store::{Error, parse_digest};
use std::sync::Arc;

/// `HEAD` and `POST /api/blobs/{digest}`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    head(look).post(upload)
}

fn checked(digest: &str) -> Result<String, Refusal> {
    parse_digest(digest).map(str::to_string).map_err(|error| Refusal::field("digest", error.to_string()))
}

async fn look(State(app): State<Arc<App>>, Path(digest): Path<String>) -> Result<StatusCode, Refusal> {
    let sha256 = checked(&digest)?;
    match app.store.reserve_blob(&sha256).map_err(|error| refusal(&error))? {
        true => Ok(StatusCode::OK),
        false => Err(Refusal::new(StatusCode::NOT_FOUND, format!("blob {digest:?} not found"))),
    }
}

/// The body goes to a file as it comes, and is hashed on the way.
async fn upload(
    State(app): State<Arc<App>>,
    Path(digest): Path<String>,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let sha256 = checked(&digest)?;
    if app.store.reserve_blob(&sha256).map_err(|error| refusal(&error))? {
        return Ok(StatusCode::OK);
    }
    let mut writer = app.store.write_blob(&sha256).map_err(|error| refusal(&error))?;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Refusal::wrong(format!("the upload broke off: {error}")))?;
        writer = blocking(move || {
            writer.write(&piece).map_err(|error| refusal(&error))?;
            Ok(writer)
        })
        .await?;
    }
    blocking(move || {
        writer.finish().map_err(|error| match error {
            Error::Hash { expected, got, .. } => Refusal::field(
                "digest",
                format!("digest mismatch, expected \"sha256:{expected}\", got \"sha256:{got}\""),
            ),
            other => refusal(&other),
        })
    })
    .await?;
    Ok(StatusCode::CREATED)
}
