//! `GET /openapi.json`: the table of routes for programs.
//!
//! Paths and summaries come from [`ROUTES`], methods from the routes themselves, which are asked; bodies from `bodies`.

mod bodies;

use super::ROUTES;
use crate::app::App;
use crate::refusal::Refusal;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request, header};
use axum::routing::{MethodRouter, get};
use bodies::BODIES;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tower::ServiceExt;

/// `GET /openapi.json`.
pub(super) fn methods() -> MethodRouter<Arc<App>> {
    get(async |State(app): State<Arc<App>>| -> Result<Json<Value>, Refusal> {
        Ok(Json(document(&app).await?))
    })
}

/// The document, with the names of the models that can be used.
async fn document(app: &Arc<App>) -> Result<Value, Refusal> {
    let models = models(app)?;
    let mut paths = Map::new();
    for route in ROUTES {
        let mut path = Map::new();
        for method in methods_of((route.methods)(), app).await {
            let operation = operation(route.path, &method, route.summary, &models);
            path.insert(method.to_ascii_lowercase(), operation);
        }
        let (name, parameters) = parameters(route.path);
        if !parameters.is_empty() {
            path.insert("parameters".to_string(), parameters.into());
        }
        paths.insert(name, path.into());
    }
    let scheme = if app.config.api_keys.is_empty() { json!([]) } else { json!([{ "key": [] }]) };
    Ok(json!({
        "openapi": "3.1.0",
        "info": { "title": "rhetor", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "Apache-2.0 OR MIT" } },
        "paths": paths,
        "security": scheme,
        "components": {
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
            "schemas": { "OpenAiError": openai_error(), "OllamaError": ollama_error() },
        },
    }))
}

/// Names of the models and adapters that can be used.
fn models(app: &App) -> Result<Vec<String>, Refusal> {
    if !app.config.models.is_empty() {
        return Ok(app.config.models.clone());
    }
    let failed = |error: rhetor_store::Error| {
        Refusal::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    };
    let stored = app.store.list().map_err(failed)?.into_iter().map(|manifest| manifest.name);
    let adapters = app.config.adapters.iter().map(|(name, ..)| name.clone());
    let mut names: Vec<String> = ["builtin".to_string()].into_iter().chain(stored).chain(adapters).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// The methods of a route: what it answers in `Allow` to one that it does not have.
async fn methods_of(route: MethodRouter<Arc<App>>, app: &Arc<App>) -> Vec<String> {
    let method = Method::from_bytes(b"PROPFIND").expect("a method of WebDAV");
    let request = Request::builder().method(method).uri("/").body(Body::empty()).expect("a plain request");
    let Ok(response) = route.with_state::<()>(app.clone()).oneshot(request).await;
    let allowed = response.headers().get(header::ALLOW).and_then(|allow| allow.to_str().ok());
    allowed
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|m| !m.is_empty())
        .map(str::to_string)
        .collect()
}

/// The path as OpenAPI writes it, and its parameters.
fn parameters(path: &str) -> (String, Vec<Value>) {
    let name = path.replace("{*", "{");
    let names = name.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name);
    let schema = json!({ "type": "string", "minLength": 1 });
    let parameters =
        names.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": schema })).collect();
    (name, parameters)
}

fn operation(path: &str, method: &str, summary: &str, models: &[String]) -> Value {
    let is_ollama = path.starts_with("/api/");
    let error =
        if is_ollama { "#/components/schemas/OllamaError" } else { "#/components/schemas/OpenAiError" };
    let refusal = json!({
        "description": "refused",
        "content": { "application/json": { "schema": { "$ref": error } } },
    });
    let mut operation = json!({
        "summary": summary,
        "responses": { "200": { "description": "done" }, "4XX": refusal, "5XX": refusal },
    });
    let body = BODIES.iter().find(|(known, of, _)| *known == path && *of == method);
    if let Some((.., fields)) = body {
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": bodies::schema(fields, models) } },
        });
    }
    operation
}

fn openai_error() -> Value {
    json!({
        "type": "object",
        "required": ["error"],
        "properties": { "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": { "type": "string" }, "type": { "type": "string" },
                "param": { "type": ["string", "null"] }, "code": { "type": ["string", "null"] },
            },
        } },
    })
}

fn ollama_error() -> Value {
    json!({ "type": "object", "required": ["error"], "properties": { "error": { "type": "string" } } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use rhetor_store::{PullOptions, Store};
    use std::collections::BTreeSet;

    fn app() -> (tempfile::TempDir, Arc<App>) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path());
        (home, Arc::new(App::new(Config::default(), store, PullOptions::default())))
    }

    #[tokio::test]
    async fn every_route_is_in_the_document_with_its_methods_and_nothing_else() {
        let (_home, app) = app();
        let document = document(&app).await.unwrap();
        let paths = document["paths"].as_object().unwrap();
        let routes: BTreeSet<String> = ROUTES.iter().map(|route| parameters(route.path).0).collect();
        assert_eq!(paths.keys().cloned().collect::<BTreeSet<_>>(), routes);
        for (path, operations) in paths {
            let n = operations.as_object().unwrap().keys().filter(|key| *key != "parameters").count();
            assert!(n > 0, "{path} has no method");
        }
        assert!(paths["/v1/chat/completions"]["post"]["requestBody"].is_object());
        assert!(paths["/v1/models/{id}"]["parameters"][0]["name"] == "id");
        assert!(paths["/health"]["get"].is_object() && paths["/health"]["post"].is_null());
    }

    #[tokio::test]
    async fn every_body_that_a_post_takes_is_described() {
        let (_home, app) = app();
        for route in ROUTES.iter().filter(|route| !route.path.contains("blobs")) {
            let has_post = methods_of((route.methods)(), &app).await.iter().any(|method| method == "POST");
            let is_described =
                BODIES.iter().any(|(path, method, _)| *path == route.path && *method == "POST");
            assert_eq!(has_post, is_described, "{}", route.path);
        }
    }
}
