//! Every route: the table, nothing else.

mod apply_template;
mod asking;
mod catalog;
mod detokenize;
mod health;
mod openai;
mod page;
mod runs;
mod score;
mod tokenize;

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
    Route {
        path: "/v1/chat/completions",
        methods: openai::chat::methods,
        summary: "the next turn of a conversation",
    },
    Route {
        path: "/v1/completions",
        methods: openai::completions::methods,
        summary: "the continuation of a text as it is, or what fills a hole in it",
    },
    Route { path: "/v1/embeddings", methods: openai::embeddings::methods, summary: "the vectors of texts" },
    Route {
        path: "/v1/responses",
        methods: openai::responses::methods,
        summary: "an answer that may be asked for again and continued",
    },
    Route { path: "/v1/responses/{id}", methods: openai::responses::one, summary: "such an answer" },
    Route { path: "/v1/models", methods: openai::models::list, summary: "the models that can be used" },
    Route { path: "/api/runs", methods: runs::list, summary: "the training runs that can be drawn" },
    Route {
        path: "/api/runs/{name}/metrics",
        methods: runs::metrics,
        summary: "the steps of a training run",
    },
    Route { path: "/v1/models/{*id}", methods: openai::models::one, summary: "one of them" },
    Route {
        path: "/tokenize",
        methods: tokenize::methods,
        summary: "the tokens of a text or a conversation",
    },
    Route { path: "/detokenize", methods: detokenize::methods, summary: "the text of tokens" },
    Route {
        path: "/apply-template",
        methods: apply_template::methods,
        summary: "the text that a conversation becomes",
    },
    Route { path: "/score", methods: score::methods, summary: "how likely a text is after another" },
    Route {
        path: "/api/catalog",
        methods: catalog::methods,
        summary: "models that can be pulled, and families that can be loaded",
    },
];
