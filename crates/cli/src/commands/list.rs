//! `rhetor list`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::manual;
use crate::methods;
use crate::output::{self, bytes, count};
use crate::session::Session;
use rhetor_models::timeline::{Landmark, TIMELINE};
use rhetor_models::{FAMILIES, Family, Licence, Published};
use rhetor_store::CATALOGUE;
use serde_json::json;

/// List the models in the store, all that have short names, the methods of a kind, or models that made history
#[derive(Debug, clap::Args)]
pub struct List {
    /// What is listed; `rhetor explain NAME` says more about a line
    #[arg(value_name = "WHAT", default_value = MODELS, value_parser = what())]
    what: String,

    /// List the models that have short names, pulled or not
    #[arg(long)]
    catalogue: bool,

    /// Of the timeline: reports from this month on
    #[arg(long, value_name = "YYYY-MM", value_parser = month)]
    since: Option<(u16, u8)>,

    /// Of the timeline: models of at least so many parameters, as in 10b or 300m
    #[arg(long, value_name = "N", value_parser = size)]
    min_size: Option<u64>,

    /// Of the timeline: models whose weights anybody may use
    #[arg(long)]
    open: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is listed if nothing else is asked for.
const MODELS: &str = "models";

/// Models that made history.
const TIMELINE_NAME: &str = "timeline";

fn what() -> clap::builder::PossibleValuesParser {
    [MODELS].iter().chain(methods::TABLE_NAMES).chain(&[TIMELINE_NAME]).into()
}

fn month(text: &str) -> Result<(u16, u8), String> {
    let parts =
        text.split_once('-').and_then(|(year, month)| Some((year.parse().ok()?, month.parse().ok()?)));
    parts
        .filter(|(_, month)| (1..=12).contains(month))
        .ok_or_else(|| "expected a month, as in 2023-01".to_string())
}

fn size(text: &str) -> Result<u64, String> {
    let unit = match text.chars().last().map(|unit| unit.to_ascii_lowercase()) {
        Some('k') => 1e3,
        Some('m') => 1e6,
        Some('b') => 1e9,
        _ => 1.0,
    };
    let number = if unit > 1.0 { &text[..text.len() - 1] } else { text };
    let number = number.parse().ok().filter(|number: &f64| *number >= 0.0 && number.is_finite());
    number
        .map(|number| (number * unit) as u64)
        .ok_or_else(|| "expected a number, as in 10b or 300m".to_string())
}

impl List {
    /// Models that made history.
    fn timeline(&self) -> Result<Exit, Failure> {
        let is_wanted = |entry: &&Landmark| {
            self.since.is_none_or(|since| entry.month >= since)
                && self.min_size.is_none_or(|least| entry.n_parameters.is_some_and(|n| n >= least))
                && (!self.open || entry.licence == Licence::Open)
        };
        let entries = TIMELINE.iter().filter(is_wanted).map(manual::landmark);
        let names = [
            "month",
            "name",
            "organisation",
            "parameters",
            "tokens",
            "kind",
            "made from",
            "licence",
            "report",
        ];
        if self.json {
            let line = |cells: [String; 9]| -> serde_json::Value {
                let pairs = names.iter().zip(cells).filter(|(_, cell)| !cell.is_empty());
                let pairs = pairs.map(|(name, cell)| (name.replace(' ', "_"), cell.into()));
                serde_json::Value::Object(pairs.collect())
            };
            return output::json(&entries.map(line).collect()).map(|()| Exit::Done);
        }
        let mut rows = vec![names.map(str::to_uppercase).to_vec()];
        rows.extend(entries.map(|cells| cells.to_vec()));
        output::table(&rows)?;
        Ok(Exit::Done)
    }

    /// The families, with what is published of each.
    fn families(&self) -> Result<Exit, Failure> {
        if self.json {
            let checkpoint = |known: &Published| {
                json!({
                    "name": known.name, "parameters": known.n_parameters, "context": known.context_len,
                    "licence": manual::licence(known.licence),
                })
            };
            let line = |family: &&Family| {
                json!({
                    "name": family.about.name,
                    "summary": family.about.summary,
                    "classes": family.architectures.iter().map(|(class, _)| *class).collect::<Vec<_>>(),
                    "gguf": family.gguf,
                    "source": methods::source(&family.about.source),
                    "published": family.published.iter().map(checkpoint).collect::<Vec<_>>(),
                })
            };
            return output::json(&FAMILIES.iter().map(line).collect()).map(|()| Exit::Done);
        }
        let names = ["NAME", "CLASS", "PUBLISHED", "PARAMETERS", "CONTEXT", "LICENCE", "SOURCE"];
        let mut rows = vec![names.map(String::from).to_vec()];
        for family in FAMILIES {
            let known = family.published;
            let ends = |of: fn(&Published) -> u64, text: fn(u64) -> String| {
                let (least, most) = (known.iter().map(of).min(), known.iter().map(of).max());
                match (least, most) {
                    (Some(a), Some(b)) if a == b => text(a),
                    (Some(a), Some(b)) => format!("{} to {}", text(a), text(b)),
                    _ => String::new(),
                }
            };
            let mut licences: Vec<&str> = known.iter().map(|one| manual::licence(one.licence)).collect();
            licences.sort_unstable();
            licences.dedup();
            rows.push(vec![
                family.about.name.to_string(),
                family.architectures.first().map_or(String::new(), |(class, _)| class.to_string()),
                known.len().to_string(),
                ends(|one| one.n_parameters, count),
                ends(|one| one.context_len as u64, manual::grouped),
                licences.join(", "),
                methods::source(&family.about.source),
            ]);
        }
        output::table(&rows)?;
        Ok(Exit::Done)
    }

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
        if self.what == TIMELINE_NAME {
            return self.timeline();
        }
        if self.since.is_some() || self.min_size.is_some() || self.open {
            let message =
                format!("--since, --min-size and --open choose from the timeline, not from {}", self.what);
            return Err(Failure::input(message).hint("`rhetor list timeline` shows it"));
        }
        if self.what == "families" {
            return self.families();
        }
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
