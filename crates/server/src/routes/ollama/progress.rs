//! Replies of work that takes a while: a line for each status, or the last one alone.

use crate::refusal::{Dialect, Refusal};
use crate::wire::ollama::reply::{lines, object, write_line};
use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::stream::unfold;
use serde_json::Value;
use std::convert::Infallible;
use std::ops::ControlFlow;
use tokio::sync::mpsc;

/// Statuses that may wait for a slow reader; then those of the same kind are left out.
const WAITING_MAX: usize = 64;

/// Where work tells how far it is.
pub(super) struct Told(mpsc::Sender<Value>);

impl Told {
    /// Tells a status that must not be lost; `Break` if nobody listens any more.
    pub fn tell(&self, status: Value) -> ControlFlow<()> {
        match self.0.blocking_send(status) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// Tells how far something is, if the reader keeps up; `Break` if nobody listens any more.
    pub fn mention(&self, status: Value) -> ControlFlow<()> {
        match self.0.try_send(status) {
            Err(mpsc::error::TrySendError::Closed(_)) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// What is heard of the work.
enum Said {
    Status(Value),
    End(Result<(), Refusal>),
}

struct Work {
    statuses: mpsc::Receiver<Value>,
    end: tokio::task::JoinHandle<Result<(), Refusal>>,
}

impl Work {
    async fn next(&mut self) -> Said {
        match self.statuses.recv().await {
            Some(status) => Said::Status(status),
            None => Said::End((&mut self.end).await.unwrap_or_else(|_| Err(Refusal::panicked()))),
        }
    }
}

/// Does `work` on a thread of its own. A stream has the status 200 whatever comes, and ends with the last status or an
/// error; else an error has a status of its own.
pub(super) async fn reply(
    is_stream: bool,
    work: impl FnOnce(&Told) -> Result<(), Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    let (tell, statuses) = mpsc::channel(WAITING_MAX);
    let end = tokio::task::spawn_blocking(move || work(&Told(tell)));
    let mut work = Work { statuses, end };
    if !is_stream {
        let mut last = Value::Null;
        loop {
            match work.next().await {
                Said::Status(status) => last = status,
                Said::End(end) => return end.map(|()| object(&last)),
            }
        }
    }
    let body = Body::from_stream(unfold(Some(work), async |work| {
        let mut work = work?;
        let mut out = Vec::new();
        let next = match work.next().await {
            Said::Status(status) => {
                write_line(&status, &mut out);
                Some(work)
            }
            Said::End(Ok(())) => return None,
            Said::End(Err(refusal)) => {
                write_line(&refusal.body(Dialect::Ollama), &mut out);
                None
            }
        };
        Some((Ok::<_, Infallible>(Bytes::from(out)), next))
    }));
    Ok(lines(body))
}
