//! Files become rows: the table [`FORMATS`], and [`read`], which streams.
//!
//! Nothing is left out in silence: wrong rows end the reading with file, line, what was expected and what is there,
//! or are counted if the caller asks for that; rows without use (an empty text, two answers alike) are counted by
//! reason in the [`ReadReport`].

use super::files::{DataFile, Source, files};
use super::row::Row;
use super::shapes::{Fields, rows_of};
use super::{csv, documents, json, squad};
use crate::Error;
use rhetor_catalog::{About, Source as Origin};
use rhetor_lm::Message;
use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;
use std::ops::ControlFlow;
use std::path::PathBuf;

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

/// What happens to a row that is not what its format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WrongRows {
    /// It ends the reading.
    #[default]
    Refuse,
    /// It is left out and counted.
    Drop,
}

/// What a line of bytes is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// UTF-8; other bytes end the reading.
    #[default]
    Utf8,
    /// UTF-8, or ISO 8859-1 where a line is no UTF-8; the report counts such lines.
    Utf8OrLatin1,
}

/// What becomes of `\r\n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineEnds {
    /// It becomes `\n`, and the report counts it.
    #[default]
    Unix,
    /// It stays.
    Keep,
}

/// What an instruction with its output becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Instructions {
    /// A conversation: the instruction (a blank line, the input) and the output.
    #[default]
    Chat,
    /// A completion of Alpaca's prompt, for models without a chat template.
    AlpacaPrompt,
}

impl Instructions {
    pub(crate) fn row(self, instruction: &str, input: Option<&str>, output: String) -> Row {
        let (task, has_input) = match input {
            Some(_) => (", paired with an input that provides further context", true),
            None => ("", false),
        };
        match self {
            Instructions::Chat => {
                let user = match input {
                    Some(input) => format!("{instruction}\n\n{input}"),
                    None => instruction.to_string(),
                };
                Row::Chat(vec![Message::user(user), Message::assistant(output)])
            }
            // The wording of tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT.
            Instructions::AlpacaPrompt => {
                let given = if has_input {
                    format!("### Input:\n{}\n\n", input.unwrap_or_default())
                } else {
                    String::new()
                };
                let prompt = format!(
                    "Below is an instruction that describes a task{task}. Write a response that appropriately \
                     completes the request.\n\n### Instruction:\n{instruction}\n\n{given}### Response:"
                );
                Row::Completion { prompt, completion: output }
            }
        }
    }
}

/// How files are read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    /// The name of a format; none = by the ending of each file's name.
    pub format: Option<String>,
    /// What happens to wrong rows.
    pub wrong_rows: WrongRows,
    /// What bytes are taken for, in all formats that are read line by line. Files named `*.latin1.*` are ISO 8859-1.
    pub encoding: Encoding,
    /// What becomes of `\r\n` in plain text.
    pub line_ends: LineEnds,
    /// What an instruction becomes.
    pub instructions: Instructions,
    /// Fields to be renamed: (name in the file, name in [`super::SHAPES`]).
    pub fields: Vec<(String, String)>,
    /// The most bytes of a document that are held at once; a longer one comes in pieces, cut at the ends of lines.
    pub piece_bytes_max: usize,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions {
            format: None,
            wrong_rows: WrongRows::default(),
            encoding: Encoding::default(),
            line_ends: LineEnds::default(),
            instructions: Instructions::default(),
            fields: Vec::new(),
            piece_bytes_max: 16 << 20,
        }
    }
}

/// Where a row stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file; of an archive, `archive#member`.
    pub path: PathBuf,
    /// `line` or `row`.
    pub unit: &'static str,
    /// Which one, from 1; 0 = the file as a whole.
    pub number: u64,
    /// Whether this is a further piece of the document before it.
    pub continues: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => write!(f, "{}", self.path.display()),
            number => write!(f, "{}, {} {number}", self.path.display(), self.unit),
        }
    }
}

/// Rows that were left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// How many.
    pub n: u64,
    /// The first of them, with what is wrong about it.
    pub first: String,
}

/// What was read, and what was not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadReport {
    /// Files read.
    pub n_files: u64,
    /// Rows passed on.
    pub n_rows: u64,
    /// `\r\n` that became `\n`.
    pub n_line_ends: u64,
    /// Lines that were no UTF-8 and were read as ISO 8859-1.
    pub n_latin1_lines: u64,
    /// Pieces beyond the first of documents that were too long to be held at once.
    pub n_further_pieces: u64,
    /// What was left out, by reason.
    pub dropped: BTreeMap<&'static str, Dropped>,
}

impl ReadReport {
    pub(crate) fn drop(&mut self, reason: &'static str, first: impl FnOnce() -> String) {
        self.dropped.entry(reason).or_insert_with(|| Dropped { n: 0, first: first() }).n += 1;
    }
}

