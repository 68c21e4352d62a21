//! One file: the keys and values of some consecutive pages of a prompt.
//!
//! Little-endian: magic, fingerprint of what computed them, the bytes of a page, the number of pages; for each page the
//! digest of all tokens up to its end and the CRC-32 of its bytes; the CRC-32 of all that; then the pages.

use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// SHA-256 of what computes keys and values, and of all tokens up to the end of a page.
pub(crate) type Digest = [u8; 32];

const MAGIC: &[u8; 8] = b"RHKV\0\0\0\x01";

/// Bytes before the list of pages.
const FIXED: usize = 8 + 32 + 8 + 4;

/// Bytes of a page in the list.
const ENTRY: usize = 32 + 4;

/// More pages than any prompt has: what says so is no segment.
const PAGES_MAX: usize = 1 << 20;

/// What stands before the pages.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    /// Of the model and of all that its numbers depend on.
    pub fingerprint: Digest,
    pub page_bytes: usize,
    /// The digest after each page, and the checksum of its bytes.
    pub pages: Vec<(Digest, u32)>,
}

impl Header {
    /// Of `pages`, which lie one after the other in `bytes`.
    pub fn of(fingerprint: Digest, digests: &[Digest], page_bytes: usize, bytes: &[u8]) -> Header {
        let sums = bytes.chunks_exact(page_bytes).map(crc32fast::hash);
        Header { fingerprint, page_bytes, pages: digests.iter().copied().zip(sums).collect() }
    }

    /// A name that says what is inside.
    pub fn file_name(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.fingerprint);
        self.pages.iter().for_each(|(digest, _)| hash.update(digest));
        let hash = hash.finalize();
        let hex: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hex}.{}", super::EXTENSION)
    }

    /// Where page `i` begins in the file.
    pub fn at(&self, i: usize) -> u64 {
        (FIXED + self.pages.len() * ENTRY + 4) as u64 + i as u64 * self.page_bytes as u64
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.at(self.pages.len())
    }

    /// Writes the header and the pages.
    pub fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let mut head = Vec::with_capacity(self.at(0) as usize);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&self.fingerprint);
        head.extend_from_slice(&(self.page_bytes as u64).to_le_bytes());
        head.extend_from_slice(&(self.pages.len() as u32).to_le_bytes());
        for (digest, sum) in &self.pages {
            head.extend_from_slice(digest);
            head.extend_from_slice(&sum.to_le_bytes());
        }
        head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
        file.write_all(&head)?;
        file.write_all(bytes)
    }

    /// Reads the header of a file; `None` if that is no whole segment.
    pub fn read(path: &Path) -> io::Result<Option<Header>> {
        let mut file = File::open(path)?;
        let n_bytes = file.metadata()?.len();
        let mut fixed = [0; FIXED];
        if n_bytes < FIXED as u64 {
            return Ok(None);
        }
        file.read_exact(&mut fixed)?;
        let page_bytes = u64::from_le_bytes(fixed[40..48].try_into().expect("eight bytes"));
        let n_pages = u32::from_le_bytes(fixed[48..52].try_into().expect("four bytes")) as usize;
        let list_bytes = n_pages * ENTRY + 4;
        if &fixed[..8] != MAGIC || n_pages > PAGES_MAX || n_bytes < (FIXED + list_bytes) as u64 {
            return Ok(None);
        }
        let mut list = vec![0; list_bytes];
        file.read_exact(&mut list)?;
        let (list, sum) = list.split_at(list_bytes - 4);
        let mut hash = crc32fast::Hasher::new();
        hash.update(&fixed);
        hash.update(list);
        if hash.finalize().to_le_bytes() != sum {
            return Ok(None);
        }
        let (entries, _) = list.as_chunks::<ENTRY>();
        let page = |entry: &[u8; ENTRY]| {
            let (digest, sum) = entry.split_at(32);
            let digest = digest.try_into().expect("32 bytes");
            (digest, u32::from_le_bytes(sum.try_into().expect("four bytes")))
        };
        let header = Header {
            fingerprint: fixed[8..40].try_into().expect("32 bytes"),
            page_bytes: page_bytes as usize,
            pages: entries.iter().map(page).collect(),
        };
        let expected = page_bytes.checked_mul(n_pages as u64).and_then(|n| n.checked_add(header.at(0)));
        Ok((expected == Some(n_bytes)).then_some(header))
    }

    /// Appends the pages `first..first + n` of the file to `bytes`; false, and nothing is appended, if one of them is
    /// not what was written.
    pub fn read_pages(
        &self,
        file: &mut File,
        first: usize,
        n: usize,
        bytes: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let start = bytes.len();
        file.seek(SeekFrom::Start(self.at(first)))?;
        let n_bytes = n * self.page_bytes;
        bytes.reserve(n_bytes);
        let n_read = file.take(n_bytes as u64).read_to_end(bytes)?;
        let pages = bytes[start..].chunks_exact(self.page_bytes);
        let is_whole = n_read == n_bytes
            && pages.zip(&self.pages[first..first + n]).all(|(page, (_, sum))| crc32fast::hash(page) == *sum);
        if !is_whole {
            bytes.truncate(start);
        }
        Ok(is_whole)
    }
}
