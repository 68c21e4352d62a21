//! Files of token ids: our own, Megatron-LM's, nanoGPT's. Every length and offset is checked before it is
//! used.

use super::token_file::Width;
use crate::Error;
use rhetor_kernels::map::Map;
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::path::Path;

/// The first bytes of our own files.
pub(crate) const MAGIC: &[u8; 8] = b"RHTOKENS";
/// The version that is written and read.
pub(crate) const VERSION: u32 = 1;
/// Bytes before the ids: magic 8, version 4, bytes of an id 4, number of tokens 8, number of documents 8, key
/// 32, checksum 32, nothing 32.
pub(crate) const HEADER: usize = 128;
/// Where the key lies: what the ids were made from.
pub(crate) const KEY: Range<usize> = 32..64;
/// Where the SHA-256 of all other bytes lies.
pub(crate) const CHECKSUM: Range<usize> = 64..96;

/// Where things lie in a file.
pub(crate) struct Layout {
    pub ids: Range<usize>,
    pub width: Width,
    pub starts: Vec<u64>,
}

/// `n` numbers of 8 bytes.
fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|eight| u64::from_le_bytes(eight.try_into().expect("chunks of 8"))).collect()
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().expect("8 bytes")))
}

/// Checks that `starts` rise from 0 to the number of tokens.
fn check_starts(path: &Path, starts: &[u64], n_tokens: u64) -> Result<(), Error> {
    let rises = starts.windows(2).all(|pair| pair[0] <= pair[1]);
    match (starts.first(), starts.last()) {
        (Some(0), Some(&end)) if end == n_tokens && rises => Ok(()),
        _ => Err(Error::tokens(path, format!("the documents do not rise from token 0 to token {n_tokens}"))),
    }
}

/// Our own file: header, ids, zeros up to a multiple of 8, the starts of the documents and the number of
/// tokens.
pub(crate) fn own(path: &Path, map: &Map) -> Result<Layout, Error> {
    let wrong = |reason: String| Error::tokens(path, reason);
    if map.len() < HEADER || map[..8] != MAGIC[..] {
        return Err(wrong("no token file of rhetor: it does not begin with RHTOKENS".to_string()));
    }
    let word = |at: usize| u32::from_le_bytes(map[at..at + 4].try_into().expect("4 bytes"));
    if word(8) != VERSION {
        return Err(wrong(format!("token file of version {}; this program reads {VERSION}", word(8))));
    }
    let width = match word(12) {
        2 => Width::U16,
        4 => Width::U32,
        other => return Err(wrong(format!("ids of {other} bytes; expected 2 or 4"))),
    };
    let [n_tokens, n_documents] = [16, 24].map(|at| number(map, at).expect("within the header"));
    let layout = || {
        let n_bytes = usize::try_from(n_tokens).ok()?.checked_mul(width.bytes())?;
        let table = HEADER.checked_add(n_bytes)?.checked_next_multiple_of(8)?;
        let n_starts = usize::try_from(n_documents).ok()?.checked_add(1)?;
        (table.checked_add(n_starts.checked_mul(8)?)? == map.len()).then_some((n_bytes, table))
    };
    let (n_bytes, table) = layout().ok_or_else(|| {
        wrong(format!("{} bytes do not hold {n_tokens} tokens in {n_documents} documents", map.len()))
    })?;
    if checksum(&map[..CHECKSUM.start], &map[CHECKSUM.end..]) != map[CHECKSUM] {
        return Err(wrong("the checksum is another: the file is damaged".to_string()));
    }
    let starts = numbers(&map[table..]);
    check_starts(path, &starts, n_tokens)?;
    Ok(Layout { ids: HEADER..HEADER + n_bytes, width, starts })
}

/// SHA-256 of a file without its checksum.
pub(crate) fn checksum(before: &[u8], after: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(after);
    hash.finalize().into()
}

/// nanoGPT's file: ids of 16 bits and nothing else.
pub(crate) fn nano_gpt(path: &Path, map: &Map) -> Result<Layout, Error> {
    if map.is_empty() || !map.len().is_multiple_of(2) {
        return Err(Error::tokens(path, format!("{} bytes are no ids of 2 bytes each", map.len())));
    }
    Ok(Layout { ids: 0..map.len(), width: Width::U16, starts: vec![0, map.len() as u64 / 2] })
}

