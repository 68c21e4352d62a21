//! Who may enter, from where, and how much at once.

use crate::app::App;
use crate::refusal::{Dialect, Refusal};
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use std::sync::Arc;

/// Puts the doors around the routes.
pub(crate) fn guard(router: Router, _app: &Arc<App>) -> Router {
    router.layer(from_fn(speak_the_dialect))
}

/// Writes a refusal as the API of the path has it.
async fn speak_the_dialect(request: Request, next: Next) -> Response {
    let dialect = Dialect::of(request.uri().path());
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Refusal>() {
        Some(refusal) => refusal.reply(dialect),
        None => response,
    }
}
