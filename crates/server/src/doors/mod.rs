//! Who may enter, from where, and how much at once. From the outside in:
//!
//! 1. `outside`: every request gets an id, a line in the log, headers that keep browsers careful, and a reply in its own
//!    dialect whatever happens within: a panic, a refusal, too long a time;
//! 2. `host`: names under which nobody may call a server on loopback (DNS rebinding);
//! 3. `origin`: pages of other origins;
//! 4. `keys`: who has no key;
//! 5. `body`: bodies that are too large or too slow.
//!
//! `serve` bounds what comes before a request: connections, heads, handshakes. `pictures` is a door to the outside: what
//! the server itself may fetch.

mod body;
mod host;
mod keys;
mod origin;
mod outside;
pub(crate) mod pictures;

pub(crate) use body::Bodies;
pub use keys::ApiKey;

use crate::app::App;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use std::sync::Arc;

/// Puts the doors around the routes.
pub(crate) fn guard(router: Router, app: &Arc<App>) -> Router {
    let keys = Arc::new(keys::Keys::new(&app.config.api_keys));
    router
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), body::bound))
        .layer(from_fn_with_state(keys, keys::ask))
        .layer(from_fn_with_state(app.clone(), origin::check))
        .layer(from_fn_with_state(app.clone(), host::check))
        .layer(from_fn_with_state(app.clone(), outside::meet))
        .layer(from_fn(outside::carry_on))
}

/// Paths of uploads and downloads: no limit of bytes or time but the disk's and the network's.
fn is_transfer(path: &str) -> bool {
    path.starts_with("/api/blobs/") || matches!(path, "/api/pull" | "/api/push" | "/api/create")
}