/// Megatron's index: magic `MMIDIDX\0\0`, u64 version 1, u8 type, u64 number of sequences S, u64 number of
/// documents D (one more than there are), i32 lengths[S], i64 byte offsets[S], i64 documents[D] as numbers of
/// sequences.
pub(crate) fn megatron(path: &Path, index: &[u8], ids: &Map) -> Result<Layout, Error> {
    let wrong = |reason: String| Error::tokens(path, reason);
    if !index.starts_with(b"MMIDIDX\0\0") {
        return Err(wrong("no index of Megatron: it does not begin with MMIDIDX".to_string()));
    }
    let short = || wrong(format!("{} bytes end in the middle of the index", index.len()));
    let version = number(index, 9).ok_or_else(short)?;
    if version != 1 {
        return Err(wrong(format!("index of version {version}; expected 1")));
    }
    let code = *index.get(17).ok_or_else(short)?;
    let (width, is_signed) = match code {
        1 => (Width::U8, false),
        4 => (Width::U32, true),
        5 => (Width::U64, true),
        8 => (Width::U16, false),
        other => {
            return Err(wrong(format!("ids of type {other}; expected 1 (u8), 4 (i32), 5 (i64) or 8 (u16)")));
        }
    };
    let [n_sequences, n_documents] = [18, 26].map(|at| number(index, at));
    let (n_sequences, n_documents) = (n_sequences.ok_or_else(short)?, n_documents.ok_or_else(short)?);
    // Sequences take 12 bytes and documents 8, so more of them than there are bytes cannot be.
    let most = index.len() as u64;
    if n_sequences > most || n_documents > most || 34 + 12 * n_sequences + 8 * n_documents != most {
        return Err(wrong(format!(
            "{} bytes do not hold {n_sequences} sequences and {n_documents} documents",
            index.len()
        )));
    }
    let (lengths, rest) = index[34..].split_at(4 * n_sequences as usize);
    let (offsets, documents) = rest.split_at(8 * n_sequences as usize);
    let mut ends = vec![0u64];
    for (i, (length, offset)) in lengths.chunks_exact(4).zip(numbers(offsets)).enumerate() {
        let length = i32::from_le_bytes(length.try_into().expect("chunks of 4"));
        let start = ends[i];
        let expected = start.checked_mul(width.bytes() as u64);
        if expected != Some(offset) || length < 0 {
            return Err(wrong(format!(
                "sequence {i} of {length} tokens begins at byte {offset}; expected {} and no gaps",
                start * width.bytes() as u64
            )));
        }
        ends.push(start + length as u64);
    }
    let n_tokens = *ends.last().expect("it begins with 0");
    if n_tokens.checked_mul(width.bytes() as u64) != Some(ids.len() as u64) {
        return Err(wrong(format!("{n_tokens} tokens in the index; the .bin file has {} bytes", ids.len())));
    }
    let start_of = |sequence: &u64| ends.get(usize::try_from(*sequence).ok()?).copied();
    let starts: Option<Vec<u64>> = numbers(documents).iter().map(start_of).collect();
    let starts =
        starts.ok_or_else(|| wrong(format!("a document begins beyond the {n_sequences} sequences")))?;
    check_starts(path, &starts, n_tokens)?;
    // The highest bit of a signed id is its sign.
    if is_signed && ids.chunks_exact(width.bytes()).any(|id| id[width.bytes() - 1] >= 0x80) {
        return Err(wrong("there is a negative id".to_string()));
    }
    Ok(Layout { ids: 0..ids.len(), width, starts })
}

#[cfg(test)]
mod tests {
    use super::super::TokenFile;
    use std::path::Path;

    /// An index of two documents: sequences of 2 and 1 tokens, then one of 3.
    fn index(code: u8, width: u64) -> Vec<u8> {
        let mut index = b"MMIDIDX\0\0".to_vec();
        index.extend(1u64.to_le_bytes());
        index.push(code);
        index.extend([3u64, 3].map(u64::to_le_bytes).concat());
        index.extend([2i32, 1, 3].map(i32::to_le_bytes).concat());
        index.extend([0, 2 * width, 3 * width].map(u64::to_le_bytes).concat());
        index.extend([0u64, 2, 3].map(u64::to_le_bytes).concat());
        index
    }

    fn open(folder: &Path, index: &[u8], ids: &[u8]) -> Result<TokenFile, String> {
        std::fs::write(folder.join("data.idx"), index).unwrap();
        std::fs::write(folder.join("data.bin"), ids).unwrap();
        TokenFile::open_megatron(&folder.join("data.bin")).map_err(|error| error.to_string())
    }

    #[test]
    fn files_of_megatron_are_read_with_their_documents() {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<u8> = (1..=6u16).flat_map(u16::to_le_bytes).collect();
        let file = open(folder.path(), &index(8, 2), &ids).unwrap();
        assert_eq!(file.tokens(0..6), [1, 2, 3, 4, 5, 6]);
        assert_eq!((file.n_documents(), file.document(0), file.document(1)), (2, 0..3, 3..6));
        assert_eq!(
            (file.borders(0..6), file.borders(3..6), file.borders(1..3)),
            (&[3][..], &[][..], &[][..])
        );
        let ids: Vec<u8> = (1..=6i32).flat_map(i32::to_le_bytes).collect();
        assert_eq!(open(folder.path(), &index(4, 4), &ids).unwrap().tokens(2..4), [3, 4]);
    }

    #[test]
    fn a_damaged_index_is_refused_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<u8> = (1..=6u16).flat_map(u16::to_le_bytes).collect();
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut index = index(8, 2);
            change(&mut index);
            open(folder.path(), &index, &ids).unwrap_err()
        };
        assert!(refused(&|index| index[0] = 0).contains("does not begin with MMIDIDX"));
        assert!(refused(&|index| index[9] = 2).contains("version 2"));
        assert!(refused(&|index| index[17] = 7).contains("type 7"));
        assert!(refused(&|index| index[18] = 4).contains("do not hold 4 sequences"));
        assert!(refused(&|index| index[25] = 0xff).contains("do not hold"));
        assert!(
            refused(&|index| index[34] = 1).contains("sequence 1 of 1 tokens begins at byte 4; expected 2")
        );
        assert!(
            refused(&|index| index[42] = 4).contains("7 tokens in the index; the .bin file has 12 bytes")
        );
        assert!(refused(&|index| *index.last_mut().unwrap() = 1).contains("beyond the 3 sequences"));
        assert!(refused(&|index| index.truncate(20)).contains("end in the middle"));
        let negative = [-1i32; 6].map(i32::to_le_bytes).concat();
        assert!(open(folder.path(), &index(4, 4), &negative).unwrap_err().contains("negative id"));
    }
}
