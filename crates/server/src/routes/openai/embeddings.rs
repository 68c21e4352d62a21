//! `POST /v1/embeddings`: the vectors of texts.

use crate::app::App;
use crate::refusal::Refusal;
use crate::residents::Wish;
use crate::wire::body::JsonBody;
use crate::wire::openai::embeddings::{self, AskedVectors, Input};
use crate::wire::request::wrong;
use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, post};
use rhetor_encode::{Embedder, Text};
use rhetor_lm::Overflow;
use serde_json::Value;
use std::sync::Arc;

/// `POST /v1/embeddings`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Json<Value>, Refusal> {
    let asked = embeddings::read(body, app.config.lenient)?;
    let wish = Wish { keep_alive: asked.keep_alive, context: None };
    let lease = app.residents.get(&app, &asked.model, wish).await?;
    let (texts, n_prompt) = texts(lease.embedder()?, &asked)?;
    let n_tokens = texts.iter().map(|text| text.ids.len()).sum();
    let n_cut = texts.iter().map(|text| text.n_cut).sum();
    let mut vectors = app.embed_queue.embed(&lease, texts, n_prompt, app.config.queue).await?;
    if let Some(n) = asked.dimensions {
        let width = vectors.first().map_or(0, Vec::len);
        if n > width {
            return Err(wrong("dimensions", format!("{n} is more than the {width} that the model gives")));
        }
        vectors = vectors.into_iter().map(|vector| embeddings::shortened(vector, n)).collect();
    }
    if vectors.iter().flatten().any(|x| !x.is_finite()) {
        return Err(Refusal::wrong("the model gives no finite numbers for this input"));
    }
    Ok(Json(embeddings::write(&asked, &vectors, n_tokens, n_cut)))
}

/// The inputs as tokens, and how many of each are the prompt's.
fn texts(embedder: &Embedder, asked: &AskedVectors) -> Result<(Vec<Text>, usize), Refusal> {
    let (reader, mut texts, mut n_prompt) = (embedder.reader(), Vec::new(), 0);
    for (i, input) in asked.inputs.iter().enumerate() {
        match input {
            Input::Text(text) => {
                let (text, n) = embedder
                    .texts(&[text], asked.prompt_name.as_deref())
                    .map_err(|error| wrong("prompt_name", error))?;
                texts.extend(text);
                n_prompt = n;
            }
            Input::Ids(_) if asked.prompt_name.is_some() => {
                return Err(wrong("prompt_name", "a prompt goes before texts, not before tokens"));
            }
            Input::Ids(ids) => {
                let n_known = reader.tokenizer().n_tokens();
                if let Some(id) = ids.iter().find(|id| **id as usize >= n_known) {
                    return Err(wrong("input", format!("there is no token {id}; there are {n_known}")));
                }
                texts.push(reader.text_of(ids.clone()));
            }
        }
        let text = &texts[i];
        if asked.overflow == Overflow::Error && text.n_cut > 0 {
            let (n, max) = (text.ids.len() + text.n_cut, embedder.max_len());
            let message = format!("input {i} has {n} tokens; the model reads {max}");
            return Err(Refusal::field("input", message).code("context_length_exceeded"));
        }
    }
    Ok((texts, n_prompt))
}
