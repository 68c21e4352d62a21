//! The chapter of the manual that is written from the tables of families.

use crate::methods;
use rhetor_formats::{Checkpoint, safetensors};
use rhetor_kernels::kv::KvType;
use rhetor_models::estimate::Estimate;
use rhetor_models::presets::PRESETS;
use rhetor_models::quant_mix::Mix;
use rhetor_models::timeline::{Landmark, TIMELINE};
use rhetor_models::{FAMILIES, Family, Licence, Model, Published, Task};
use std::fmt::Write;
use std::path::Path;

/// `docs/families.md`.
pub fn families() -> String {
    let mut text = String::from(BEGINNING);
    let mut row = |cells: &[String]| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    for family in FAMILIES {
        let gguf = if family.gguf.is_empty() { String::new() } else { format!("`{}`", family.gguf) };
        row(&[
            format!("`{}`", family.about.name),
            family.about.summary.to_string(),
            classes(family),
            gguf,
            methods::source(&family.about.source),
        ]);
    }
    text += CHECKPOINTS;
    for (family, known) in published() {
        let _ = writeln!(
            text,
            "| {} | `{}` | {} | {} | {} |",
            known.name,
            family.about.name,
            grouped(known.n_parameters),
            context(known),
            licence(known.licence)
        );
    }
    text += COSTS;
    for preset in PRESETS.iter() {
        let _ = writeln!(text, "{}", cost(&preset.name, &preset.text()));
    }
    text += WALL;
    for entry in TIMELINE {
        let _ = writeln!(text, "| {} |", landmark(entry).join(" | "));
    }
    text
}

const BEGINNING: &str = "# Families

Which models run here, what they cost, and where they stand in history; written by a test from the tables of the program,
so that it is true. `rhetor explain NAME` says more of a family: its checkpoints, and every tensor with its shape.

## What is read

| family | what it is | classes of `config.json` | in GGUF files | source |
|---|---|---|---|---|
";

const CHECKPOINTS: &str = "
## Published checkpoints

Parameters are counted from the family's table of tensors, tied ones once. The licence is told by class: *open* is MIT, Apache
and their kin, *restricted* has conditions of use or of size, *research* forbids the rest.

| checkpoint | family | parameters | context | licence |
|---|---|---:|---:|---|
";

const COSTS: &str = "
## What they cost

Of one sequence as long as the context, at most 4,096 tokens. `rhetor estimate NAME` says it for other lengths, types and machines.

| checkpoint | weights, f16 | weights, q4_k_m | keys and values, f16 | training of all weights, f32 | operations for a token |
|---|---:|---:|---:|---:|---:|
";

const WALL: &str = "
## The memory wall

Models have grown faster than what feeds them. In two years each, on average of the last two decades: size of Transformers 410
times (240 times by the first edition of the article), operations of training 750 times, memory of an accelerator 2 times,
its operations a second 3.1 times, the bandwidth of its memory 1.4 times, of its links 1.2 times. Source: AI and Memory Wall,
arXiv:2403.14123.

| what | formula |
|---|---|
| weights | P · bytes |
| training here, without activations | 16 B · P: f32 values, gradients, AdamW's two moments |
| training in 16 bits, without activations | 16 to 18 B · P: values, gradients, f32 values and moments |
| activations in 16 bits | s · b · D · (34 + 5 · H · s / D) · L; 2 · s · b · D · L if blocks are computed again |
| keys and values | 2 · L · K · d · T · bytes |
| a token, at least | (weights + keys and values) / bandwidth |
| a prompt, at least | 2 · P · T / operations a second |

A token does about one operation for each byte of 16-bit weights, and a processor is kept busy from ten or more on: memory
binds. A prompt reads the weights once for all its tokens: operations bind. The same holds for many sequences at once.

## Timeline

Reports of models by month; `rhetor list timeline --since 2023-01 --min-size 10b --open` chooses among them. A number that
no report tells is left out.

| month | model | organisation | parameters | tokens | kind | made from | licence | report |
|---|---|---|---:|---:|---|---|---|---|
";

/// A line of the table of costs.
fn cost(name: &str, config: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder for a configuration");
    let checkpoint = without_weights(config, folder.path()).expect("presets are configurations");
    let family = Family::of(&checkpoint).expect("presets have a family");
    let config = Model::config_of(&checkpoint).expect("presets are read");
    let estimate = Estimate { family, config: &config };
    let giga = |n: u64| format!("{:.2} GB", n as f64 / 1e9);
    let n_tokens = config.context_len.min(4096);
    let training = estimate.full_training();
    format!(
        "| {name} | {} | {} | {} | {} | {:.1} GFLOP |",
        giga(estimate.weight_bytes(Mix::F16)),
        giga(estimate.weight_bytes(Mix::Q4KM)),
        giga(estimate.kv_bytes(KvType::F16, n_tokens)),
        giga(training.weights + training.gradients + training.optimizer),
        estimate.forward_flops(n_tokens - 1) / 1e9
    )
}

/// A checkpoint without tensors, through which the configuration `config` is read like any other.
pub(crate) fn without_weights(config: &str, folder: &Path) -> Result<Checkpoint, rhetor_formats::Error> {
    rhetor_formats::write_bytes(&folder.join("config.json"), config.as_bytes())?;
    safetensors::write(&folder.join("model.safetensors"), &[], &[], |_, _| Ok(()))?;
    Checkpoint::open(folder)
}

/// Every published checkpoint with its family.
pub(crate) fn published() -> impl Iterator<Item = (&'static Family, &'static Published)> {
    FAMILIES.iter().flat_map(|&family| family.published.iter().map(move |known| (family, known)))
}

/// The classes of a family, each with what its head is for if that is not to write.
pub(crate) fn classes(family: &Family) -> String {
    let class = |(name, task): &(&str, Task)| match task {
        Task::Vocabulary => name.to_string(),
        task => format!("{name} ({task:?})"),
    };
    family.architectures.iter().map(class).collect::<Vec<_>>().join(", ")
}

/// The context of a checkpoint, in tokens.
pub(crate) fn context(known: &Published) -> String {
    if known.context_len == 0 { "any".to_string() } else { grouped(known.context_len as u64) }
}

/// What a licence allows, in a word.
pub(crate) fn licence(licence: Licence) -> &'static str {
    match licence {
        Licence::Open => "open",
        Licence::Restricted => "restricted",
        Licence::Research => "research",
        Licence::Unpublished => "unpublished",
    }
}

/// An entry of the timeline in cells.
pub(crate) fn landmark(entry: &Landmark) -> [String; 9] {
    let base = entry.base.map_or(String::new(), |(base, how)| format!("{base}: {how}"));
    [
        format!("{}-{:02}", entry.month.0, entry.month.1),
        entry.name.to_string(),
        entry.organisation.to_string(),
        entry.n_parameters.map_or(String::new(), grouped),
        entry.n_tokens.map_or(String::new(), |n| format!("{:.1} T", n / 1e12)),
        entry.shape.name().to_string(),
        base,
        licence(entry.licence).to_string(),
        entry.reference.to_string(),
    ]
}

/// `6,738,415,616`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_parted_by_commas() {
        assert_eq!([0, 999, 1000, 6_738_415_616].map(grouped), ["0", "999", "1,000", "6,738,415,616"]);
    }
}
