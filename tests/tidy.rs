//! The rules of the house, as tests: see ARCHITECTURE.md, "Invariants".
//!
//! They read the sources as text and the tables as values; none of them needs a model.
#![forbid(unsafe_code)]

use rhetor_catalog::{About, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate and the arrows that leave it. A crate may also name what its arrows reach, and nothing else.
const ARROWS: &[(&str, &[&str])] = &[
    ("catalog", &[]),
    ("kernels", &[]),
    ("images", &[]),
    ("tensor", &["kernels"]),
    ("formats", &["kernels"]),
    ("tokenizer", &["formats"]),
    ("models", &["tensor", "formats", "catalog"]),
    ("lm", &["catalog"]),
    ("encode", &["tokenizer", "models"]),
    ("generate", &["tokenizer", "models", "lm", "images"]),
    ("store", &[]),
    ("train", &["generate"]),
    ("server", &["encode", "generate", "store"]),
    ("cli", &["server", "train"]),
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "misc", "manager", "types", "stuff"];

/// Endings of type names that say nothing about what the type is.
const EMPTY_ENDINGS: &[&str] = &["Manager", "Helper", "Util", "Utils", "Handler", "Processor", "Impl"];

/// The longest line of code that rustfmt cannot break, such as in macros; comments, texts and tests are not measured.
const LINE_LENGTH: usize = 140;

#[test]
fn arrows_between_crates_are_those_of_the_architecture() {
    let folders: BTreeSet<String> = crates().iter().map(|path| name_of(path)).collect();
    let drawn: BTreeSet<String> = ARROWS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(folders, drawn, "the folders under crates/ and the crates of the drawing");
    for (name, arrows) in ARROWS {
        let manifest = read(&root().join("crates").join(name).join("Cargo.toml"));
        let reach = reach(name);
        let direct = dependencies(&manifest, "dependencies");
        for arrow in *arrows {
            assert!(direct.contains(*arrow), "{name} should depend on {arrow}");
        }
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for dependency in dependencies(&manifest, section) {
                assert!(reach.contains(&dependency), "{name} may not depend on {dependency} ([{section}])");
            }
        }
    }
}

#[test]
fn unsafe_code_lives_in_kernels_only() {
    for path in crates().iter().filter(|path| name_of(path) != "kernels") {
        for file in
            ["src/lib.rs", "src/main.rs"].map(|file| path.join(file)).iter().filter(|file| file.exists())
        {
            assert!(
                read(file).contains("\n#![forbid(unsafe_code)]\n"),
                "{} does not forbid unsafe",
                show(file)
            );
        }
    }
}

#[test]
fn every_source_file_is_a_module_of_its_crate() {
    for path in crates() {
        let src = path.join("src");
        let mut reached = BTreeSet::new();
        for start in [src.join("lib.rs"), src.join("main.rs")] {
            walk_modules(&start, &src, &mut reached);
        }
        for file in rust_files(&src) {
            assert!(reached.contains(&file), "no module names {}", show(&file));
        }
    }
    let manifest = read(&root().join("crates/cli/Cargo.toml"));
    for folder in ["tests", "examples"] {
        // A `mod.rs` is a part of the tests that name it.
        let declared = rust_files(&root().join(folder)).into_iter().filter(|file| name_of(file) != "mod.rs");
        for file in declared {
            let line = format!("path = \"../../{}\"", show(&file));
            assert!(manifest.contains(&line), "crates/cli/Cargo.toml does not declare {}", show(&file));
        }
    }
}

#[test]
fn nothing_below_the_program_prints_or_reads_the_environment() {
    let forbidden = ["println!(", "eprintln!(", "print!(", "dbg!(", "env::var", "env::temp_dir"];
    for (file, text) in sources().iter().filter(|(file, _)| !file.starts_with(root().join("crates/cli"))) {
        for (number, line) in code_lines(text) {
            for word in forbidden {
                assert!(!line.contains(word), "{}:{number} has {word}", show(file));
            }
        }
    }
}

