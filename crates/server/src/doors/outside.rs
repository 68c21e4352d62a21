//! The outermost door: what every request gets, whatever happens within.

use super::is_transfer;
use crate::app::App;
use crate::metrics::InFlight;
use crate::refusal::{Dialect, Refusal};
use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// What a route may still do after the time of its request is over: say so in its own way.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Headers of every reply that does not set them itself.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    ),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Counts and logs a request, bounds its time, and writes a refusal as the API of its path has it.
pub(super) async fn meet(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_string());
    let id = id_of(request.headers());
    let in_flight = app.metrics.enter();
    let time = match is_transfer(&path) {
        true => Duration::MAX,
        false => app.config.request_time.saturating_add(LAST_WORDS),
    };
    let answered = tokio::time::timeout(time, AssertUnwindSafe(next.run(request)).catch_unwind()).await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!(id, %method, path, "panic");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed at this request")
                .into_response()
        }
        Err(_) => {
            let message = format!("the request took longer than {} s", app.config.request_time.as_secs());
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message).code("timeout").into_response()
        }
    };
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        tracing::debug!(id, status = refusal.status.as_u16(), reason = %refusal.message, "refuse");
        let mut reply = refusal.reply(Dialect::of(&path));
        for (name, value) in response.headers() {
            if !reply.headers().contains_key(name) && name != header::CONTENT_LENGTH {
                reply.headers_mut().append(name, value.clone());
            }
        }
        response = reply;
    }
    let status = response.status();
    // Paths that nobody serves are counted as one: callers must not make the list of counters grow.
    app.metrics.count(matched.as_deref().unwrap_or("unknown"), &method, status);
    let headers = response.headers_mut();
    for (name, value) in &HEADERS {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    let ms = began.elapsed().as_millis() as u64;
    headers.insert("openai-processing-ms", HeaderValue::from(ms));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    let line =
        Line { id, method: method.to_string(), path, status: status.as_u16(), began, _in_flight: in_flight };
    response.map(|body| Body::new(Followed { body, _line: line }))
}

/// Catches what even [`meet`] cannot.
pub(super) async fn carry_on(request: Request, next: Next) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The caller's own id, if it is short and plain; else one that no other request has.
fn id_of(headers: &HeaderMap) -> String {
    static START: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let is_plain = |id: &&str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match headers.get("x-request-id").and_then(|id| id.to_str().ok()).filter(is_plain) {
        Some(id) => id.to_string(),
        None => format!("req_{:016x}{:08x}", *START, NEXT.fetch_add(1, Ordering::Relaxed)),
    }
}

/// A reply's line in the log, written when the last byte is sent or the caller has gone.
struct Line {
    id: String,
    method: String,
    path: String,
    status: u16,
    began: Instant,
    _in_flight: InFlight,
}

impl Drop for Line {
    fn drop(&mut self) {
        let Line { id, method, path, status, began, .. } = self;
        let ms = began.elapsed().as_millis() as u64;
        tracing::info!(id, method, path, status, ms, "answer");
    }
}

/// A body whose end is noticed.
struct Followed {
    body: Body,
    _line: Line,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_id_of_the_caller_is_kept_and_others_are_replaced() {
        let with = |id: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_static(id));
            id_of(&headers)
        };
        assert_eq!(with("abc-1"), "abc-1");
        assert!(with("a b").starts_with("req_") && with("").starts_with("req_"));
        assert_ne!(id_of(&HeaderMap::new()), id_of(&HeaderMap::new()));
    }
}
