//! Files become rows: the table [`FORMATS`], and [`read`], which streams.
//!
//! Nothing is left out in silence: wrong rows end the reading with file, line, what was expected and what is
//! there, or are counted if the caller asks for that; rows without use (an empty text, two answers alike) are
//! counted by reason in the [`ReadReport`].

use super::files::{Source, files};
use super::options::ReadOptions;
use super::report::{Place, ReadReport};
use super::row::Row;
use super::sink::{Halt, Sink, Stop};
use super::{csv, documents, json, squad};
use crate::Error;
use rhetor_catalog::{About, Source as Origin};
use std::io::BufRead;
use std::ops::ControlFlow;

/// A way in which files hold rows.
#[derive(Debug)]
pub struct Format {
    /// How it introduces itself.
    pub about: About,
    /// Endings of file names that mean it.
    pub extensions: &'static [&'static str],
    read: fn(&mut dyn BufRead, &mut Sink<'_>) -> Result<(), Halt>,
}

/// All of them.
pub const FORMATS: &[Format] = &[
    format("text", "a document per file", "plain text", &["txt", "text", "md"], documents::whole),
    format("lines", "a document per line", "plain text", &[], documents::lines),
    format(
        "paragraphs",
        "a document per run of lines without a blank one",
        "plain text",
        &[],
        documents::paragraphs,
    ),
    format("gutenberg", "a book without its licence header", "Project Gutenberg", &[], documents::gutenberg),
    format("xml", "the text between the tags, a document per file", "XML 1.0", &["xml"], documents::xml),
    format(
        "labelled-lines",
        "a text per line, its label the file's extension",
        "Pang and Lee, sentence polarity",
        &["pos", "neg"],
        documents::labelled_lines,
    ),
    format("jsonl", "an object per line", "JSON Lines", &["jsonl", "ndjson"], json::lines),
    format(
        "json",
        "a list of objects, objects one after the other, or SQuAD",
        "RFC 8259",
        &["json"],
        json::values,
    ),
    format("csv", "a header and rows, divided by commas", "RFC 4180", &["csv"], csv::commas),
    format(
        "tsv",
        "a header and rows, divided by tabs",
        "IANA, text/tab-separated-values",
        &["tsv"],
        csv::tabs,
    ),
    format("conllu", "sentences of words with their part of speech", "CoNLL-U", &["conllu"], squad::conllu),
];

const fn format(
    name: &'static str,
    summary: &'static str,
    project: &'static str,
    extensions: &'static [&'static str],
    read: fn(&mut dyn BufRead, &mut Sink<'_>) -> Result<(), Halt>,
) -> Format {
    Format {
        about: About { name, summary, source: Origin::Project(project), options: &[] },
        extensions,
        read,
    }
}

/// Streams the rows of `sources` in order. `on_row` may end the reading early with [`ControlFlow::Break`].
///
/// Fails at the first wrong row (see [`WrongRows`]), and if no row at all came out.
pub fn read(
    sources: &[Source],
    options: &ReadOptions,
    on_row: &mut dyn FnMut(Row, &Place) -> ControlFlow<()>,
) -> Result<ReadReport, Error> {
    let forced = options.format.as_deref().map(by_name).transpose()?;
    let mut report = ReadReport::default();
    for source in sources {
        for file in files(source)? {
            let shown = file.shown();
            let extension = file.extension();
            let by_extension =
                || FORMATS.iter().find(|format| format.extensions.contains(&extension.as_str()));
            let Some(format) = forced.or_else(by_extension) else {
                if file.is_named {
                    return Err(Error::UnknownKind { path: shown, known: known() });
                }
                report.drop("a file of unknown kind", || shown.display().to_string());
                continue;
            };
            report.n_files += 1;
            let place = Place { path: shown, unit: "row", number: 0, continues: false };
            let mut sink = Sink { place, file: &file, options, report: &mut report, on_row, halt: None };
            let ended = file.open(|text| (format.read)(text, &mut sink))?;
            match (ended, sink.halt) {
                (Ok(()), None) => {}
                (_, Some(Stop::Failed(error))) => return Err(*error),
                (_, Some(Stop::Asked)) => return Ok(report),
                (Err(Halt), None) => unreachable!("a halt without a reason"),
            }
        }
    }
    if report.n_rows == 0 {
        let data = sources.iter().map(Source::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::NoRows { data, report: Box::new(report) });
    }
    Ok(report)
}

/// As [`read`], holding all rows.
pub fn read_all(sources: &[Source], options: &ReadOptions) -> Result<(Vec<Row>, ReadReport), Error> {
    let mut rows = Vec::new();
    let report = read(sources, options, &mut |row, _| {
        rows.push(row);
        ControlFlow::Continue(())
    })?;
    Ok((rows, report))
}

