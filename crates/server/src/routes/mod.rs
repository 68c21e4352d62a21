//! Every route: the table, nothing else.

mod apply_template;
mod asking;
mod catalog;
mod detokenize;
mod health;
mod metrics;
mod ollama;
mod openai;
mod openapi;
mod page;
mod runs;
mod score;
mod tokenize;
mod version;

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
    Route { path: "/version", methods: version::methods, summary: "which program this is" },
    Route { path: "/metrics", methods: metrics::methods, summary: "the server's numbers, for Prometheus" },
    Route { path: "/openapi.json", methods: openapi::methods, summary: "this table, for programs" },
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
    Route { path: "/api/version", methods: ollama::version::methods, summary: "the version of Ollama's API" },
    Route { path: "/api/generate", methods: ollama::generate::methods, summary: "an answer to a prompt" },
    Route { path: "/api/chat", methods: ollama::chat::methods, summary: "the next turn of a conversation" },
    Route { path: "/api/embed", methods: ollama::embed::methods, summary: "the vectors of texts" },
    Route { path: "/api/embeddings", methods: ollama::embeddings::methods, summary: "the vector of a text" },
    Route { path: "/api/tags", methods: ollama::tags::methods, summary: "the models of the store" },
    Route { path: "/api/ps", methods: ollama::ps::methods, summary: "the models in memory" },
    Route { path: "/api/show", methods: ollama::show::methods, summary: "all that is known of a model" },
    Route { path: "/api/create", methods: ollama::create::methods, summary: "a new model" },
    Route { path: "/api/copy", methods: ollama::copy::methods, summary: "a second name for a model" },
    Route { path: "/api/delete", methods: ollama::delete::methods, summary: "a model goes" },
    Route { path: "/api/pull", methods: ollama::pull::methods, summary: "a model is fetched" },
    Route {
        path: "/api/push",
        methods: ollama::push::methods,
        summary: "refused: nothing leaves this machine",
    },
    Route { path: "/api/blobs/{digest}", methods: ollama::blobs::methods, summary: "files for a new model" },
    Route {
        path: "/v2/{namespace}/{model}/manifests/{tag}",
        methods: ollama::registry::manifests,
        summary: "what a model is made of, for other instances",
    },
    Route {
        path: "/v2/{namespace}/{model}/blobs/{digest}",
        methods: ollama::registry::blobs,
        summary: "its files, for other instances",
    },
];
