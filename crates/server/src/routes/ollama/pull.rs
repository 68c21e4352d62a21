//! `POST /api/pull`: a model is fetched.

use super::{progress, refusal};
use crate::app::App;
use crate::refusal::Refusal;
use crate::wire::body::JsonBody;
use crate::wire::fields::Fields;
use crate::wire::request::wrong;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use rhetor_store::{Progress, PullOptions, Reference};
use serde_json::json;
use std::sync::Arc;

/// `POST /api/pull`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Response, Refusal> {
    let mut fields = Fields::of(body, "", app.config.lenient)?;
    let (model, name): (Option<String>, Option<String>) = (fields.take("model")?, fields.take("name")?);
    let is_stream = fields.take("stream")?.unwrap_or(true);
    let insecure: bool = fields.take("insecure")?.unwrap_or(false);
    let warnings = fields.finish()?;
    let name = model.or(name).unwrap_or_default();
    match Reference::parse(&name) {
        Ok(Reference::Path(_)) | Err(_) => {
            return Err(wrong("model", format!("invalid model name {name:?}")));
        }
        Ok(_) => {}
    }
    let options = PullOptions { insecure, ..app.pull_options.clone() };
    progress::reply(is_stream, move |told| {
        let status = |text: &str| json!({ "status": text });
        let _ = told.tell(status("pulling manifest"));
        let pulled = app.store.pull(&name, &options, &mut |progress| match progress {
            Progress::Waiting => told.tell(status("waiting for another pull")),
            Progress::Planned(_) => std::ops::ControlFlow::Continue(()),
            Progress::Downloading { file, done, total, sha256 } => {
                let short = sha256.map_or(file, |sha256| sha256.get(..12).unwrap_or(sha256));
                let mut line = json!({ "status": format!("pulling {short}"), "completed": done });
                if let Some(sha256) = sha256 {
                    line["digest"] = json!(format!("sha256:{sha256}"));
                }
                if let Some(total) = total {
                    line["total"] = json!(total);
                }
                told.mention(line)
            }
            Progress::Retrying { reason, .. } => told.tell(status(&format!("retrying: {reason}"))),
            Progress::Unpacking { file, done, total } => told
                .mention(json!({ "status": format!("unpacking {file}"), "total": total, "completed": done })),
            Progress::Checking { .. } => told.mention(status("verifying sha256 digest")),
        });
        let pulled = pulled.map_err(|error| refusal(&error))?;
        if pulled.was_fetched {
            app.residents.unload(&pulled.name);
        }
        for text in ["verifying sha256 digest", "writing manifest"] {
            let _ = told.tell(status(text));
        }
        let mut last = status("success");
        if !warnings.is_empty() {
            last["warnings"] = json!(warnings);
        }
        let _ = told.tell(last);
        Ok(())
    })
    .await
}
