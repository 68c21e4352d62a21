//! `POST /score`: how likely a text is after another.

use crate::app::App;
use crate::refusal::Refusal;
use crate::residents::Wish;
use crate::wire::body::JsonBody;
use crate::wire::fields::Fields;
use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, post};
use rhetor_lm::{LanguageModel, Score};
use serde_json::{Value, json};
use std::sync::Arc;

/// `POST /score` with `{"model", "context", "continuation"}`.
pub(super) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Json<Value>, Refusal> {
    let mut fields = Fields::of(body, "", app.config.lenient)?;
    let model: String = fields.need("model")?;
    let context: String = fields.take("context")?.unwrap_or_default();
    let continuation: String = fields.need("continuation")?;
    let warnings = fields.finish()?;
    let lease = app.residents.get(&app, &model, Wish::default()).await?;
    lease.engine()?;
    let scored = tokio::task::spawn_blocking(move || {
        lease.engine().and_then(|engine| Ok(engine.score(&context, &continuation)?))
    });
    let score = scored.await.map_err(|_| Refusal::panicked())??;
    let mut reply = written(&score);
    reply["model"] = model.into();
    if !warnings.is_empty() {
        reply["warnings"] = warnings.into();
    }
    Ok(Json(reply))
}

fn written(score: &Score) -> Value {
    let tokens = score.tokens.iter().map(|token| {
        json!({
            "token": token.text,
            "id": token.id,
            "logprob": token.logprob.max(-9999.0),
            "is_greedy": token.is_greedy,
        })
    });
    json!({
        "tokens": tokens.collect::<Vec<_>>(),
        "logprob": score.logprob_sum().max(-1e30),
        "is_greedy": score.tokens.iter().all(|token| token.is_greedy),
        "perplexity": score.perplexity().min(1e30),
        "bits_per_byte": score.bits_per_byte().min(1e30),
        "n_bytes": score.n_bytes,
    })
}