fn known() -> String {
    FORMATS.iter().map(|format| format.about.name).collect::<Vec<_>>().join(", ")
}

fn by_name(name: &str) -> Result<&'static Format, Error> {
    let unknown = || Error::UnknownName { what: "format", name: name.to_string(), known: known() };
    FORMATS.iter().find(|format| format.about.name == name).ok_or_else(unknown)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::options::{Encoding, WrongRows};
    use super::*;
    use std::fs;

    /// What a file of that name and content is read as: its rows, then what was left out, or the error.
    pub(crate) fn shown(name: &str, content: &[u8], options: &ReadOptions) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let mut lines = Vec::new();
        let ended = read(&[Source::of(&path)], options, &mut |row, place| {
            let number =
                if place.number == 0 { String::new() } else { format!("{} {}: ", place.unit, place.number) };
            lines.push(format!("{number}{}{row:?}", if place.continues { "... " } else { "" }));
            ControlFlow::Continue(())
        });
        match ended {
            Ok(report) => {
                lines.extend(report.dropped.iter().map(|(why, dropped)| {
                    format!("dropped {}: {why}, first at {}", dropped.n, dropped.first)
                }))
            }
            Err(error) => lines.push(format!("error: {error}")),
        }
        lines.join("\n").replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn every_format_and_ending_has_a_name_of_its_own() {
        for (i, format) in FORMATS.iter().enumerate() {
            let about = format.about;
            assert!(
                about.name.chars().all(|c| c.is_ascii_lowercase() || c == '-')
                    && !about.summary.ends_with('.')
            );
            for other in &FORMATS[..i] {
                assert_ne!(other.about.name, about.name);
                assert!(
                    format.extensions.iter().all(|ending| !other.extensions.contains(ending)),
                    "{}",
                    about.name
                );
            }
        }
    }

    #[test]
    fn wrong_rows_are_counted_where_that_is_asked_for() {
        let content = b"{\"text\": \"a\"}\nnot json\n{\"text\": 3}\n{\"text\": \" \"}\n";
        let refused = shown("a.jsonl", content, &ReadOptions::default());
        assert!(refused.contains("error: a.jsonl, line 2: expected a JSON object"), "{refused}");
        let dropped =
            shown("a.jsonl", content, &ReadOptions { wrong_rows: WrongRows::Drop, ..Default::default() });
        assert!(dropped.contains("dropped 2: a wrong row, first at a.jsonl, line 2"), "{dropped}");
        assert!(dropped.contains("dropped 1: an empty text, first at a.jsonl, line 4"), "{dropped}");
    }

    #[test]
    fn a_data_set_without_a_row_is_refused_with_the_reasons() {
        let refused = shown("a.jsonl", b"{\"text\": \"\"}\n", &ReadOptions::default());
        assert_eq!(
            refused,
            "error: a.jsonl has no row to train on: 0 rows in 1 files; left out 1: an empty text (first: a.jsonl, line 1)"
        );
        let refused = shown("a.txt", b"", &ReadOptions::default());
        assert!(refused.contains("no row to train on"), "{refused}");
    }

    #[test]
    fn a_file_of_unknown_kind_is_refused_alone_and_counted_in_a_folder() {
        let refused = shown("a.exe", b"x", &ReadOptions::default());
        assert!(refused.contains("the name does not say what kind of file") && refused.contains("jsonl"));
        let refused =
            shown("a.txt", b"x", &ReadOptions { format: Some("yaml".into()), ..Default::default() });
        assert!(refused.contains("there is no format `yaml`; there are text, lines"), "{refused}");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.exe"), "x").unwrap();
        fs::write(folder.path().join("b.txt"), "x").unwrap();
        let (rows, report) = read_all(&[Source::of(folder.path())], &ReadOptions::default()).unwrap();
        assert_eq!(rows, [Row::Text("x".into())]);
        assert_eq!(report.dropped["a file of unknown kind"].n, 1);
    }

    #[test]
    fn bytes_that_are_no_text_are_named_with_their_offset() {
        let refused = shown("a.txt", b"abc\nd\xff", &ReadOptions::default());
        assert!(refused.contains("a.txt, line 2: byte 5 is not UTF-8"), "{refused}");
        let options = ReadOptions { encoding: Encoding::Utf8OrLatin1, ..Default::default() };
        assert_eq!(shown("a.txt", b"\xc3\xa9\r\r\nd\xff", &options), "Text(\"é\\ndÿ\")");
    }

    #[test]
    fn reading_ends_where_the_caller_says_so() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.jsonl"), "{\"text\": \"a\"}\n".repeat(5)).unwrap();
        let mut n = 0;
        let report = read(&[Source::of(folder.path())], &ReadOptions::default(), &mut |_, _| {
            n += 1;
            if n == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(report.unwrap().n_rows, 3);
    }
}