#[test]
fn names_say_what_is_inside() {
    for (file, text) in sources() {
        for part in file.strip_prefix(root()).expect("sources lie under the root").components() {
            let stem = part.as_os_str().to_string_lossy().replace(".rs", "");
            assert!(!EMPTY_NAMES.contains(&stem.as_str()), "{} is named {stem}", show(&file));
        }
        for (number, line) in code_lines(&text) {
            for kind in ["struct ", "enum ", "trait "] {
                let Some((before, after)) = line.split_once(kind) else { continue };
                if !matches!(before.trim(), "" | "pub" | "pub(crate)" | "pub(super)") {
                    continue;
                }
                let name: String = after.chars().take_while(|c| c.is_alphanumeric()).collect();
                let empty = EMPTY_ENDINGS.iter().any(|ending| name.ends_with(ending));
                assert!(!empty, "{}:{number} declares {name}", show(&file));
            }
        }
    }
}

#[test]
fn lines_of_code_are_short_and_promise_nothing() {
    // Written in two parts, so that this file does not find itself.
    let promises =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];
    let mut wrong = Vec::new();
    for file in all_rust_files() {
        let text = read(&file);
        for (number, line) in code_lines(&text).filter(|(_, line)| !line.contains('"')) {
            let code = line.split(" //").next().unwrap_or_default();
            let length = code.chars().count();
            if length > LINE_LENGTH {
                wrong.push(format!("{}:{number} has {length} characters", show(&file)));
            }
        }
        for (i, line) in text.lines().enumerate() {
            let found = promises.iter().filter(|promise| line.contains(*promise));
            wrong.extend(found.map(|promise| format!("{}:{} has {promise}", show(&file), i + 1)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn documents_name_only_what_exists() {
    let folders: Vec<PathBuf> = crates();
    let mut wrong = Vec::new();
    for file in documents() {
        let text = read(&file);
        let here = file.parent().expect("a file has a folder");
        for target in links(&text) {
            if !here.join(&target).exists() {
                wrong.push(format!("{} links to {target}, which does not exist", show(&file)));
            }
        }
        for path in spans(&text).iter().filter(|span| looks_like_a_path(span)) {
            let mut candidates = vec![root().join(path), here.join(path)];
            candidates.extend(folders.iter().map(|folder| folder.join(path)));
            candidates.extend(folders.iter().map(|folder| folder.join("src").join(path)));
            if let Some((name, rest)) = path.split_once('/') {
                candidates.push(root().join("crates").join(name).join("src").join(rest));
            }
            if !candidates.iter().any(|candidate| candidate.exists()) {
                wrong.push(format!("{} names `{path}`, which does not exist", show(&file)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_architecture_is_short_and_has_a_sentence_per_line() {
    let text = read(&root().join("ARCHITECTURE.md"));
    assert!(text.lines().count() <= 400, "ARCHITECTURE.md has {} lines", text.lines().count());
    for (i, line) in prose_lines(&text) {
        let sentences = line.matches(". ").filter(|_| !line.starts_with('|')).count();
        let enumeration = line.split_once(". ").is_some_and(|(n, _)| n.trim().parse::<u32>().is_ok());
        assert!(
            sentences <= usize::from(enumeration),
            "ARCHITECTURE.md:{i} has more than one sentence: {line}"
        );
    }
}

#[test]
fn every_public_table_and_crate_is_in_the_architecture() {
    let text = read(&root().join("ARCHITECTURE.md"));
    for (name, _) in ARROWS {
        assert!(text.contains(&format!("`{name}`")), "ARCHITECTURE.md does not describe `{name}`");
    }
    for (file, source) in sources() {
        for table in code_lines(&source).filter_map(|(_, line)| public_table(line)) {
            let span = format!("`{table}`");
            assert!(text.contains(&span), "ARCHITECTURE.md does not list {span} of {}", show(&file));
        }
    }
}

#[test]
fn no_file_names_a_place_of_one_machine() {
    // Written in two parts, so that this file does not find itself.
    let places = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/tm", "p/")];
    for file in all_rust_files().into_iter().chain(documents()) {
        for (i, line) in read(&file).lines().enumerate() {
            let found = places.iter().find(|place| line.contains(*place));
            assert!(found.is_none(), "{}:{} names {}", show(&file), i + 1, found.unwrap_or(&""));
        }
    }
}

#[test]
fn entries_of_tables_have_a_name_a_summary_and_a_source() {
    use rhetor_generate::{DRAFTERS, TEMPLATES, answer::TOOL_SYNTAX, infill::INFILL, sampling::SAMPLING};
    check_table("FAMILIES", rhetor_models::FAMILIES.iter().map(|family| family.about));
    check_table("SAMPLING", SAMPLING.iter().map(|step| *step.about()));
    check_table("TEMPLATES", TEMPLATES.iter().map(|template| template.about));
    check_table("INFILL", INFILL.iter().map(|template| template.about));
    check_table("DRAFTERS", DRAFTERS.iter().map(|method| method.about));
    check_table("TOOL_SYNTAX", TOOL_SYNTAX.iter().map(|syntax| syntax.about));
}

#[test]
fn commands_have_a_name_and_a_summary() {
    let mut names = BTreeSet::new();
    for command in rhetor::command_line().get_subcommands() {
        check_name("COMMANDS", command.get_name());
        assert!(names.insert(command.get_name().to_string()), "COMMANDS has {} twice", command.get_name());
        check_summary("COMMANDS", command.get_name(), &command.get_about().expect("a summary").to_string());
        for flag in command.get_arguments() {
            assert!(flag.get_help().is_some(), "{} says nothing about {}", command.get_name(), flag.get_id());
        }
    }
}

#[test]
fn models_of_the_catalogue_are_pinned() {
    let mut names = BTreeSet::new();
    for entry in rhetor_store::CATALOGUE {
        check_name("CATALOGUE", entry.name);
        check_summary("CATALOGUE", entry.name, entry.summary);
        assert!(names.insert(entry.name), "CATALOGUE has {} twice", entry.name);
        let sums = entry.files.iter().map(|file| file.sha256).chain(entry.archives.iter().map(|a| a.sha256));
        for sum in sums {
            assert!(sum.len() == 64 && sum.bytes().all(|c| c.is_ascii_hexdigit()), "{}: {sum}", entry.name);
        }
        assert!(!entry.archives.is_empty() && !entry.licence.is_empty(), "{} has no source", entry.name);
    }
}

/// `UPDATE_EXPECT=1 cargo test -p rhetor --test tidy` writes it anew.
#[test]
fn the_reference_of_the_command_line_is_what_the_program_says() {
    let mut text = String::from(
        "# Command line\n\nWhat `rhetor help COMMAND` says; written by a test, so that it is true.\n",
    );
    let mut program = rhetor::command_line().term_width(100);
    program.build();
    let help = |command: &clap::Command| command.clone().term_width(100).render_long_help().to_string();
    text += &format!("\n## rhetor\n\n```text\n{}```\n", trimmed(&help(&program)));
    for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_name();
        text += &format!("\n## rhetor {name}\n\n```text\n{}```\n", trimmed(&help(command)));
        for part in command.get_subcommands().filter(|part| part.get_name() != "help") {
            let part_name = part.get_name();
            text += &format!("\n### rhetor {name} {part_name}\n\n```text\n{}```\n", trimmed(&help(part)));
        }
    }
    expect_test::expect_file!["../docs/command-line.md"].assert_eq(&text);
}

/// `UPDATE_EXPECT=1 cargo test -p rhetor --test tidy` writes it anew.
#[test]
fn the_manual_of_families_is_what_the_tables_say() {
    expect_test::expect_file!["../docs/families.md"].assert_eq(&rhetor::manual::families());
}

#[test]
fn the_manual_of_training_has_every_key_of_a_recipe_with_its_default() {
    let text = read(&root().join("docs/training.md"));
    let section = text.split("### Keys").nth(1).and_then(|rest| rest.split("\n## ").next());
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        (cells[1].to_string(), cells[2].to_string())
    };
    let lines = section.expect("the keys have a section").lines().filter(|line| line.starts_with("| `"));
    let written: BTreeMap<String, String> = lines.map(row).collect();
    let recipe = serde_json::to_value(rhetor_train::Recipe::default()).expect("a recipe is JSON");
    let of = |value: &serde_json::Value| if value.is_null() { String::new() } else { value.to_string() };
    let keys = recipe.as_object().expect("a recipe is a table").iter();
    let known: BTreeMap<String, String> = keys.map(|(key, value)| (key.clone(), of(value))).collect();
    assert_eq!(written, known);
}

#[test]
fn commands_in_documents_are_accepted_by_the_program() {
    let mut n_commands = 0;
    for file in documents() {
        for line in blocks(&read(&file), "console").iter().flat_map(|block| block.lines()) {
            let Some(words) = line.strip_prefix("$ ").map(words) else { continue };
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let arguments = match words.as_slice() {
                ["rhetor", rest @ ..] | ["cargo", "run", "--release", "--", rest @ ..] => rest,
                ["cargo", "test", "--workspace"] | ["cargo", "install", "--path", "crates/cli"] => continue,
                _ => panic!("{} shows a command that nobody checks: {line}", show(&file)),
            };
            let parsed = rhetor::command_line()
                .try_get_matches_from(std::iter::once("rhetor").chain(arguments.iter().copied()));
            assert!(parsed.is_ok(), "{}: {line}\n{}", show(&file), parsed.unwrap_err());
            n_commands += 1;
        }
    }
    assert!(n_commands >= 10, "found {n_commands} commands only");
}

#[test]
fn code_in_documents_is_code_of_an_example() {
    let examples: Vec<String> = rust_files(&root().join("examples")).iter().map(|file| read(file)).collect();
    for file in documents() {
        for block in blocks(&read(&file), "rust") {
            // A document may leave out the parts between two blank lines, not change them.
            for part in block.split("\n\n") {
                let found = examples.iter().any(|example| example.contains(part.trim_end()));
                assert!(found, "{} shows code that is in no example:\n{part}", show(&file));
            }
        }
    }
}

/// Prints the pairs and never fails: two files that share half of their lines ask for a look.
#[test]
fn the_most_similar_files_are_printed() {
    let shingled: Vec<(PathBuf, BTreeSet<String>)> = sources()
        .into_iter()
        .map(|(file, text)| (file, shingles(&text)))
        .filter(|(_, s)| s.len() >= 20)
        .collect();
    let mut pairs = Vec::new();
    for (i, (a, of_a)) in shingled.iter().enumerate() {
        for (b, of_b) in &shingled[i + 1..] {
            let shared = of_a.intersection(of_b).count();
            pairs.push((shared * 100 / of_a.len().min(of_b.len()), show(a), show(b)));
        }
    }
    pairs.sort_by_key(|pair| std::cmp::Reverse(pair.0));
    println!("the most similar files (share of the shorter one's runs of three lines):");
    for (percent, a, b) in pairs.iter().take(5) {
        println!("  {percent:3} %  {a}  {b}");
    }
}

#[test]
fn no_two_families_share_more_than_a_third_of_their_lines() {
    let folder = root().join("crates/models/src/families");
    let families: Vec<(String, Vec<String>)> = rust_files(&folder)
        .into_iter()
        .filter(|file| !file.ends_with("mod.rs"))
        .map(|file| (name_of(&file), said_lines(&read(&file))))
        .collect();
    assert!(families.len() > 1, "no families in {}", folder.display());
    for (i, (a, of_a)) in families.iter().enumerate() {
        for (b, of_b) in &families[i + 1..] {
            let mut rest: Vec<&String> = of_b.iter().collect();
            let is_shared = |line: &&String| match rest.iter().position(|other| other == line) {
                Some(at) => {
                    rest.swap_remove(at);
                    true
                }
                None => false,
            };
            let n_shared = of_a.iter().filter(is_shared).count();
            let (shared, all) = (2 * n_shared, of_a.len() + of_b.len());
            assert!(
                3 * shared <= all,
                "{shared} of the {all} lines of {a} and {b} are the same: find the brick"
            );
        }
    }
}

/// Every entry of a table: its name unique, its summary a sentence without its period, its source given.
fn check_table(table: &str, entries: impl Iterator<Item = About>) {
    let mut names = BTreeSet::new();
    for about in entries {
        check_name(table, about.name);
        check_summary(table, about.name, about.summary);
        assert!(names.insert(about.name), "{table} has {} twice", about.name);
        let texts: &[&str] = match &about.source {
            Source::Paper { title, id, section } => &[title, id, section],
            Source::Project(name) => &[name],
            Source::Folklore => &[],
        };
        assert!(texts.iter().all(|text| !text.is_empty()), "{table}: {} has an empty source", about.name);
        for option in about.options {
            check_name(table, option.name);
            check_summary(table, option.name, option.summary);
            assert!(
                option.check(option.default).is_ok(),
                "{table}: the default of {} is refused",
                option.name
            );
        }
    }
    assert!(!names.is_empty(), "{table} is empty");
}

/// Names are what the user types: kebab-case.
fn check_name(table: &str, name: &str) {
    let kebab = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.');
    assert!(kebab && !name.is_empty(), "{table} has the name {name:?}");
}

fn check_summary(table: &str, name: &str, summary: &str) {
    let fits = !summary.is_empty() && !summary.ends_with('.') && !summary.contains('\n');
    assert!(fits, "{table}: the summary of {name} is {summary:?}");
}

/// The fenced blocks of a document that are written in `language`.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("\n```{language}\n");
    let parts = text.split(fence.as_str()).skip(1);
    parts.map(|part| part.split("```").next().unwrap_or_default().to_string()).collect()
}

/// A line of shell as words; double quotes keep spaces, and nothing else is special.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    let words = parts.flat_map(|(i, part)| match i % 2 {
        0 => part.split_whitespace().map(str::to_string).collect::<Vec<_>>(),
        _ => vec![part.to_string()],
    });
    words.collect()
}

/// A text without the blanks that end its lines.
fn trimmed(text: &str) -> String {
    text.trim().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The name in `pub const NAME: &[Entry]`, if the entries are a type of ours.
fn public_table(line: &str) -> Option<&str> {
    let (name, rest) = line.strip_prefix("pub const ")?.split_once(": &[")?;
    let entry = rest.trim_start_matches(['&', '(']).trim_start_matches("'static ").trim_start_matches("dyn ");
    entry.starts_with(|c: char| c.is_ascii_uppercase()).then_some(name)
}

/// Every run of three lines of code.
fn shingles(text: &str) -> BTreeSet<String> {
    let trivial = |line: &str| line.len() < 4 || line.starts_with("use ");
    let lines: Vec<&str> =
        code_lines(text).map(|(_, line)| line.trim()).filter(|line| !trivial(line)).collect();
    lines.windows(3).map(|run| run.join("\n")).collect()
}

/// The lines of code that say something: no brackets alone, no imports.
fn said_lines(text: &str) -> Vec<String> {
    let says =
        |line: &&str| !line.starts_with("use ") && line.chars().filter(char::is_ascii_alphabetic).count() > 2;
    code_lines(text).map(|(_, line)| line.trim()).filter(says).map(str::to_string).collect()
}

/// The numbered lines of a source without its comments and without its tests, which come last.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    numbered
        .take_while(|(_, line)| *line != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//") && !line.trim().is_empty())
}

/// The numbered lines of a document outside its code blocks.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    text.lines().enumerate().filter_map(move |(i, line)| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        (!inside && !fence).then_some((i + 1, line))
    })
}

/// Targets of `[text](target)` that are files of this repository.
fn links(text: &str) -> Vec<String> {
    let prose: Vec<&str> = prose_lines(text).map(|(_, line)| line).collect();
    let prose = prose.join("\n");
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let files = targets.map(|(target, _)| target.split('#').next().unwrap_or_default().to_string());
    files.filter(|target| !target.is_empty() && !target.contains("://")).collect()
}

/// What stands between single backticks, outside code blocks.
fn spans(text: &str) -> Vec<String> {
    let per_line = prose_lines(text).flat_map(|(_, line)| line.split('`').skip(1).step_by(2));
    per_line.map(str::to_string).collect()
}

/// Whether a span names a file or folder: it ends like one of ours and holds no pattern.
fn looks_like_a_path(span: &str) -> bool {
    let ends = [".rs", ".md", ".py", ".sh", ".toml", ".json", "/"].iter().any(|end| span.ends_with(end));
    ends && span.contains('/') && !span.starts_with("../") && !span.contains(['*', '<', '{', ' ', '$', '~'])
}

/// Adds `file` and, through its `mod` lines, every file below it.
fn walk_modules(file: &Path, folder: &Path, reached: &mut BTreeSet<PathBuf>) {
    if !file.exists() || !reached.insert(file.to_path_buf()) {
        return;
    }
    let stem = name_of(file).replace(".rs", "");
    let children = match stem.as_str() {
        "lib" | "main" | "mod" => folder.to_path_buf(),
        _ => folder.join(&stem),
    };
    for line in read(file).lines().map(str::trim) {
        let visible =
            ["pub(crate) ", "pub(super) ", "pub "].iter().find_map(|prefix| line.strip_prefix(prefix));
        let Some(name) = visible.unwrap_or(line).strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'))
        else {
            continue;
        };
        walk_modules(&children.join(format!("{name}.rs")), &children, reached);
        walk_modules(&children.join(name).join("mod.rs"), &children.join(name), reached);
    }
}

/// The crates of rhetor that a section of a manifest names, by their short names.
fn dependencies(manifest: &str, section: &str) -> BTreeSet<String> {
    let header = format!("[{section}]");
    let lines = manifest.lines().skip_while(|line| line.trim() != header).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.trim().strip_prefix("rhetor-"));
    names.map(|line| line.chars().take_while(|c| c.is_ascii_lowercase()).collect()).collect()
}

/// Every crate that the arrows lead to from `name`.
fn reach(name: &str) -> BTreeSet<String> {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut reached = BTreeSet::new();
    let mut open = vec![name];
    while let Some(next) = open.pop() {
        for target in arrows[next] {
            if reached.insert(target.to_string()) {
                open.push(target);
            }
        }
    }
    reached
}

/// Every source file of every crate with its text, in order.
fn sources() -> Vec<(PathBuf, String)> {
    let files = crates().into_iter().flat_map(|path| rust_files(&path.join("src")));
    files.map(|file| (file.clone(), read(&file))).collect()
}

/// Every Rust file of the repository.
fn all_rust_files() -> Vec<PathBuf> {
    ["crates", "tests", "examples", "benches", "fuzz"]
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
        .filter(|file| !file.components().any(|part| part.as_os_str() == "target"))
        .collect()
}

/// Every document of the repository.
fn documents() -> Vec<PathBuf> {
    let folders = ["", "docs", "fixtures", "benches", "fuzz"].map(|folder| root().join(folder));
    let entries = folders.into_iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    files
}

/// The folders of all crates, in order.
fn crates() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("crates")).expect("crates/ is there").flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// Every `.rs` file below a folder, in order; none if the folder is missing.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The root of the repository.
fn root() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.ancestors().nth(2).expect("crates/cli lies two folders below the root").to_path_buf()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn name_of(path: &Path) -> String {
    path.file_name().expect("the path has a last part").to_string_lossy().into_owned()
}

/// A path as it is written in documents: relative to the root.
fn show(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
