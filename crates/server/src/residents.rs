//! The models in memory: loaded when first asked for.

use crate::app::App;
use crate::refusal::Refusal;
use axum::http::StatusCode;
use rhetor_encode::{Embedder, ReaderOptions};
use rhetor_formats::Checkpoint;
use rhetor_generate::open::{Opened, tokenizer_of};
use rhetor_generate::{Engine, EngineOptions};
use rhetor_store::Manifest;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A model in memory.
pub struct Resident {
    /// The name it was asked for by.
    pub name: String,
    /// What the store knows about it.
    pub manifest: Option<Manifest>,
    /// What it does.
    pub mind: Mind,
    /// How long loading took.
    pub load_time: Duration,
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
}

/// The models in memory.
#[derive(Default)]
pub struct Residents {
    loaded: Mutex<HashMap<String, Arc<Resident>>>,
}

impl Residents {
    /// The model of that name, loaded if it is not in memory. Blocks while it loads.
    pub fn get(&self, app: &App, name: &str) -> Result<Arc<Resident>, Refusal> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resident) = loaded.get(name) {
            return Ok(resident.clone());
        }
        let resident = Arc::new(load(app, name)?);
        loaded.insert(name.to_string(), resident.clone());
        Ok(resident)
    }
}

fn load(app: &App, name: &str) -> Result<Resident, Refusal> {
    let began = Instant::now();
    let failed = |error: &dyn std::fmt::Display| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("model '{name}' cannot be loaded: {error}"))
    };
    let found = app.store.show(name).map_err(|_| Refusal::no_model(name))?;
    let is_embedder = found.path.is_dir() && found.path.join("modules.json").is_file();
    let mind = if is_embedder {
        let checkpoint = Checkpoint::open(&found.path).map_err(|error| failed(&error))?;
        let tokenizer = tokenizer_of(&checkpoint).map_err(|error| failed(&error))?;
        let embedder = Embedder::open(&checkpoint, tokenizer, ReaderOptions::default(), false);
        Mind::Embeds(Box::new(embedder.map_err(|error| failed(&error))?))
    } else {
        let opened = Opened::read(&found.path, &[], app.config.context).map_err(|error| failed(&error))?;
        let options =
            EngineOptions { context: app.config.context, kv: app.config.kv, ..EngineOptions::default() };
        Mind::Speaks(Box::new(opened.speak(name, options).map_err(|error| failed(&error))?))
    };
    Ok(Resident { name: name.to_string(), manifest: found.manifest, mind, load_time: began.elapsed() })
}
