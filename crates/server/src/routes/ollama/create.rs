//! `POST /api/create`: a new model out of another, or out of uploaded blobs.

use super::{progress, refusal};
use crate::app::App;
use crate::making::{Making, MakingError, Step};
use crate::refusal::Refusal;
use crate::wire::body::JsonBody;
use crate::wire::fields::Fields;
use crate::wire::request::wrong;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use rhetor_store::{BUILTIN, ModelName, Turn, parse_digest};
use serde_json::{Value, json};
use std::sync::Arc;

/// `POST /api/create`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Response, Refusal> {
    let mut fields = Fields::of(body, "", app.config.lenient)?;
    let (model, name): (Option<String>, Option<String>) = (fields.take("model")?, fields.take("name")?);
    let is_stream = fields.take("stream")?.unwrap_or(true);
    let making = read(&mut fields)?;
    let warnings = fields.finish()?;
    let name = model.or(name).unwrap_or_default();
    let name = ModelName::parse(&name).map_err(|error| Refusal::field("model", error.to_string()))?;
    if let Some(from) = &making.from {
        // A path is nobody's name here.
        super::find(&app, from)?;
    }
    if making.from.is_none() && making.files.is_empty() {
        return Err(Refusal::field("from", "neither 'from' or 'files' was specified"));
    }
    progress::reply(is_stream, move |told| {
        let made = making.make(&app.store, &name, &mut |step| match step {
            Step::Status(status) => {
                let mut line = json!({ "status": status });
                if status == "success" && !warnings.is_empty() {
                    line["warnings"] = json!(warnings);
                }
                told.tell(line)
            }
            Step::Quantizing { status, done, total } => told.mention(json!({
                "status": status, "digest": "0000000000000000000", "total": total, "completed": done,
            })),
        });
        // A model of that name that is in memory is the old one.
        if made.is_ok() && name.key() != BUILTIN {
            app.residents.unload(&name.stored());
        }
        made.map_err(|error| match &error {
            MakingError::Store(error) => refusal(error),
            MakingError::Field { field, .. } => Refusal::field(*field, error.to_string()),
            other => Refusal::wrong(other.to_string()),
        })
    })
    .await
}

fn read(fields: &mut Fields) -> Result<Making, Refusal> {
    let quantize: Option<String> = fields.take("quantize")?;
    let quantization: Option<String> = fields.take("quantization")?;
    let licences = match fields.value("license") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(value) => serde_json::from_value(value)
            .map_err(|_| wrong("license", "expected a string or a list of strings"))?,
    };
    let mut parameters = serde_json::Map::new();
    if let Some(mut given) = fields.object("parameters")? {
        parameters = given.left();
        crate::wire::ollama::options::Options::default().read(&mut given)?;
        fields.close(given)?;
    }
    let why = "templates and answers are read by what the model itself brings";
    for name in ["renderer", "parser", "info", "draft_files", "draft_quantize", "draft", "remote_host"] {
        fields.refuse(name, why)?;
    }
    fields.refuse("modelfile", "send its parts: from, system, template, parameters, messages, license")?;
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(Making {
        from: text(fields.take("from")?),
        files: files(fields, "files")?,
        adapter: files(fields, "adapters")?,
        quantize: text(quantize.or(quantization)),
        template: text(fields.take("template")?),
        system: text(fields.take("system")?),
        parameters,
        messages: messages(fields)?,
        licences: licences.into_iter().filter(|text| !text.is_empty()).collect(),
        requires: text(fields.take("requires")?),
    })
}

/// An object of names and digests.
fn files(fields: &mut Fields, name: &str) -> Result<Vec<(String, String)>, Refusal> {
    let path = fields.path(name);
    let Some(mut given) = fields.object(name)? else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for (name, digest) in given.left() {
        let at = format!("{path}.{name}");
        if name.starts_with('/') || name.starts_with('\\') || name.contains(':') {
            return Err(wrong(&at, "file path must be relative"));
        }
        let digest = digest.as_str().ok_or_else(|| wrong(&at, "expected a digest"))?;
        let digest = parse_digest(digest).map_err(|error| wrong(&at, error))?;
        given.labels(&[&name]);
        files.push((name, digest.to_string()));
    }
    fields.close(given)?;
    Ok(files)
}

fn messages(fields: &mut Fields) -> Result<Vec<Turn>, Refusal> {
    let path = fields.path("messages");
    let mut turns = Vec::new();
    for (i, value) in fields.list("messages")?.unwrap_or_default().into_iter().enumerate() {
        let mut entry = fields.part(value, format!("{path}[{i}]"))?;
        let (role, content): (String, String) = (entry.need("role")?, entry.need("content")?);
        if !["system", "user", "assistant"].contains(&role.as_str()) {
            return Err(wrong(
                &entry.path("role"),
                r#"message role must be one of "system", "user", or "assistant""#,
            ));
        }
        turns.push(Turn { role, content });
        fields.close(entry)?;
    }
    Ok(turns)
}
