//! `POST /tokenize`: the tokens that a text or a conversation becomes.

use super::asking;
use crate::app::App;
use crate::refusal::Refusal;
use crate::residents::{Mind, Wish};
use crate::wire::body::JsonBody;
use crate::wire::fields::Fields;
use crate::wire::request::wrong;
use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, post};
use rhetor_tokenizer::{Special, Tokenizer};
use serde_json::{Value, json};
use std::sync::Arc;

/// `POST /tokenize` with `{"model", "content", "add_special", "parse_special", "with_pieces"}`; vLLM's names `prompt`,
/// `add_special_tokens` and `return_token_strs` are taken too, and so is a chat request with `messages`.
pub(super) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Json<Value>, Refusal> {
    let mut fields = Fields::of(body, "", app.config.lenient)?;
    let with_pieces = fields.take("with_pieces")?.or(fields.take("return_token_strs")?).unwrap_or(false);
    let (model, ids, warnings);
    let lease;
    if fields.has("messages") {
        let mut asked = crate::wire::openai::chat::read(fields.rest(), app.config.lenient)?;
        let putting = asking::put(&app, &mut asked).await?;
        ids = putting.lease.engine()?.encode_request(&putting.request)?;
        (model, warnings, lease) = (asked.model, asked.warnings, putting.lease);
    } else {
        model = fields.need::<String>("model")?;
        let content: Option<String> = fields.take("content")?;
        let content = content.or(fields.take("prompt")?);
        let content = content.ok_or_else(|| wrong("content", "it is required, or `messages`"))?;
        let add_special = fields.take("add_special")?.or(fields.take("add_special_tokens")?).unwrap_or(true);
        let special = match fields.take("parse_special")?.unwrap_or(true) {
            true => Special::Parse,
            false => Special::Literal,
        };
        warnings = fields.finish()?;
        lease = app.residents.get(&app, &model, Wish::default()).await?;
        let tokenizer = tokenizer(&lease.mind);
        ids = match add_special {
            true => tokenizer.encode_with_specials(&content, special),
            false => tokenizer.encode(&content, special),
        };
    }
    let mut reply =
        json!({ "model": model, "tokens": ids, "count": ids.len(), "max_model_len": lease.context });
    if with_pieces {
        let piece = |id: &u32| json!({ "id": id, "piece": piece(tokenizer(&lease.mind), *id) });
        reply["pieces"] = ids.iter().map(piece).collect();
    }
    if !warnings.is_empty() {
        reply["warnings"] = warnings.into();
    }
    Ok(Json(reply))
}

/// The tokenizer of a model.
pub(super) fn tokenizer(mind: &Mind) -> &Tokenizer {
    match mind {
        Mind::Speaks(engine) => engine.tokenizer(),
        Mind::Embeds(embedder) => embedder.reader().tokenizer(),
    }
}

/// A token's text, or its bytes if they are no text by themselves.
fn piece(tokenizer: &Tokenizer, id: u32) -> Value {
    let bytes = tokenizer.token_bytes(id);
    match std::str::from_utf8(bytes) {
        Ok("") => tokenizer.piece(id).unwrap_or_default().into(),
        Ok(text) => text.into(),
        Err(_) => bytes.into(),
    }
}
