//! `DELETE /api/delete`: a model goes, with the files that no other model shares.

use super::{blocking, find, refusal};
use crate::app::App;
use crate::refusal::Refusal;
use crate::wire::body::JsonBody;
use crate::wire::fields::Fields;
use axum::extract::State;
use axum::routing::{MethodRouter, delete};
use rhetor_store::{BUILTIN, ModelName, Reference};
use std::sync::Arc;

/// `DELETE /api/delete`, with a body.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    delete(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<(), Refusal> {
    let mut fields = Fields::of(body, "", app.config.lenient)?;
    let model: Option<String> = fields.take("model")?;
    let name: Option<String> = fields.take("name")?;
    let name = model.or(name).unwrap_or_default();
    fields.finish()?;
    if Reference::parse(&name).is_err() && ModelName::parse(&name).is_err() {
        return Err(Refusal::field("model", format!("name {name:?} is invalid")));
    }
    blocking(move || {
        let found = find(&app, &name)?;
        if found.name == BUILTIN {
            return Err(Refusal::field("model", "the model that comes with the program cannot be deleted"));
        }
        app.residents.unload(&found.name);
        app.store.remove(&found.name).map_err(|error| refusal(&error))?;
        Ok(())
    })
    .await
}
