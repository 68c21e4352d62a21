//! `rhetor explain`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::methods::{self, Entry, Table};
use crate::output;
use crate::session::Session;
use serde_json::json;

/// Explain a method: what it does, where it comes from, what can be set
///
/// A method is an objective, adapter, optimizer, schedule, sampler, data set, recipe or family of models; `rhetor list
/// objectives` and the like show their names.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// Its name
    name: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Run for Explain {
    const NAME: &str = "explain";

    fn run(self, _: &Session) -> Result<Exit, Failure> {
        let tables = methods::tables();
        let lines = tables.iter().flat_map(|table| table.entries.iter().map(move |entry| (table, entry)));
        let found: Vec<(&Table, &Entry)> = lines.filter(|(_, entry)| entry.name == self.name).collect();
        if found.is_empty() {
            let near: Vec<&str> = (tables.iter().flat_map(|table| &table.entries))
                .map(|entry| entry.name)
                .filter(|name| name.contains(&self.name) || self.name.contains(name))
                .collect();
            let failure = Failure::input(format!("nothing is called `{}`", self.name));
            return Err(failure.hint(match near.as_slice() {
                [] => format!("`rhetor list {}` and the like show what there is", methods::TABLE_NAMES[1]),
                near => format!("there are {}", near.join(", ")),
            }));
        }
        if self.json {
            return output::json(&found.iter().map(|(table, entry)| value(table, entry)).collect())
                .map(|()| Exit::Done);
        }
        for (i, (table, entry)) in found.iter().enumerate() {
            if i > 0 {
                output::line("")?;
            }
            explain(table, entry)?;
        }
        Ok(Exit::Done)
    }
}

fn explain(table: &Table, entry: &Entry) -> Result<(), Failure> {
    output::line(&format!("{} ({}): {}", entry.name, table.singular, entry.summary))?;
    for (name, text) in &entry.more {
        output::line(&format!("{name}: {text}"))?;
    }
    let Some(about) = entry.about else { return Ok(()) };
    output::line(&format!("source: {}", methods::source(&about.source)))?;
    if about.options.is_empty() {
        return output::line("options: none");
    }
    let mut rows = vec![["OPTION", "DEFAULT", "FROM", "TO", ""].map(String::from).to_vec()];
    for option in about.options {
        let (from, to) = option.range;
        let numbers = [option.default, from, to].map(|number| format!("{number:?}").replace(".0", ""));
        let cells = [option.name.to_string()].into_iter().chain(numbers);
        rows.push(cells.chain([option.summary.to_string()]).collect());
    }
    output::table(&rows)
}

fn value(table: &Table, entry: &Entry) -> serde_json::Value {
    let options = entry.about.map(|about| {
        let option = |option: &rhetor_catalog::Opt| {
            json!({
                "name": option.name,
                "summary": option.summary,
                "default": option.default,
                "range": [option.range.0, option.range.1],
            })
        };
        about.options.iter().map(option).collect::<Vec<_>>()
    });
    let more: serde_json::Map<String, serde_json::Value> =
        entry.more.iter().map(|(name, text)| (name.to_string(), text.trim_start().into())).collect();
    let mut value = json!({ "name": entry.name, "kind": table.singular, "summary": entry.summary });
    value["source"] = entry.about.map(|about| methods::source(&about.source)).into();
    value["options"] = json!(options);
    value["more"] = more.into();
    value
}
