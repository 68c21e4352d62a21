//! Messages of protocol buffers, field by field.
//!
//! Source: Protocol Buffers documentation, "Encoding".

use std::fmt::Display;
use std::path::Path;

use crate::Error;
use crate::reader::Reader;

/// What a field holds.
pub(super) enum Content<'a> {
    Number(u64),
    /// A text, a message, bytes or packed numbers.
    Bytes(Bytes<'a>),
    /// A number of 4 or 8 bytes.
    Fixed,
}

/// A part of the file that a field holds.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    pub bytes: &'a [u8],
    /// Where it begins in the file.
    pub at: usize,
}

/// The fields of a message, in order.
pub(super) struct Message<'a> {
    reader: Reader<'a>,
    name: &'static str,
}

impl<'a> Message<'a> {
    /// The message `name` that is `part` of `file`, whose bytes are `whole`.
    pub fn new(file: &'a Path, whole: &'a [u8], part: Bytes<'a>, name: &'static str) -> Message<'a> {
        Message { reader: Reader::between(file, whole, part.at, part.at + part.bytes.len()), name }
    }

    /// The next field's number and what it holds; `None` at the end.
    pub fn next(&mut self) -> Result<Option<(u64, Content<'a>)>, Error> {
        if self.reader.left() == 0 {
            return Ok(None);
        }
        let at = self.reader.at();
        let tag = self.varint()?;
        let content = match tag & 7 {
            0 => Content::Number(self.varint()?),
            2 => {
                let len = self.varint()?;
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                let start = self.reader.at();
                Content::Bytes(Bytes { bytes: self.reader.take(len, &self.name)?, at: start })
            }
            1 => self.reader.take(8, &self.name).map(|_| Content::Fixed)?,
            5 => self.reader.take(4, &self.name).map(|_| Content::Fixed)?,
            other => return Err(self.invalid(at, "wire type 0, 1, 2 or 5", other)),
        };
        Ok(Some((tag >> 3, content)))
    }

    /// The next number, 7 bits to a byte, the lowest first.
    pub fn varint(&mut self) -> Result<u64, Error> {
        let at = self.reader.at();
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.reader.array(&self.name)?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.invalid(at, "a number of at most 10 bytes", "more"))
    }

    /// Whether all was read.
    pub fn is_at_end(&self) -> bool {
        self.reader.left() == 0
    }

    /// The text of a field.
    pub fn text(&self, part: Bytes<'a>) -> Result<&'a str, Error> {
        self.reader.utf8(part.at, part.bytes, &self.name)
    }

    fn invalid(&self, at: usize, expected: &str, got: impl Display) -> Error {
        self.reader.invalid(at, &self.name, expected, got.to_string())
    }
}
