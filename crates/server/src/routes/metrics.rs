//! `GET /metrics`: the server's numbers in the text format of Prometheus.

use crate::app::App;
use crate::metrics::{head, label, one};
use crate::residents::{Loaded, Mind};
use axum::extract::State;
use axum::http::header;
use axum::routing::{MethodRouter, get};
use rhetor_generate::Stats;
use std::fmt::Write;
use std::sync::Arc;

/// A number of each model's engine: name, help, kind, and where it is found.
type OfModel = (&'static str, &'static str, &'static str, fn(&Stats) -> f64);

const OF_MODELS: &[OfModel] = &[
    ("rhetor_model_requests_waiting", "Requests that have not begun", "gauge", |s| s.requests_waiting as f64),
    ("rhetor_model_sequences_running", "Sequences being computed", "gauge", |s| s.sequences_running as f64),
    ("rhetor_model_kv_pages", "Pages of keys and values", "gauge", |s| s.cache_pages_total as f64),
    ("rhetor_model_kv_pages_used", "Pages that sequences in flight use", "gauge", |s| {
        s.cache_pages_used as f64
    }),
    ("rhetor_model_kv_pages_kept", "Pages kept for later prompts", "gauge", |s| s.cache_pages_idle as f64),
    ("rhetor_model_preemptions_total", "Sequences put back as pages ran out", "counter", |s| {
        s.preemptions as f64
    }),
    ("rhetor_model_steps_total", "Steps", "counter", |s| s.steps as f64),
    ("rhetor_model_prefilled_tokens_total", "Prompt tokens computed", "counter", |s| {
        s.tokens_prefilled as f64
    }),
    ("rhetor_model_decoded_tokens_total", "Tokens computed one by one", "counter", |s| {
        s.tokens_decoded as f64
    }),
    ("rhetor_model_busy_seconds_total", "Seconds inside the model", "counter", |s| s.seconds_in_model),
];

/// `GET /metrics`.
pub(super) fn methods() -> MethodRouter<Arc<App>> {
    get(async |State(app): State<Arc<App>>| {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text(&app))
    })
}

fn text(app: &App) -> String {
    let mut out = String::new();
    app.metrics.write(&mut out);
    let (loads, unloads) = app.residents.n_loads_and_unloads();
    one(&mut out, "rhetor_model_loads_total", "Models loaded", "counter", loads as f64);
    one(&mut out, "rhetor_model_unloads_total", "Models unloaded", "counter", unloads as f64);
    let budget = app.residents.budget() as f64;
    one(&mut out, "rhetor_memory_bytes_max", "Bytes that models may take together", "gauge", budget);
    let loaded = app.residents.ps();
    let help = "Bytes that a model may take, with its cache full";
    of_models(&mut out, "rhetor_model_memory_bytes", help, "gauge", &loaded, |loaded| {
        Some(loaded.resident.bytes as f64)
    });
    of_models(&mut out, "rhetor_model_users", "Requests that hold a model", "gauge", &loaded, |loaded| {
        Some(loaded.n_users as f64)
    });
    for (name, help, kind, number) in OF_MODELS {
        of_models(&mut out, name, help, kind, &loaded, |loaded| match &loaded.resident.mind {
            Mind::Speaks(engine) => Some(number(&engine.stats())),
            Mind::Embeds(_) => None,
        });
    }
    out
}

fn of_models(
    out: &mut String,
    name: &str,
    help: &str,
    kind: &str,
    loaded: &[Loaded],
    number: impl Fn(&Loaded) -> Option<f64>,
) {
    head(out, name, help, kind);
    for loaded in loaded {
        if let Some(number) = number(loaded) {
            let _ = writeln!(out, "{name}{{model=\"{}\"}} {number}", label(&loaded.resident.name));
        }
    }
}
