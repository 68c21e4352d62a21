//! Texts become vectors, for both routes of embeddings.

use crate::app::App;
use crate::refusal::Refusal;
use crate::residents::{Lease, Wish};
use crate::wire::fields::Fields;
use crate::wire::keep_alive::keep_alive;
use crate::wire::ollama::options::Options;
use std::sync::Arc;

/// What both routes ask alike.
pub(super) struct Asked {
    pub model: String,
    pub wish: Wish,
}

/// Vectors, and what reading the texts took.
pub(super) struct Vectors {
    pub vectors: Vec<Vec<f32>>,
    pub n_tokens: usize,
    /// Tokens that had no room.
    pub n_cut: usize,
}

/// Reads `model`, `keep_alive` and `options`, of which a model that reads has none.
pub(super) fn read(fields: &mut Fields) -> Result<Asked, Refusal> {
    let model: String = fields.take("model")?.unwrap_or_default();
    let keep_alive = keep_alive(fields)?;
    if let Some(mut options) = fields.object("options")? {
        let mut given = Options::default();
        given.read(&mut options)?;
        if given != Options::default() {
            options.unsupported("options", "a model that makes vectors has no options")?;
        }
        fields.close(options)?;
    }
    Ok(Asked { model, wish: Wish { keep_alive, context: None } })
}

/// The model.
pub(super) async fn lease(app: &Arc<App>, asked: &Asked) -> Result<Lease, Refusal> {
    let lease = app.residents.get(app, &asked.model, asked.wish).await?;
    lease.embedder()?;
    Ok(lease)
}

/// The vectors of `texts`.
pub(super) async fn of(
    app: &Arc<App>,
    lease: &Lease,
    texts: &[String],
    truncate: bool,
) -> Result<Vectors, Refusal> {
    let embedder = lease.embedder()?;
    let (read, n_prompt) = embedder.texts(texts, None).map_err(|error| Refusal::wrong(error.to_string()))?;
    let n_tokens = read.iter().map(|text| text.ids.len()).sum();
    let n_cut = read.iter().map(|text| text.n_cut).sum();
    if n_cut > 0 && !truncate {
        let message = format!("the input length exceeds the context length of {} tokens", embedder.max_len());
        return Err(Refusal::field("input", message));
    }
    let vectors = app.embed_queue.embed(lease, read, n_prompt, app.config.queue).await?;
    if vectors.iter().flatten().any(|x| !x.is_finite()) {
        return Err(Refusal::wrong("the model gives no finite numbers for this input"));
    }
    Ok(Vectors { vectors, n_tokens, n_cut })
}
