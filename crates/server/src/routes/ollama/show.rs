//! `POST /api/show`: all that is known of a model.

use super::{blocking, display, find};
use crate::app::App;
use crate::details::insides;
use crate::making::{modelfile_of, parameter_texts};
use crate::refusal::Refusal;
use crate::wire::body::JsonBody;
use crate::wire::fields::Fields;
use crate::wire::ollama::clock;
use crate::wire::ollama::options::Options;
use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, post};
use serde_json::{Value, json};
use std::sync::Arc;

/// `POST /api/show`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Json<Value>, Refusal> {
    let mut fields = Fields::of(body, "", app.config.lenient)?;
    let model: Option<String> = fields.take("model")?;
    let name: Option<String> = fields.take("name")?;
    let name = model.or(name).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Refusal::field("model", "model is required"))?;
    let is_verbose: bool = fields.take("verbose")?.unwrap_or(false);
    let system: Option<String> = fields.take("system")?;
    let template: Option<String> = fields.take("template")?;
    let options = fields.object("options")?;
    let warnings = fields.finish()?;
    blocking(move || {
        let found = find(&app, &name)?;
        let manifest = found.manifest.clone().unwrap_or_else(|| unreachable!("a shown model has a manifest"));
        let mut settings = manifest.settings.clone();
        settings.system = system.filter(|text| !text.is_empty()).or(settings.system);
        settings.template = template.filter(|text| !text.is_empty()).or(settings.template);
        if let Some(mut options) = options {
            let given = options.left();
            Options::default().read(&mut options)?;
            options.finish()?;
            settings.parameters.extend(given);
        }
        let details = app.details.of(&found);
        let (info, tensors) = insides(&found, &details, is_verbose);
        let parameters: Vec<String> = parameter_texts(&settings.parameters)
            .into_iter()
            .map(|(key, text)| match key.as_str() {
                "stop" => format!("{key:<30} {text:?}"),
                _ => format!("{key:<30} {text}"),
            })
            .collect();
        let from = manifest.settings.parent.clone().unwrap_or_else(|| manifest.name.clone());
        let modelfile = format!(
            "# Modelfile of {}; build it again with `create`.\n\n{}",
            display(&manifest.name),
            modelfile_of(&display(&from), &settings)
        );
        let licences = [manifest.licence.clone().into_iter().collect(), settings.licences.clone()].concat();
        let mut reply = json!({
            "license": licences.join("\n"),
            "modelfile": modelfile,
            "parameters": parameters.join("\n"),
            "template": settings.template.clone().or(details.template.clone()).unwrap_or_default(),
            "system": settings.system.clone().unwrap_or_default(),
            "details": details.to_json(manifest.settings.parent.as_deref()),
            "messages": settings.messages,
            "model_info": info,
            "tensors": tensors,
            "capabilities": details.capabilities,
            "modified_at": clock::of_seconds(manifest.pulled_at),
        });
        if let Some(requires) = &settings.requires {
            reply["requires"] = json!(requires);
        }
        if !warnings.is_empty() {
            reply["warnings"] = json!(warnings);
        }
        Ok(Json(reply))
    })
    .await
}
