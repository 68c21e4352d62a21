//! From a plan to a model in memory.

use super::plan::{OWN_ADAPTER, Plan};
use crate::refusal::Refusal;
use axum::http::StatusCode;
use rhetor_encode::{Embedder, ReaderOptions};
use rhetor_formats::Checkpoint;
use rhetor_generate::open::{Opened, tokenizer_of};
use rhetor_generate::{Engine, EngineOptions};
use rhetor_store::Settings;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A model in memory.
pub struct Resident {
    /// Its name in the store.
    pub name: String,
    /// What all spellings of its name share.
    pub(super) key: String,
    /// Whether it brings an adapter along.
    pub(super) has_own_adapter: bool,
    /// What it was made with, beside its files.
    pub settings: Settings,
    /// What it does.
    pub mind: Mind,
    /// How long loading took.
    pub load_time: Duration,
    /// Bytes that it may take: weights, and keys and values when its cache is full.
    pub bytes: u64,
    /// Tokens of its context.
    pub context: usize,
    /// The context that it was loaded for; `None` = as it comes.
    pub(super) context_wanted: Option<usize>,
}

/// What a model does.
pub enum Mind {
    /// It writes.
    Speaks(Box<Engine>),
    /// It makes vectors of texts.
    Embeds(Box<Embedder>),
}

impl Resident {
    /// The engine, or why there is none.
    pub fn engine(&self) -> Result<&Engine, Refusal> {
        match &self.mind {
            Mind::Speaks(engine) => Ok(engine),
            Mind::Embeds(_) => Err(Refusal::wrong(format!("\"{}\" does not support generate", self.name))),
        }
    }

    /// The embedder, or why there is none.
    pub fn embedder(&self) -> Result<&Embedder, Refusal> {
        match &self.mind {
            Mind::Embeds(embedder) => Ok(embedder),
            Mind::Speaks(_) => Err(Refusal::wrong(format!("\"{}\" does not support embeddings", self.name))),
        }
    }

    /// Whether it serves requests that want this context.
    pub(super) fn fits(&self, context: Option<usize>) -> bool {
        match (&self.mind, context) {
            // A model that only reads has the context that it has.
            (Mind::Embeds(_), _) | (Mind::Speaks(_), None) => true,
            (Mind::Speaks(_), wanted) => wanted == self.context_wanted || wanted == Some(self.context),
        }
    }
}

/// Loads what was planned. Blocks.
pub(super) fn load(plan: Plan) -> Result<Resident, Refusal> {
    let began = Instant::now();
    let name = plan.name.clone();
    let settings = plan.manifest.as_ref().map(|manifest| manifest.settings.clone()).unwrap_or_default();
    let failed = |error: &dyn std::fmt::Display| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("model '{name}' cannot be loaded: {error}"))
            .code("model_not_loadable")
    };
    let has_own_adapter = plan.adapters.iter().any(|(name, _)| name == OWN_ADAPTER);
    let (mind, context) = match plan.cache {
        None => {
            let checkpoint = Checkpoint::open(&plan.path).map_err(|error| failed(&error))?;
            let tokenizer = tokenizer_of(&checkpoint).map_err(|error| failed(&error))?;
            let embedder = Embedder::open(&checkpoint, tokenizer, ReaderOptions::default(), false);
            let embedder = embedder.map_err(|error| failed(&error))?;
            let context = embedder.max_len();
            (Mind::Embeds(Box::new(embedder)), context)
        }
        Some(cache) => {
            let (names, dirs): (Vec<String>, Vec<PathBuf>) = plan.adapters.into_iter().unzip();
            let opened =
                Opened::read(&plan.path, &dirs, Some(cache.context)).map_err(|error| failed(&error))?;
            let options = EngineOptions {
                context: Some(cache.context),
                kv: cache.kv,
                cache_tokens: Some(cache.cache_tokens),
                drafter: plan.drafter,
                parallel: Some(cache.parallel),
                queue: Some(cache.queue),
                prefix_store: cache.prefixes,
                ..EngineOptions::default()
            };
            let opened = Opened { adapters: names, ..opened };
            let mut engine = opened.speak(&plan.name, options).map_err(|error| failed(&error))?;
            if let Some(template) = settings.template.as_deref() {
                engine.set_template(template).map_err(|error| failed(&error))?;
            }
            (Mind::Speaks(Box::new(engine)), cache.context)
        }
    };
    Ok(Resident {
        name: plan.name,
        key: plan.key,
        has_own_adapter,
        settings,
        mind,
        load_time: began.elapsed(),
        bytes: plan.bytes,
        context,
        context_wanted: plan.context_wanted,
    })
}