impl fmt::Display for ReadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows in {} files", self.n_rows, self.n_files)?;
        for (reason, Dropped { n, first }) in &self.dropped {
            write!(f, "; left out {n}: {reason} (first: {first})")?;
        }
        Ok(())
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

/// The reading ended early; the sink knows why.
#[derive(Debug)]
pub(crate) struct Halt;

enum Stop {
    Asked,
    Failed(Box<Error>),
}

/// Where formats put their rows.
pub(crate) struct Sink<'a> {
    pub place: Place,
    pub file: &'a DataFile,
    pub options: &'a ReadOptions,
    pub report: &'a mut ReadReport,
    on_row: &'a mut dyn FnMut(Row, &Place) -> ControlFlow<()>,
    halt: Option<Stop>,
}

impl Sink<'_> {
    /// Says where the rows that follow stand.
    pub fn at(&mut self, unit: &'static str, number: u64) {
        self.place.unit = unit;
        self.place.number = number;
    }

    pub fn row(&mut self, row: Row) -> Result<(), Halt> {
        self.report.n_rows += u64::from(!self.place.continues);
        self.report.n_further_pieces += u64::from(self.place.continues);
        match (self.on_row)(row, &self.place) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                self.halt = Some(Stop::Asked);
                Err(Halt)
            }
        }
    }

    /// Passes on what an object of named fields says.
    pub fn object(&mut self, mut fields: Fields) -> Result<(), Halt> {
        for (theirs, ours) in &self.options.fields {
            if let Some(value) = fields.remove(theirs) {
                fields.insert(ours.clone(), value);
            }
        }
        match rows_of(&fields, self.options.instructions) {
            Ok(made) => {
                for reason in made.dropped {
                    self.drop(reason);
                }
                made.rows.into_iter().try_for_each(|row| self.row(row))
            }
            Err(wrong) => self.wrong(wrong.expected, wrong.got),
        }
    }

    /// Counts a row that is of no use.
    pub fn drop(&mut self, reason: &'static str) {
        let place = &self.place;
        self.report.drop(reason, || place.to_string());
    }

    /// A wrong row: an error, or counted.
    pub fn wrong(&mut self, expected: impl Into<String>, got: impl Into<String>) -> Result<(), Halt> {
        let error = Error::Row { place: self.place.clone(), expected: expected.into(), got: got.into() };
        match self.options.wrong_rows {
            WrongRows::Refuse => self.fail(error),
            WrongRows::Drop => {
                self.report.drop("a wrong row", || error.to_string());
                Ok(())
            }
        }
    }

    pub fn fail(&mut self, error: Error) -> Result<(), Halt> {
        self.halt = Some(Stop::Failed(Box::new(error)));
        Err(Halt)
    }

    /// Whether the reading is over.
    pub fn is_halted(&self) -> bool {
        self.halt.is_some()
    }

    /// Reads the next line with its end into `line`; false at the end of the file.
    pub fn next_line(&mut self, text: &mut dyn BufRead, lines: &mut Lines) -> Result<bool, Halt> {
        lines.bytes.clear();
        lines.text.clear();
        match text.read_until(b'\n', &mut lines.bytes) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(source) => {
                self.fail(Error::Io { path: self.place.path.clone(), source })?;
            }
        }
        lines.number += 1;
        self.at("line", lines.number);
        match std::str::from_utf8(&lines.bytes) {
            Ok(line) => lines.text.push_str(line),
            Err(_) if self.options.encoding == Encoding::Utf8OrLatin1 => {
                lines.text.extend(lines.bytes.iter().map(|&byte| char::from(byte)));
                self.report.n_latin1_lines += 1;
            }
            Err(wrong) => {
                let offset = lines.offset + wrong.valid_up_to() as u64;
                self.fail(Error::NotUtf8 { place: self.place.clone(), offset })?;
            }
        }
        lines.offset += lines.bytes.len() as u64;
        if self.options.line_ends == LineEnds::Unix && lines.text.ends_with("\r\n") {
            // Some programs wrote `\r\r\n`.
            lines.text.truncate(lines.text.trim_end_matches(['\r', '\n']).len());
            lines.text.push('\n');
            self.report.n_line_ends += 1;
        }
        Ok(true)
    }
}

/// The line that was read last.
#[derive(Default)]
pub(crate) struct Lines {
    /// The line with its end.
    pub text: String,
    bytes: Vec<u8>,
    number: u64,
    offset: u64,
}

#[cfg(test)]
pub(crate) mod tests {
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

    #[test]
    fn alpaca_prompts_are_those_of_its_training() {
        let row = Instructions::AlpacaPrompt.row("Add.", Some("1 2"), "3".into());
        let Row::Completion { prompt, completion } = row else { panic!("{row:?}") };
        assert!(
            prompt.starts_with("Below is an instruction that describes a task, paired with an input that")
        );
        assert!(prompt.ends_with("### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:"), "{prompt}");
        assert_eq!(completion, "3");
    }
}
