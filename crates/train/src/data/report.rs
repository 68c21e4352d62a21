//! Where rows stand, and what became of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

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
