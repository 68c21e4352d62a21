//! A text that was tokenized once: its ids in a mapped file, with the places where documents begin.

use super::token_formats::{self, Layout};
use crate::Error;
use rhetor_kernels::map::Map;
use std::ops::Range;
use std::path::Path;

/// Token ids of many documents, one after the other, in a mapped file.
#[derive(Debug)]
pub struct TokenFile {
    map: Map,
    /// Where the ids lie in the file, in bytes.
    ids: Range<usize>,
    width: Width,
    /// Where documents begin, in tokens from the beginning, and at the end the number of tokens.
    starts: Vec<u64>,
}

/// How an id is written, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    U8,
    U16,
    U32,
    U64,
}

impl Width {
    pub fn bytes(self) -> usize {
        match self {
            Width::U8 => 1,
            Width::U16 => 2,
            Width::U32 => 4,
            Width::U64 => 8,
        }
    }

    /// The id in `bytes`, of which there are as many as the width says; larger than 2^32 - 1 becomes that.
    fn id(self, bytes: &[u8]) -> u32 {
        match *bytes {
            [a] => u32::from(a),
            [a, b] => u32::from(u16::from_le_bytes([a, b])),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            _ => {
                let wide = u64::from_le_bytes(bytes.try_into().expect("ids have 1, 2, 4 or 8 bytes"));
                u32::try_from(wide).unwrap_or(u32::MAX)
            }
        }
    }
}

impl TokenFile {
    /// Opens nanoGPT's `.bin`: ids of 16 bits, little-endian, nothing else; one document.
    pub fn open_nano_gpt(path: &Path) -> Result<TokenFile, Error> {
        TokenFile::open(path, token_formats::nano_gpt)
    }

    /// Opens Megatron-LM's pair `PREFIX.bin` and `PREFIX.idx`, by either name. Source: Megatron-LM,
    /// core/datasets/indexed_dataset.py; Pythia's training data has this form.
    pub fn open_megatron(path: &Path) -> Result<TokenFile, Error> {
        let index = Map::open(&path.with_extension("idx")).map_err(Error::io(&path.with_extension("idx")))?;
        let index_path = path.with_extension("idx");
        let bin = path.with_extension("bin");
        TokenFile::open(&bin, |_, map| token_formats::megatron(&index_path, &index, map))
    }

    /// Opens a file that [`super::open_or_build`] wrote, checked to the last byte.
    pub fn open_cache(path: &Path) -> Result<TokenFile, Error> {
        TokenFile::open(path, token_formats::own)
    }

    fn open(
        path: &Path,
        read: impl FnOnce(&Path, &Map) -> Result<Layout, Error>,
    ) -> Result<TokenFile, Error> {
        let map = Map::open(path).map_err(Error::io(path))?;
        let Layout { ids, width, starts } = read(path, &map)?;
        Ok(TokenFile { map, ids, width, starts })
    }

    /// Number of tokens.
    pub fn n_tokens(&self) -> u64 {
        (self.ids.len() / self.width.bytes()) as u64
    }

    /// Number of documents.
    pub fn n_documents(&self) -> u64 {
        self.starts.len() as u64 - 1
    }

    /// The tokens of a document, its separator included. Panics if there is no such document.
    #[track_caller]
    pub fn document(&self, index: u64) -> Range<u64> {
        assert!(index < self.n_documents(), "document {index} of {}", self.n_documents());
        self.starts[index as usize]..self.starts[index as usize + 1]
    }

    /// Where documents begin within `range`, its own beginning left out.
    pub fn borders(&self, range: Range<u64>) -> &[u64] {
        let from = self.starts.partition_point(|&start| start <= range.start);
        let to = self.starts.partition_point(|&start| start < range.end);
        &self.starts[from..to.max(from)]
    }

    /// The tokens of `range`. Panics if it is outside the file.
    #[track_caller]
    pub fn tokens(&self, range: Range<u64>) -> Vec<u32> {
        let n = self.n_tokens();
        assert!(range.start <= range.end && range.end <= n, "tokens {range:?} of {n}");
        let width = self.width.bytes();
        let bytes = &self.map[self.ids.clone()][range.start as usize * width..range.end as usize * width];
        bytes.chunks_exact(width).map(|id| self.width.id(id)).collect()
    }

    /// The greatest id: one less than the least vocabulary that has all of them. Reads the whole file.
    pub fn id_max(&self) -> Option<u32> {
        let width = self.width.bytes();
        self.map[self.ids.clone()].chunks_exact(width).map(|id| self.width.id(id)).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_nano_gpt_is_one_document_of_short_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.bin");
        std::fs::write(&path, [1, 0, 255, 255, 0, 1]).unwrap();
        let file = TokenFile::open_nano_gpt(&path).unwrap();
        assert_eq!(file.tokens(0..3), [1, 65535, 256]);
        assert_eq!((file.n_documents(), file.document(0), file.id_max()), (1, 0..3, Some(65535)));
        for wrong in [&[][..], &[1, 0, 2]] {
            std::fs::write(&path, wrong).unwrap();
            assert!(matches!(TokenFile::open_nano_gpt(&path), Err(Error::Tokens { .. })));
        }
    }

    #[test]
    #[should_panic(expected = "tokens 1..4 of 3")]
    fn tokens_beyond_the_end_are_a_wrong_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.bin");
        std::fs::write(&path, [0; 6]).unwrap();
        TokenFile::open_nano_gpt(&path).unwrap().tokens(1..4);
    }
}
