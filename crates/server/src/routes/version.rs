//! `GET /version`: which program this is.

use crate::app::App;
use axum::Json;
use axum::routing::{MethodRouter, get};
use serde_json::json;
use std::sync::Arc;

/// `GET /version`.
pub(super) fn methods() -> MethodRouter<Arc<App>> {
    get(async || Json(json!({ "name": "rhetor", "version": env!("CARGO_PKG_VERSION") })))
}
