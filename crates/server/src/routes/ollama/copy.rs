//! `POST /api/copy`: a second name for a model.

use super::{blocking, find, refusal};
use crate::app::App;
use crate::refusal::Refusal;
use crate::wire::body::JsonBody;
use crate::wire::fields::Fields;
use axum::extract::State;
use axum::routing::{MethodRouter, post};
use rhetor_store::{ModelName, Reference};
use std::sync::Arc;

/// `POST /api/copy`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<(), Refusal> {
    let mut fields = Fields::of(body, "", app.config.lenient)?;
    let source: String = fields.need("source")?;
    let destination: String = fields.need("destination")?;
    fields.finish()?;
    let invalid = |field: &str, name: &str| Refusal::field(field, format!("{field} {name:?} is invalid"));
    if Reference::parse(&source).is_err() && ModelName::parse(&source).is_err() {
        return Err(invalid("source", &source));
    }
    let name = ModelName::parse(&destination).map_err(|_| invalid("destination", &destination))?;
    blocking(move || {
        find(&app, &source).map_err(|refusal| match refusal.status.as_u16() {
            404 => Refusal { message: format!("model {source:?} not found"), ..refusal },
            _ => refusal,
        })?;
        app.store.copy(&source, &name).map_err(|error| refusal(&error))?;
        Ok(())
    })
    .await
}
