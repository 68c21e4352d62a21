//! `GET /api/catalog`: the models that have short names, with size, licence and task; and every family that can be
//! loaded, with what is published of it.

use crate::app::App;
use crate::refusal::Refusal;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get};
use rhetor_catalog::Source;
use rhetor_models::{FAMILIES, Family, Licence, Published, Task};
use rhetor_store::{CATALOGUE, CatalogueEntry};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /api/catalog`.
pub(super) fn methods() -> MethodRouter<Arc<App>> {
    get(async |State(app): State<Arc<App>>| -> Result<Json<Value>, Refusal> {
        let pulled = app
            .store
            .list()
            .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        let is_pulled = |name: &str| pulled.iter().any(|manifest| manifest.name == name);
        let models = CATALOGUE.iter().map(|entry| model(entry, is_pulled(entry.name)));
        Ok(Json(json!({
            "models": models.collect::<Vec<_>>(),
            "families": FAMILIES.iter().map(|entry| family(entry)).collect::<Vec<_>>(),
        })))
    })
}

fn model(entry: &CatalogueEntry, is_pulled: bool) -> Value {
    let is_embedder = entry.files.iter().any(|file| file.path == "modules.json");
    json!({
        "name": entry.name,
        "summary": entry.summary,
        "licence": entry.licence,
        "licence_terms": entry.licence_terms,
        "parameters": entry.parameters,
        "size": entry.size(),
        "download_size": entry.download_size(),
        "tasks": [if is_embedder { "embed" } else { "generate" }],
        "source": entry.source(),
        "pulled": is_pulled,
    })
}

fn family(family: &Family) -> Value {
    let published = |known: &Published| {
        json!({
            "name": known.name,
            "parameters": known.n_parameters,
            "context": known.context_len,
            "licence": licence(known.licence),
        })
    };
    let mut tasks: Vec<&str> = family.architectures.iter().map(|(_, head)| task(*head)).collect();
    tasks.sort_unstable();
    tasks.dedup();
    json!({
        "name": family.about.name,
        "summary": family.about.summary,
        "source": source(&family.about.source),
        "gguf": family.gguf,
        "classes": family.architectures.iter().map(|(class, _)| *class).collect::<Vec<_>>(),
        "tasks": tasks,
        "published": family.published.iter().map(published).collect::<Vec<_>>(),
    })
}

/// What a head is for.
fn task(head: Task) -> &'static str {
    match head {
        Task::Vocabulary => "text",
        Task::Sequence => "classes",
        Task::Tokens => "tags",
        Task::Span => "answers",
        Task::NextSentence => "next sentence",
        Task::Choice => "choices",
        Task::Replaced => "replaced tokens",
        Task::Hidden | Task::Pooled => "vectors",
    }
}

fn source(source: &Source) -> String {
    match source {
        Source::Paper { title, id, .. } => format!("{title}, {id}"),
        Source::Project(name) => name.to_string(),
        Source::Folklore => String::new(),
    }
}

fn licence(licence: Licence) -> &'static str {
    match licence {
        Licence::Open => "open",
        Licence::Restricted => "restricted",
        Licence::Research => "research",
        Licence::Unpublished => "unpublished",
    }
}
