//! Every route: the table, nothing else.

mod health;
mod openai;
mod page;
mod runs;

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
    Route { path: "/", methods: page::root, summary: "the web page; for programs, Ollama's greeting" },
    Route { path: "/assets/{*path}", methods: page::assets, summary: "the files of the web page" },
    Route { path: "/health", methods: health::methods, summary: "whether the server is up" },
    Route { path: "/v1/models", methods: openai::models::list, summary: "the models that can be used" },
    Route { path: "/api/runs", methods: runs::list, summary: "the training runs that can be drawn" },
    Route {
        path: "/api/runs/{name}/metrics",
        methods: runs::metrics,
        summary: "the steps of a training run",
    },
];
