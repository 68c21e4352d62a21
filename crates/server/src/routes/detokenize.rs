//! `POST /detokenize`: the text that tokens are.

use super::tokenize::tokenizer;
use crate::app::App;
use crate::refusal::Refusal;
use crate::residents::Wish;
use crate::wire::body::JsonBody;
use crate::wire::fields::Fields;
use crate::wire::request::wrong;
use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, post};
use rhetor_tokenizer::ControlTokens;
use serde_json::{Value, json};
use std::sync::Arc;

/// `POST /detokenize` with `{"model", "tokens"}`.
pub(super) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Json<Value>, Refusal> {
    let mut fields = Fields::of(body, "", app.config.lenient)?;
    let model: String = fields.need("model")?;
    let tokens: Vec<u32> = fields.need("tokens")?;
    let skip = fields.take("skip_special_tokens")?.unwrap_or(false);
    let warnings = fields.finish()?;
    let lease = app.residents.get(&app, &model, Wish::default()).await?;
    let tokenizer = tokenizer(&lease.mind);
    let n_known = tokenizer.n_tokens();
    if let Some(id) = tokens.iter().find(|id| **id as usize >= n_known) {
        return Err(wrong("tokens", format!("there is no token {id}; there are {n_known}")));
    }
    let controls = if skip { ControlTokens::Skip } else { ControlTokens::Show };
    let mut reply = json!({ "model": model, "content": tokenizer.decode(&tokens, controls) });
    if !warnings.is_empty() {
        reply["warnings"] = warnings.into();
    }
    Ok(Json(reply))
}
