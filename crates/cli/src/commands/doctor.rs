//! `rhetor doctor`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::output::{self, bytes};
use crate::session::Session;
use crate::{config, machine};
use rhetor_kernels::isa::{self, Isa};
use rhetor_store::Network;
use serde_json::{Value, json};
use std::path::Path;

/// Look at this machine: processor, memory, store, network, versions
///
/// Exits with 1 if the store cannot be used.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Run for Doctor {
    const NAME: &str = "doctor";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let home = session.store.home();
        let memory = machine::memory();
        let store_problem = store_problem(session).err();
        let models = session.store.list();
        let config_files: Vec<_> = config::files().into_iter().filter(|path| path.exists()).collect();
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            "processor": machine::processor(),
            "cpu_features": machine::cpu_features(),
            "isa": isa::active().name(),
            "isa_available": Isa::available().map(Isa::name).collect::<Vec<_>>(),
            "threads": session.n_threads(),
            "memory_total_bytes": memory.map(|memory| memory.total),
            "memory_available_bytes": memory.map(|memory| memory.available),
            "memory_bandwidth_bytes_per_second": machine::read_bandwidth(session.n_threads()) as u64,
            "store": home,
            "store_free_bytes": rhetor_store::free_space(home).ok(),
            "store_models": models.as_ref().map(Vec::len).ok(),
            "store_problem": store_problem,
            "network": network(session),
            "config_files": config_files,
        });
        if self.json {
            output::json(&report)?;
        } else {
            let rows = report.as_object().expect("it is an object").iter();
            let rows: Vec<_> = rows
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| {
                    let label = name.trim_end_matches("_bytes").replace("_bytes_per_second", " per second");
                    vec![label.replace('_', " "), plain(name, value)]
                })
                .collect();
            output::table(&rows)?;
        }
        Ok(if store_problem.is_some() { Exit::Refused } else { Exit::Done })
    }
}

fn plain(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(n) if name.contains("bytes") => bytes(n.as_u64().unwrap_or_default()),
        Value::Array(items) if items.is_empty() => "none".to_string(),
        Value::Array(items) => items.iter().map(|item| plain(name, item)).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// Whether models can be read and written.
fn store_problem(session: &Session) -> Result<(), String> {
    session.store.list().map_err(|e| e.to_string())?;
    let home = session.store.home();
    let there = home.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    tempfile::tempfile_in(there).map(drop).map_err(|e| format!("{} cannot be written: {e}", there.display()))
}

/// Whether the sources of models answer.
fn network(session: &Session) -> String {
    if session.pull_options.network == Network::Offline {
        return "off".to_string();
    }
    match rhetor_store::reach(&session.pull_options) {
        Ok(time) => format!("{} answers in {} ms", session.pull_options.index_url, time.as_millis()),
        Err(error) => format!("no answer: {error}"),
    }
}
