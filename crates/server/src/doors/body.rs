//! Bodies of requests: bounded in bytes, in time, and all together.

use super::is_transfer;
use crate::app::App;
use crate::refusal::Refusal;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// The unit in which the bytes of all bodies are counted.
const UNIT: usize = 4096;

/// Bytes that the bodies of all requests may take together.
pub(crate) struct Bodies(Arc<Semaphore>);

impl Bodies {
    /// Room for eight of the largest bodies, and for 64 MiB at least.
    pub fn new(body_bytes: usize) -> Bodies {
        let bytes = body_bytes.saturating_mul(8).max(64 << 20);
        Bodies(Arc::new(Semaphore::new((bytes / UNIT).min(u32::MAX as usize))))
    }
}

/// Reads the body before the route is asked, which then has it whole. Transfers read their own.
pub(super) async fn bound(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() || is_transfer(request.uri().path()) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    match read(&app, body).await {
        // The room is given back when the route has answered.
        Ok((bytes, _room)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(refusal) => {
            let mut response = refusal.into_response();
            // What is left of the body will not be read.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

async fn read(app: &App, mut body: Body) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
    let (most, pause) = (app.config.body_bytes, app.config.idle_time);
    let deadline = Instant::now() + app.config.request_time;
    let too_large = || {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {most} bytes"))
            .code("body_too_large")
    };
    // What was announced is refused before it comes.
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let (mut bytes, mut room) = (BytesMut::new(), None);
    let too_slow = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body comes too slowly");
    while let Some(frame) =
        timeout_at(deadline, timeout(pause, body.frame())).await.map_err(too_slow)?.map_err(too_slow)?
    {
        let frame = frame.map_err(|error| Refusal::wrong(format!("the body cannot be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(too_large());
        }
        take_room(app, &mut room, bytes.len(), data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.freeze(), room))
}

/// Room for `more` bytes after `have`.
fn take_room(
    app: &App,
    room: &mut Option<OwnedSemaphorePermit>,
    have: usize,
    more: usize,
) -> Result<(), Refusal> {
    let units = (have + more).div_ceil(UNIT) - have.div_ceil(UNIT);
    let taken = app.bodies.0.clone().try_acquire_many_owned(units as u32).map_err(|_| {
        let message = "the bodies of other requests take all the room there is for bodies";
        Refusal { retry_after: Some(1), ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    })?;
    match room {
        Some(room) => room.merge(taken),
        None => *room = Some(taken),
    }
    Ok(())
}
