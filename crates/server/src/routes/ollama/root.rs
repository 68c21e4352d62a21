//! `GET /`: front-ends look whether this text is there.

use crate::app::App;
use axum::routing::{MethodRouter, get};
use std::sync::Arc;

/// What Ollama says.
pub(in crate::routes) const TEXT: &str = "Ollama is running";

/// `GET /` and `HEAD /`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    get(async || TEXT)
}
