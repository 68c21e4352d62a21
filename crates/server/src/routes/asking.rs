//! From a request that was read to a model that is asked.

use crate::app::App;
use crate::refusal::Refusal;
use crate::residents::{Lease, Wish};
use crate::wire::ollama::messages::behind;
use crate::wire::openai::options::Asked;
use crate::wire::pictures;
use rhetor_lm::{Prompt, Request};
use std::sync::Arc;

/// A model, and what it is to be asked.
pub(in crate::routes) struct Putting {
    /// The model.
    pub lease: Lease,
    /// The request, complete.
    pub request: Request,
}

/// Finds the model and completes the request: its pictures, the adapters that the model's name means, and the turns that
/// a model made by `create` brings along.
pub(in crate::routes) async fn put(app: &Arc<App>, asked: &mut Asked) -> Result<Putting, Refusal> {
    let wish = Wish { keep_alive: asked.keep_alive, context: None };
    let lease = app.residents.get(app, &asked.model, wish).await?;
    let can = lease.engine()?.capabilities();
    asked.request.pictures = pictures::files(app, &asked.shown).await?;
    if asked.request.adapters.is_none() {
        asked.request.adapters = lease.adapters();
    }
    // An effort is the caller's habit, not a demand on this model.
    if asked.is_effort && !can.thinking {
        asked.request.think = None;
    }
    let mut request = asked.request.clone();
    if let Prompt::Chat(messages) = request.prompt {
        request.prompt = Prompt::Chat(behind(&lease.settings, messages));
    }
    Ok(Putting { lease, request })
}
