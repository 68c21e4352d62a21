//! The body of a request as JSON.

use crate::refusal::Refusal;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use serde_json::Value;

/// The body of a request, which must be one JSON value of at most 128 levels.
pub(crate) struct JsonBody(pub Value);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<JsonBody, Refusal> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection: BytesRejection| {
            Refusal::new(rejection.status(), format!("the body cannot be read: {}", rejection.body_text()))
        })?;
        if bytes.is_empty() {
            return Err(Refusal::wrong("missing request body"));
        }
        serde_json::from_slice(&bytes)
            .map(JsonBody)
            .map_err(|error| Refusal::wrong(format!("the body is not JSON: {error}")))
    }
}
