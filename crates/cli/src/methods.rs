//! Everything with a name that a recipe or a flag can mention, from the tables of the crates below.

use crate::manual;
use crate::recipes::RECIPES;
use rhetor_catalog::{About, Source};
use rhetor_generate::{DRAFTERS, TEMPLATES, answer::TOOL_SYNTAX, infill::INFILL, sampling::SAMPLING};
use rhetor_models::presets::{PRESETS, Preset};
use rhetor_models::{FAMILIES, Family, Published, TensorName, adapters::ADAPTERS};
use rhetor_train::Recipe;
use rhetor_train::data::{DATA_SETS, FORMATS, SHAPES};
use rhetor_train::objectives::OBJECTIVES;
use rhetor_train::optimizers::OPTIMIZERS;
use rhetor_train::schedules::SCHEDULES;

/// A table of methods, by what the user calls it.
pub struct Table {
    /// `objectives`.
    pub name: &'static str,
    /// `objective`.
    pub singular: &'static str,
    /// Its lines.
    pub entries: Vec<Entry>,
}

/// A line of a table.
pub struct Entry {
    /// What the user types.
    pub name: &'static str,
    /// One sentence.
    pub summary: String,
    /// Options and source, of methods.
    pub about: Option<&'static About>,
    /// What else is known: a licence, the text of a recipe.
    pub more: Vec<(&'static str, String)>,
}

/// The names of the tables, in the order of [`tables`].
pub const TABLE_NAMES: &[&str] = &[
    "recipes",
    "objectives",
    "adapters",
    "optimizers",
    "schedules",
    "data",
    "formats",
    "shapes",
    "families",
    "samplers",
    "templates",
    "tools",
    "infill",
    "drafters",
];

/// Every table.
pub fn tables() -> Vec<Table> {
    let of = |name, singular, abouts: Vec<&'static About>| {
        let entry = |about: &'static About| Entry {
            name: about.name,
            summary: about.summary.to_string(),
            about: Some(about),
            more: Vec::new(),
        };
        Table { name, singular, entries: abouts.into_iter().map(entry).collect() }
    };
    let recipe = |(name, text): &(&'static str, &'static str)| Entry {
        name,
        summary: Recipe::from_toml(text).ok().and_then(|recipe| recipe.summary).unwrap_or_default(),
        about: None,
        more: vec![("text", format!("\n{}", text.trim_end()))],
    };
    let data = DATA_SETS.iter().map(|set| Entry {
        name: set.name,
        summary: set.summary.to_string(),
        about: None,
        more: vec![
            ("licence", set.licence.to_string()),
            ("origin", set.origin.to_string()),
            ("format", set.format.unwrap_or("by the endings of names").to_string()),
        ],
    });
    vec![
        Table { name: "recipes", singular: "recipe", entries: RECIPES.iter().map(recipe).collect() },
        of("objectives", "objective", OBJECTIVES.iter().map(|method| method.about).collect()),
        of("adapters", "adapter", ADAPTERS.iter().map(|method| &method.about).collect()),
        of("optimizers", "optimizer", OPTIMIZERS.iter().map(|method| method.about).collect()),
        of("schedules", "schedule", SCHEDULES.iter().map(|schedule| &schedule.about).collect()),
        Table { name: "data", singular: "data set", entries: data.collect() },
        of("formats", "format", FORMATS.iter().map(|format| &format.about).collect()),
        of("shapes", "shape of rows", SHAPES.iter().map(|shape| &shape.about).collect()),
        Table { name: "families", singular: "family", entries: FAMILIES.iter().map(|f| family(f)).collect() },
        of("samplers", "sampler", SAMPLING.iter().map(|step| step.about()).collect()),
        of("templates", "template", TEMPLATES.iter().map(|template| &template.about).collect()),
        of("tools", "syntax of tool calls", TOOL_SYNTAX.iter().map(|syntax| &syntax.about).collect()),
        of("infill", "infill template", INFILL.iter().map(|template| &template.about).collect()),
        of("drafters", "drafter", DRAFTERS.iter().map(|method| &method.about).collect()),
    ]
}

/// A family: its classes, checkpoints and tensors.
fn family(family: &'static Family) -> Entry {
    let mut more = vec![("classes", manual::classes(family))];
    if !family.gguf.is_empty() {
        more.push(("in GGUF files", family.gguf.to_string()));
    }
    let checkpoint = |known: &Published| {
        let (n, context) = (manual::grouped(known.n_parameters), manual::context(known));
        format!("\n  {}: {n} parameters, context {context}, {}", known.name, manual::licence(known.licence))
    };
    if !family.published.is_empty() {
        more.push(("published", family.published.iter().map(checkpoint).collect()));
    }
    let is_known = |preset: &&Preset| family.published.iter().any(|known| known.name == preset.name);
    if let Some(preset) = PRESETS.iter().find(is_known) {
        let text = format!("as of {}, {}", preset.name, preset.text());
        more.push(("keys of config.json", text));
    }
    let tensor = |row: &TensorName| {
        let bias = if row.has_bias { ", with a bias" } else { "" };
        format!(
            "\n  {} [{}]{bias}, in Hugging Face's files {}{}",
            row.ours, row.shape, family.prefix, row.hugging_face
        )
    };
    more.push(("tensors", family.tensors.iter().map(tensor).collect()));
    Entry {
        name: family.about.name,
        summary: family.about.summary.to_string(),
        about: Some(&family.about),
        more,
    }
}

/// Where a method comes from, in a line.
pub fn source(source: &Source) -> String {
    match source {
        Source::Paper { title, id, section } => format!("{title}, {id}, {section}"),
        Source::Project(name) => name.to_string(),
        Source::Folklore => "common knowledge of the field".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_its_name_and_every_entry_a_summary() {
        let tables = tables();
        assert_eq!(tables.iter().map(|table| table.name).collect::<Vec<_>>(), TABLE_NAMES);
        for Table { name, entries, .. } in &tables {
            assert!(!entries.is_empty());
            for (i, entry) in entries.iter().enumerate() {
                assert!(!entry.summary.is_empty() && !entry.summary.ends_with('.'), "{name}: {}", entry.name);
                assert!(entries[..i].iter().all(|other| other.name != entry.name), "{} twice", entry.name);
            }
        }
    }
}
