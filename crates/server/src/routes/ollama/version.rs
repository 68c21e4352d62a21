//! `GET /api/version`: the version of Ollama's API that is spoken here.

use crate::app::App;
use axum::Json;
use axum::routing::{MethodRouter, get};
use serde_json::json;
use std::sync::Arc;

/// The version whose API this is; clients compare it with what they need.
const VERSION: &str = "0.14.0";

/// `GET /api/version` and `HEAD /api/version`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    get(async || Json(json!({ "version": VERSION, "rhetor": env!("CARGO_PKG_VERSION") })))
}
