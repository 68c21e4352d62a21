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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use axum::routing::get;
    use http_body_util::BodyExt;
    use rhetor_store::{PullOptions, Store};
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_panic_in_one_request_is_a_500_for_that_one_only() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path());
        let app = Arc::new(App::new(Config::default(), store, PullOptions::default()));
        let routes = Router::new()
            .route("/panic", get(async || -> &'static str { panic!("on purpose") }))
            .route("/fine", get(async || "fine"));
        let router = guard(routes, &app);
        let ask = async |path: &str| {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            (response.status(), response.into_body().collect().await.unwrap().to_bytes())
        };
        let (status, body) = ask("/panic").await;
        let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (status, &error["error"]["type"]),
            (StatusCode::INTERNAL_SERVER_ERROR, &"server_error".into())
        );
        assert!(!error.to_string().contains("on purpose"), "what went wrong inside is not told");
        assert_eq!(ask("/fine").await, (StatusCode::OK, "fine".into()));
        assert_eq!(app.metrics.n_in_flight(), 0);
    }
}
