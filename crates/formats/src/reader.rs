//! A cursor over the bytes of a file whose every step is checked and whose errors name file, field and offset.

use std::fmt::Display;
use std::path::Path;

use crate::{Error, Place};

/// The cursor. Fields are named by whatever can be printed, so a name costs nothing until it is needed.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(file: &'a Path, bytes: &'a [u8]) -> Reader<'a> {
        Reader { file, bytes, at: 0 }
    }

    /// A cursor over `start..end` of the file, offsets counted from the file's start. Panics if that is not inside of it.
    pub fn between(file: &'a Path, bytes: &'a [u8], start: usize, end: usize) -> Reader<'a> {
        assert!(start <= end && end <= bytes.len(), "{start}..{end} of {} bytes", bytes.len());
        Reader { file, bytes: &bytes[..end], at: start }
    }

    pub fn file(&self) -> &'a Path {
        self.file
    }

    /// The offset of the next byte.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The length of the whole file in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The byte `n` places ahead.
    pub fn peek(&self, n: usize) -> Option<u8> {
        self.bytes.get(self.at.checked_add(n)?).copied()
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn place(&self, at: usize, field: &dyn Display) -> Place {
        Place::new(self.file, field, at)
    }

    pub fn invalid(&self, at: usize, field: &dyn Display, expected: impl Into<String>, got: String) -> Error {
        Error::Invalid { place: self.place(at, field), expected: expected.into(), got }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize, field: &dyn Display) -> Result<&'a [u8], Error> {
        if n > self.left() {
            let (expected, got) = (n as u64, self.left() as u64);
            return Err(Error::Truncated { place: self.place(self.at, field), expected, got });
        }
        let bytes = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(bytes)
    }

    pub fn array<const N: usize>(&mut self, field: &dyn Display) -> Result<[u8; N], Error> {
        let bytes = self.take(N, field)?;
        Ok(bytes.try_into().expect("take gives N bytes"))
    }

    pub fn u32(&mut self, field: &dyn Display) -> Result<u32, Error> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub fn i32(&mut self, field: &dyn Display) -> Result<i32, Error> {
        self.array(field).map(i32::from_le_bytes)
    }

    /// A u64 that fits this machine's addresses.
    pub fn size(&mut self, field: &dyn Display) -> Result<usize, Error> {
        let at = self.at;
        let got = self.array(field).map(u64::from_le_bytes)?;
        let too_large =
            |_| Error::TooLarge { place: self.place(at, field), expected: usize::MAX as u64, got };
        usize::try_from(got).map_err(too_large)
    }

    /// A u64 count of items of at least `bytes_min` bytes each, all of which the rest of the file can hold.
    pub fn count(&mut self, field: &dyn Display, bytes_min: usize) -> Result<usize, Error> {
        let at = self.at;
        let got = self.array(field).map(u64::from_le_bytes)?;
        let most = self.left() / bytes_min;
        match usize::try_from(got) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(Error::TooLarge { place: self.place(at, field), expected: most as u64, got }),
        }
    }

    /// A u64 length and that many bytes of UTF-8.
    pub fn string(&mut self, field: &dyn Display) -> Result<&'a str, Error> {
        let bytes = self.string_bytes(field)?;
        self.utf8(self.at - bytes.len(), bytes, field)
    }

    /// A u64 length and that many bytes.
    pub fn string_bytes(&mut self, field: &dyn Display) -> Result<&'a [u8], Error> {
        let n = self.count(field, 1)?;
        self.take(n, field)
    }

    /// The text of `bytes`, which begin at `at`.
    pub fn utf8(&self, at: usize, bytes: &'a [u8], field: &dyn Display) -> Result<&'a str, Error> {
        std::str::from_utf8(bytes).map_err(|_| {
            let got = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
            Error::Utf8 { place: self.place(at, field), got }
        })
    }
}
