//! `POST /api/embed`: vectors of length 1.

use super::vectors;
use crate::app::App;
use crate::refusal::Refusal;
use crate::wire::body::JsonBody;
use crate::wire::fields::Fields;
use crate::wire::ollama::clock::nanos;
use crate::wire::request::{count, wrong};
use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, post};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// `POST /api/embed`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Json<Value>, Refusal> {
    let began = Instant::now();
    let mut fields = Fields::of(body, "", app.config.lenient)?;
    let texts = match fields.value("input") {
        None => Vec::new(),
        Some(Value::String(text)) if text.is_empty() => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(value) => serde_json::from_value::<Vec<String>>(value).map_err(|_| {
            Refusal::field("input", "invalid input type: expected a string or a list of strings")
        })?,
    };
    let truncate = fields.take("truncate")?.unwrap_or(true);
    let dimensions = count(&mut fields, "dimensions")?.filter(|n| *n > 0);
    let asked = vectors::read(&mut fields)?;
    let mut warnings = fields.finish()?;
    let lease = vectors::lease(&app, &asked).await?;
    let mut reply = json!({ "model": asked.model, "embeddings": [] });
    if !texts.is_empty() {
        let found = vectors::of(&app, &lease, &texts, truncate).await?;
        let width = found.vectors.first().map_or(0, Vec::len);
        if let Some(n) = dimensions.filter(|n| *n > width) {
            return Err(wrong("dimensions", format!("{n} is more than the {width} that the model gives")));
        }
        let vectors = found.vectors.into_iter().map(|vector| shortened(vector, dimensions.unwrap_or(width)));
        reply["embeddings"] = json!(vectors.collect::<Vec<_>>());
        reply["prompt_eval_count"] = json!(found.n_tokens);
        if found.n_cut > 0 {
            reply["truncated_tokens"] = json!(found.n_cut);
            warnings.push(format!("{} tokens had no room and were cut off", found.n_cut));
        }
    }
    reply["total_duration"] = json!(nanos(began.elapsed()));
    reply["load_duration"] = json!(nanos(lease.load_time()));
    if !warnings.is_empty() {
        reply["warnings"] = json!(warnings);
    }
    Ok(Json(reply))
}

/// The first `n` numbers, brought to length 1.
fn shortened(mut vector: Vec<f32>, n: usize) -> Vec<f32> {
    vector.truncate(n);
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_vector_has_length_1() {
        assert_eq!(shortened(vec![3.0, 4.0, 12.0], 2), [0.6, 0.8]);
        assert_eq!(shortened(vec![0.0, 0.0], 2), [0.0, 0.0]);
    }
}
