//! What a name stands for, and what loading it will take.

use crate::app::App;
use crate::refusal::Refusal;
use axum::http::StatusCode;
use rhetor_formats::Checkpoint;
use rhetor_generate::{DrafterOptions, PrefixStoreOptions};
use rhetor_kernels::kv::KvType;
use rhetor_models::estimate::Estimate;
use rhetor_models::{Family, Model, ModelConfig};
use rhetor_store::{Manifest, ModelName, Reference};
use std::path::{Path, PathBuf};

/// Tokens of the cache for each sequence that may be in flight, where the context allows more.
const TOKENS_EACH: usize = 2048;
/// Bytes of activations and the like, beside weights and cache.
const WORKING_BYTES: u64 = 64 << 20;

/// The name of the adapter that a model brings along; it is always on.
pub(super) const OWN_ADAPTER: &str = "(its own)";

/// What a request's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// The model to load: what all spellings of its name share.
    pub base: String,
    /// The adapters of the server's owner that are on; `None` where there are none for the model.
    pub adapters: Option<Vec<String>>,
}

/// What all spellings of a name share; `None` for what is no name, above all for a path.
pub(super) fn key(name: &str) -> Option<String> {
    if let Ok(name) = ModelName::parse(name) {
        return Some(name.key());
    }
    match Reference::parse(name) {
        Ok(Reference::Path(_)) | Err(_) => None,
        Ok(reference) => Some(reference.to_string()),
    }
}

/// The model or adapter of that name, if it may be used.
pub(super) fn choose(app: &App, name: &str) -> Result<Choice, Refusal> {
    let config = &app.config;
    let asked = key(name).ok_or_else(|| Refusal::no_model(name))?;
    let is_asked = |known: &String| key(known).as_ref() == Some(&asked);
    if !config.models.is_empty() && !config.models.iter().any(is_asked) {
        return Err(Refusal::no_model(name));
    }
    if let Some((adapter, base, _)) = config.adapters.iter().find(|(adapter, ..)| is_asked(adapter)) {
        let base = key(base).ok_or_else(|| Refusal::no_model(base))?;
        return Ok(Choice { base, adapters: Some(vec![adapter.clone()]) });
    }
    let has_adapters = config.adapters.iter().any(|(_, base, _)| is_asked(base));
    Ok(Choice { base: asked, adapters: has_adapters.then(Vec::new) })
}

/// What loading a model will take.
#[derive(Clone)]
pub(super) struct Plan {
    /// What all spellings of the model's name share.
    pub key: String,
    /// The name as the store has it.
    pub name: String,
    pub path: PathBuf,
    pub manifest: Option<Manifest>,
    /// The adapters to attach: name and folder.
    pub adapters: Vec<(String, PathBuf)>,
    /// The context that was asked for; `None` = what the model was made for, as far as memory goes.
    pub context_wanted: Option<usize>,
    /// How the cache is laid out; `None` for a model that only reads.
    pub cache: Option<CachePlan>,
    /// What guesses tokens ahead.
    pub drafter: Option<DrafterOptions>,
    /// Bytes of all that.
    pub bytes: u64,
}

/// How the cache is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CachePlan {
    pub kv: KvType,
    /// Tokens of the context.
    pub context: usize,
    /// Tokens of all sequences together.
    pub cache_tokens: usize,
    /// Sequences in flight.
    pub parallel: usize,
    /// Requests that may wait.
    pub queue: usize,
    /// Where beginnings of prompts are kept.
    pub prefixes: Option<PrefixStoreOptions>,
}

impl Plan {
    /// Looks the model up and reads its sizes, without loading it.
    pub fn read(app: &App, choice: &Choice, context: Option<usize>, budget: u64) -> Result<Plan, Refusal> {
        let name = &choice.base;
        let found = app.store.show(name).map_err(|_| Refusal::no_model(name))?;
        let broken = |error: &dyn std::fmt::Display| {
            Refusal::wrong(format!("model '{name}' cannot be loaded: {error}")).code("model_not_loadable")
        };
        let checkpoint = Checkpoint::open(&found.path).map_err(|error| broken(&error))?;
        let config = Model::config_of(&checkpoint).map_err(|error| broken(&error))?;
        let family = Family::of(&checkpoint).map_err(|error| broken(&error))?;
        let of_base =
            app.config.adapters.iter().filter(|(_, base, _)| self::key(base).as_ref() == Some(name));
        let own = found.adapter.map(|dir| (OWN_ADAPTER.to_string(), dir));
        let adapters: Vec<(String, PathBuf)> =
            own.into_iter().chain(of_base.map(|(adapter, _, dir)| (adapter.clone(), dir.clone()))).collect();
        let drafter = app.config.drafter.clone();
        let draft_model = drafter.iter().filter_map(|drafter| drafter.checkpoint.as_ref());
        let beside = adapters.iter().map(|(_, dir)| dir).chain(draft_model);
        let sizes = beside.map(|path| size_of(path)).sum::<u64>();
        let weights = found.manifest.as_ref().map_or_else(|| size_of(&found.path), Manifest::size);
        let fixed = weights + sizes + WORKING_BYTES;
        let context_wanted = context.or(app.config.context);
        let is_reader = config.is_encoder || found.path.join("modules.json").is_file();
        let cache = match is_reader {
            true => None,
            false => {
                let of_tokens = |n| Estimate { family, config: &config }.kv_bytes(app.config.kv, n);
                let room = Room { fixed, budget, of_tokens: &of_tokens };
                Some(lay_out(app, name, &config, context_wanted, &room)?)
            }
        };
        let kv = cache.as_ref().map_or(0, |cache| {
            Estimate { family, config: &config }.kv_bytes(app.config.kv, cache.cache_tokens)
        });
        let bytes = fixed + kv;
        if bytes > budget {
            return Err(too_large(name, fixed, kv, budget));
        }
        let (path, manifest) = (found.path, found.manifest);
        Ok(Plan {
            key: name.clone(),
            name: found.name,
            path,
            manifest,
            adapters,
            context_wanted,
            cache,
            drafter,
            bytes,
        })
    }

