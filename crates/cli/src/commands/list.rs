//! `rhetor list`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::methods;
use crate::output::{self, bytes, count};
use crate::session::Session;
use rhetor_store::CATALOGUE;
use serde_json::json;

/// List the models in the store, all that have short names, or the methods of a kind
#[derive(Debug, clap::Args)]
pub struct List {
    /// What is listed; `rhetor explain NAME` says more about a line
    #[arg(value_name = "WHAT", default_value = MODELS, value_parser = what())]
    what: String,

    /// List the models that have short names, pulled or not
    #[arg(long)]
    catalogue: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is listed if nothing else is asked for.
const MODELS: &str = "models";

fn what() -> clap::builder::PossibleValuesParser {
    [MODELS].iter().chain(methods::TABLE_NAMES).into()
}

impl List {
    /// The names and summaries of a table.
    fn methods(&self, table: &methods::Table) -> Result<Exit, Failure> {
        if self.json {
            let entries = table.entries.iter();
            let line = |entry: &methods::Entry| json!({ "name": entry.name, "summary": entry.summary });
            return output::json(&entries.map(line).collect()).map(|()| Exit::Done);
        }
        let rows: Vec<Vec<String>> =
            table.entries.iter().map(|entry| vec![entry.name.to_string(), entry.summary.clone()]).collect();
        output::table(&rows)?;
        Ok(Exit::Done)
    }
}

impl Run for List {
    const NAME: &str = "list";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        if let Some(table) = methods::tables().iter().find(|table| table.name == self.what) {
            return self.methods(table);
        }
        let stored = session.store.list()?;
        if self.catalogue {
            let is_pulled = |name: &str| stored.iter().any(|manifest| manifest.name == name);
            if self.json {
                let entries = CATALOGUE.iter().map(|entry| {
                    json!({
                        "name": entry.name,
                        "summary": entry.summary,
                        "parameters": entry.parameters,
                        "size": entry.size(),
                        "download_size": entry.download_size(),
                        "licence": entry.licence,
                        "licence_terms": entry.licence_terms,
                        "source": entry.source(),
                        "is_pulled": is_pulled(entry.name),
                    })
                });
                return output::json(&entries.collect()).map(|()| Exit::Done);
            }
            let mut rows =
                vec![["NAME", "SIZE", "PARAMETERS", "LICENCE", "PULLED", ""].map(String::from).to_vec()];
            for entry in CATALOGUE {
                rows.push(vec![
                    entry.name.to_string(),
                    bytes(entry.size()),
                    count(entry.parameters),
                    entry.licence.to_string()
                        + if entry.licence_terms.is_some() { " (restricted)" } else { "" },
                    if is_pulled(entry.name) { "yes" } else { "no" }.to_string(),
                    entry.summary.to_string(),
                ]);
            }
            output::table(&rows)?;
        } else if self.json {
            output::json(&json!(stored))?;
        } else if stored.is_empty() {
            eprintln!(
                "no models in {} yet; `rhetor list --catalogue` shows what can be pulled by name",
                session.store.home().display()
            );
        } else {
            let mut rows = vec![["NAME", "SIZE", "LICENCE", "SOURCE"].map(String::from).to_vec()];
            for manifest in stored {
                let licence = manifest.licence.clone().unwrap_or_else(|| "not stated".to_string());
                rows.push(vec![manifest.name.clone(), bytes(manifest.size()), licence, manifest.source]);
            }
            output::table(&rows)?;
        }
        Ok(Exit::Done)
    }
}
