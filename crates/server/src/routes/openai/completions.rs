//! `POST /v1/completions`: the continuation of a text as it is, without a chat template; or what fills a hole in it.

use crate::app::App;
use crate::refusal::Refusal;
use crate::routes::asking::{self, Putting};
use crate::speech::Speech;
use crate::wire::body::JsonBody;
use crate::wire::openai::completion_chunks::Chunks;
use crate::wire::openai::completions::{self, Echo};
use crate::wire::openai::reply::Envelope;
use crate::wire::{sse, stream};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use rhetor_generate::Engine;
use rhetor_lm::{Prompt, Request, TokenLogprob};
use rhetor_tokenizer::ControlTokens;
use std::sync::Arc;

/// `POST /v1/completions`.
pub(in crate::routes) fn methods() -> MethodRouter<Arc<App>> {
    post(answer)
}

async fn answer(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Response, Refusal> {
    let mut texts = completions::read(body, app.config.lenient)?;
    let Putting { lease, request } = asking::put(&app, &mut texts.asked).await?;
    let echoes = match texts.echo {
        true => texts.prompts.iter().map(|prompt| echo(lease.engine()?, prompt)).collect::<Result<_, _>>()?,
        false => Vec::new(),
    };
    let requests = texts.prompts.iter().map(|prompt| Request { prompt: prompt.clone(), ..request.clone() });
    let mut speech = Speech::begin_all(lease, requests.collect());
    let envelope = Envelope::new("cmpl-", "text_completion", &texts.asked.model);
    if !texts.asked.is_stream {
        let said = speech.completions().await?;
        return Ok(Json(completions::write(&envelope, &texts, &echoes, &said)).into_response());
    }
    let first = stream::begun(&mut speech).await?;
    let mut chunks = Chunks::new(envelope, texts, echoes);
    Ok(sse::reply(stream::body(speech, first, move |heard, out| chunks.write(heard, out))))
}

/// The prompt as it is told again. BOS is no part of a text that does not spell it.
fn echo(engine: &Engine, prompt: &Prompt) -> Result<Echo, Refusal> {
    let tokenizer = engine.tokenizer();
    let (text, is_spelled) = match prompt {
        Prompt::Text { text, .. } => (text.clone(), !tokenizer.adds_bos()),
        Prompt::Ids(ids) => {
            if let Some(id) = ids.iter().find(|id| **id as usize >= tokenizer.n_tokens()) {
                let n = tokenizer.n_tokens();
                return Err(Refusal::field(
                    "prompt",
                    format!("prompt: there is no token {id}; there are {n}"),
                ));
            }
            (tokenizer.decode(ids, ControlTokens::Show), true)
        }
        Prompt::Chat(_) | Prompt::Infill { .. } => return Ok(Echo::default()),
    };
    let first = engine.encode(prompt)?.first().copied().filter(|_| is_spelled);
    let first = first.map(|id| {
        let bytes = tokenizer.token_bytes(id).to_vec();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        TokenLogprob { text, bytes, id, logprob: f32::NAN, top: Vec::new() }
    });
    Ok(Echo { text, first })
}