    /// 503: the models in use leave no room.
    pub fn no_room(&self, in_use: u64, budget: u64) -> Refusal {
        let message = format!(
            "model '{}' needs {}; models in use take {} of {}: try again when they are through",
            self.name,
            gib(self.bytes),
            gib(in_use),
            gib(budget)
        );
        later(message)
    }

    /// 503: the model is in use with another context.
    pub fn in_use(&self, context: usize) -> Refusal {
        later(format!(
            "model '{}' is in use with a context of {context} tokens; it cannot be loaded with another one now",
            self.name
        ))
    }
}

/// What a cache may take.
struct Room<'a> {
    /// Bytes that are taken whatever the cache does.
    fixed: u64,
    budget: u64,
    /// Bytes of that many tokens.
    of_tokens: &'a dyn Fn(usize) -> u64,
}

/// The context, and the tokens of the cache: as many sequences as may be in flight, in at most half of what is left, but
/// one full context at least.
fn lay_out(
    app: &App,
    name: &str,
    config: &ModelConfig,
    wanted: Option<usize>,
    room: &Room<'_>,
) -> Result<CachePlan, Refusal> {
    let (longest, each) = (config.context_len, if config.has_encoder() { 2 } else { 1 });
    if let Some(context) = wanted.filter(|&context| context == 0 || context > longest) {
        let message =
            format!("a context of {context} tokens is asked for; model '{name}' allows 1 to {longest}");
        return Err(Refusal::wrong(message).code("context_length_exceeded"));
    }
    let left = room.budget.saturating_sub(room.fixed);
    let of_page = (room.of_tokens)(1).max(1);
    let page_len = rhetor_kernels::kv::PAGE_LEN;
    // A model with an encoder keeps a second set for what it reads.
    let tokens_in = |bytes: u64| (bytes / of_page / each as u64) as usize * page_len;
    let context = match wanted {
        Some(context) => context,
        None => longest.min(tokens_in(left / 2)).max(longest.min(page_len)),
    };
    let request_tokens = each * context;
    let parallel = app.config.parallel.max(1);
    let for_all = parallel.saturating_mul(each * context.min(TOKENS_EACH));
    let cache_tokens = for_all.min(tokens_in(left / 2)).max(request_tokens).next_multiple_of(page_len);
    let kv_bytes = (room.of_tokens)(cache_tokens) * each as u64;
    if kv_bytes > left {
        return Err(too_large(name, room.fixed, kv_bytes, room.budget));
    }
    // `speak` says which model it is.
    let prefixes = app.config.cache_dir.as_ref().map(|dir| PrefixStoreOptions {
        dir: dir.clone(),
        max_bytes: app.config.cache_bytes,
        model: String::new(),
    });
    Ok(CachePlan { kv: app.config.kv, context, cache_tokens, parallel, queue: app.config.queue, prefixes })
}

/// Bytes of a file, or of the files of a folder.
fn size_of(path: &Path) -> u64 {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| size_of(&entry.path())).sum(),
        Err(_) => std::fs::metadata(path).map_or(0, |found| found.len()),
    }
}

fn later(message: String) -> Refusal {
    Refusal { retry_after: Some(5), ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message) }
}

/// 400: it would not fit if it were alone.
fn too_large(name: &str, fixed: u64, kv: u64, budget: u64) -> Refusal {
    let message = format!(
        "model '{name}' needs {}: {} for weights, {} for keys and values; all models may take {} together",
        gib(fixed + kv),
        gib(fixed),
        gib(kv),
        gib(budget)
    );
    Refusal::wrong(message).code("model_too_large")
}

/// Bytes, for people.
fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / (1u64 << 30) as f64)
}
