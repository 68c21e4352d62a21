//! Our own token files as they are written: ids as they come, the table of documents, then the header.

use super::TokenCacheOptions;
use super::token_formats::{CHECKSUM, HEADER, KEY, MAGIC, VERSION};
use rhetor_tokenizer::Tokenizer;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};

/// A token file that grows. Documents in pieces are why their ends are written when the next one begins.
pub(crate) struct Writer {
    out: BufWriter<File>,
    id_bytes: usize,
    n_tokens: u64,
    pub starts: Vec<u64>,
    has_header: bool,
}

impl Writer {
    pub fn new(file: File, tokenizer: &Tokenizer) -> Writer {
        let id_bytes = if tokenizer.n_tokens() <= 1 << 16 { 2 } else { 4 };
        let out = BufWriter::with_capacity(1 << 20, file);
        Writer { out, id_bytes, n_tokens: 0, starts: Vec::new(), has_header: false }
    }

    fn ids(&mut self, ids: impl IntoIterator<Item = u32>) -> std::io::Result<()> {
        if !self.has_header {
            self.has_header = true;
            self.out.write_all(&[0; HEADER])?;
        }
        for id in ids {
            self.out.write_all(&id.to_le_bytes()[..self.id_bytes])?;
            self.n_tokens += 1;
        }
        Ok(())
    }

    pub fn document(
        &mut self,
        ids: &[u32],
        continues: bool,
        options: &TokenCacheOptions,
    ) -> std::io::Result<()> {
        if !continues {
            self.end(options)?;
            self.starts.push(self.n_tokens);
            self.ids(options.before)?;
        }
        self.ids(ids.iter().copied())
    }

    /// Ends the document that was begun.
    pub fn end(&mut self, options: &TokenCacheOptions) -> std::io::Result<()> {
        if self.starts.is_empty() { Ok(()) } else { self.ids(options.after) }
    }

    /// Writes the table of documents, then the header over the zeros at the beginning.
    pub fn finish(mut self, key: &[u8; 32]) -> std::io::Result<()> {
        let n_bytes = self.n_tokens as usize * self.id_bytes;
        let padding = n_bytes.next_multiple_of(8) - n_bytes;
        self.out.write_all(&[0; 8][..padding])?;
        let n_documents = self.starts.len() as u64;
        self.starts.push(self.n_tokens);
        for start in &self.starts {
            self.out.write_all(&start.to_le_bytes())?;
        }
        let mut file = self.out.into_inner().map_err(|error| error.into_error())?;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&(self.id_bytes as u32).to_le_bytes());
        header[16..24].copy_from_slice(&self.n_tokens.to_le_bytes());
        header[24..32].copy_from_slice(&n_documents.to_le_bytes());
        header[KEY].copy_from_slice(key);
        let mut hash = Sha256::new();
        hash.update(&header[..CHECKSUM.start]);
        hash.update(&header[CHECKSUM.end..]);
        file.seek(SeekFrom::Start(HEADER as u64))?;
        absorb(&mut file, &mut hash)?;
        header[CHECKSUM].copy_from_slice(&hash.finalize());
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header)?;
        file.sync_all()
    }
}

/// Adds all that is left of `bytes` to a hash.
pub(crate) fn absorb(bytes: &mut impl Read, hash: &mut Sha256) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match bytes.read(&mut buffer)? {
            0 => return Ok(()),
            n => hash.update(&buffer[..n]),
        }
    }
}
