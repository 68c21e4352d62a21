//! Where formats put their rows, and from where they take their lines.

use super::fields::Fields;
use super::files::DataFile;
use super::options::{Encoding, LineEnds, ReadOptions, WrongRows};
use super::report::{Place, ReadReport};
use super::row::Row;
use super::shapes::rows_of;
use crate::Error;
use std::io::BufRead;
use std::ops::ControlFlow;

/// The reading ended early; the sink knows why.
#[derive(Debug)]
pub(crate) struct Halt;

/// Why the reading ended early.
pub(crate) enum Stop {
    Asked,
    Failed(Box<Error>),
}

/// Where formats put their rows.
pub(crate) struct Sink<'a> {
    pub place: Place,
    pub file: &'a DataFile,
    pub options: &'a ReadOptions,
    pub report: &'a mut ReadReport,
    pub on_row: &'a mut dyn FnMut(Row, &Place) -> ControlFlow<()>,
    pub halt: Option<Stop>,
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
                made.rows.into_iter().try_for_each(|mut row| {
                    if let Row::Pictured { image, .. } = &mut row {
                        // A picture stands beside the file that names it.
                        let beside = self.place.path.parent().map(|folder| folder.join(&*image));
                        *image = beside.unwrap_or_else(|| image.clone());
                    }
                    self.row(row)
                })
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
