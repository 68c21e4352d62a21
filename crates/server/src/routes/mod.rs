//! Every route: the table, nothing else.

mod health;
mod openai;

use crate::app::App;
use axum::routing::MethodRouter;
use std::sync::Arc;

/// One line of the table.
pub struct Route {
    /// As axum has it: `/v1/models/{*id}`.
    pub path: &'static str,
    /// Its methods.
    pub methods: fn() -> MethodRouter<Arc<App>>,
    /// What it is for.
    pub summary: &'static str,
}

/// Every route, in the order of the documentation.
pub const ROUTES: &[Route] = &[
    Route { path: "/health", methods: health::methods, summary: "whether the server is up" },
    Route {
        path: "/v1/chat/completions",
        methods: openai::chat::methods,
        summary: "the next turn of a conversation",
    },
    Route { path: "/v1/models", methods: openai::models::list, summary: "the models that can be used" },
];
