//! `GET /health`: whether the server is up.

use crate::app::App;
use axum::Json;
use axum::routing::{MethodRouter, get};
use serde_json::json;
use std::sync::Arc;

/// `GET /health`.
pub(super) fn methods() -> MethodRouter<Arc<App>> {
    get(async || Json(json!({ "status": "ok" })))
}
