//! Tokens become sequences of a length: windows cut out of a long text, and short examples put into rows
//! together.

use super::TokenFile;
use crate::random::below;
use crate::{IGNORE, Sequence};
use rhetor_generate::Rng;
use std::collections::BTreeMap;
use std::ops::Range;

/// Windows of `len` tokens and the token after them, out of documents that follow each other in a file.
///
/// By default a window does not care where documents end, as GPT-2 and GPT-3 were trained (arXiv:2005.14165,
/// §2.3: no masking); with a document mask it is cut into spans that do not see each other.
#[derive(Debug, Clone)]
pub struct Windows<'a> {
    file: &'a TokenFile,
    range: Range<u64>,
    len: u64,
    mask: DocumentMask,
}

/// Whether tokens see those of the documents before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentMask {
    /// A window is one sequence.
    Off,
    /// A window is as many sequences as it has documents; positions begin anew in each.
    On,
}

impl<'a> Windows<'a> {
    /// Windows of `len` tokens out of `range` of a file. Panics if the length is 0 or the range outside the
    /// file.
    #[track_caller]
    pub fn new(file: &'a TokenFile, range: Range<u64>, len: usize, mask: DocumentMask) -> Windows<'a> {
        assert!(len > 0, "windows of no tokens");
        assert!(range.end <= file.n_tokens(), "tokens {range:?} of {}", file.n_tokens());
        Windows { file, range, len: len as u64, mask }
    }

    /// How many windows there are side by side; 0 if the range has not even len + 1 tokens.
    pub fn n(&self) -> u64 {
        (self.range.end - self.range.start).saturating_sub(1) / self.len
    }

    /// Window `index` of those that lie side by side: tokens `index · len` and on. Panics if there is none.
    #[track_caller]
    pub fn get(&self, index: u64) -> Vec<Sequence> {
        assert!(index < self.n(), "window {index} of {}", self.n());
        self.at(self.range.start + index * self.len)
    }

    /// A window anywhere, every offset as likely as any other, as nanoGPT draws them. Panics if there is
    /// none.
    #[track_caller]
    pub fn random(&self, rng: &mut Rng) -> Vec<Sequence> {
        assert!(self.n() > 0, "no window of {} tokens in {:?}", self.len, self.range);
        let n_offsets = self.range.end - self.range.start - self.len;
        self.at(self.range.start + below(rng, n_offsets as usize) as u64)
    }

    fn at(&self, start: u64) -> Vec<Sequence> {
        let whole = start..start + self.len;
        let ids = self.file.tokens(whole.start..whole.end + 1);
        if self.mask == DocumentMask::Off {
            return vec![Sequence::next_token(&ids)];
        }
        let mut sequences = Vec::new();
        let mut from = whole.start;
        // A document that begins with the token after the window ends the last span without a target.
        let borders = self.file.borders(start..whole.end + 1).iter().copied();
        for border in borders.chain([whole.end + 1]) {
            if border == from {
                continue;
            }
            let rows = (from - start) as usize..(border.min(whole.end) - start) as usize;
            if rows.is_empty() {
                break;
            }
            let n_targets = ((border - 1).min(whole.end) - from) as usize;
            let mut targets = ids[rows.start + 1..rows.start + 1 + n_targets].to_vec();
            targets.resize(rows.len(), IGNORE);
            sequences.push(Sequence { tokens: ids[rows].to_vec(), targets, ..Sequence::default() });
            from = border;
        }
        sequences
    }
}

/// Examples put into rows of at most some tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packed {
    /// The examples of each row, by number, in the order in which they were given.
    pub rows: Vec<Vec<usize>>,
    /// Examples that are longer than a row.
    pub too_long: Vec<usize>,
}

/// Puts examples of these lengths into as few rows of `len_max` tokens as best-fit-decreasing finds: the
/// longest first, each into the fullest row that has room. At most 11/9 of the rows needed, and one. Source:
/// Johnson 1973; for language models, Ding et al., Fewer Truncations Improve Language Modeling,
/// arXiv:2404.10830, §3.
pub fn best_fit(lengths: &[usize], len_max: usize) -> Packed {
    let mut packed = Packed::default();
    let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
    longest_first.sort_by_key(|&i| (std::cmp::Reverse(lengths[i]), i));
    // Rows by the room that is left in them.
    let mut open: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for i in longest_first {
        let length = lengths[i];
        if length > len_max {
            packed.too_long.push(i);
            continue;
        }
        let (row, room) = match open.range(length..).next().map(|(&room, _)| room) {
            Some(room) => {
                let rows = open.get_mut(&room).expect("found there");
                let row = rows.pop().expect("no empty list is kept");
                if rows.is_empty() {
                    open.remove(&room);
                }
                (row, room)
            }
            None => {
                packed.rows.push(Vec::new());
                (packed.rows.len() - 1, len_max)
            }
        };
        packed.rows[row].push(i);
        open.entry(room - length).or_default().push(row);
    }
    for row in &mut packed.rows {
        row.sort_unstable();
    }
    packed.too_long.sort_unstable();
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::keyed;

    /// A Megatron file of documents of 3, 4 and 5 tokens: 0 1 2, 10 11 12 13, 20 21 22 23 24.
    fn documents() -> (tempfile::TempDir, TokenFile) {
        let folder = tempfile::tempdir().unwrap();
        let lengths = [3i32, 4, 5];
        let mut index = b"MMIDIDX\0\0".to_vec();
        index.extend(1u64.to_le_bytes());
        index.push(8);
        index.extend([3u64, 4].map(u64::to_le_bytes).concat());
        index.extend(lengths.map(i32::to_le_bytes).concat());
        index.extend([0u64, 6, 14].map(u64::to_le_bytes).concat());
        index.extend([0u64, 1, 2, 3].map(u64::to_le_bytes).concat());
        std::fs::write(folder.path().join("d.idx"), index).unwrap();
        let ids = lengths.iter().zip(0u16..).flat_map(|(&n, d)| (0..n as u16).map(move |i| d * 10 + i));
        std::fs::write(folder.path().join("d.bin"), ids.flat_map(u16::to_le_bytes).collect::<Vec<u8>>())
            .unwrap();
        let file = TokenFile::open_megatron(&folder.path().join("d")).unwrap();
        (folder, file)
    }

    fn show(sequences: &[Sequence]) -> String {
        let target = |&target: &u32| if target == IGNORE { "-".to_string() } else { target.to_string() };
        let shown = sequences.iter().map(|sequence| {
            let pairs = sequence.tokens.iter().zip(&sequence.targets);
            pairs.map(|(token, t)| format!("{token}>{}", target(t))).collect::<Vec<_>>().join(" ")
        });
        shown.collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn windows_lie_side_by_side_and_predict_the_token_after_them() {
        let (_folder, file) = documents();
        let windows = Windows::new(&file, 0..12, 5, DocumentMask::Off);
        assert_eq!(windows.n(), 2);
        assert_eq!(show(&windows.get(0)), "0>1 1>2 2>10 10>11 11>12");
        assert_eq!(show(&windows.get(1)), "12>13 13>20 20>21 21>22 22>23");
        assert_eq!(Windows::new(&file, 0..12, 12, DocumentMask::Off).n(), 0);
        assert_eq!(Windows::new(&file, 2..8, 5, DocumentMask::Off).n(), 1);
    }

    #[test]
    fn a_document_mask_cuts_windows_at_the_borders() {
        let (_folder, file) = documents();
        let windows = Windows::new(&file, 0..12, 5, DocumentMask::On);
        assert_eq!(show(&windows.get(0)), "0>1 1>2 2>- | 10>11 11>12");
        assert_eq!(show(&windows.get(1)), "12>13 13>- | 20>21 21>22 22>23");
        let windows = Windows::new(&file, 0..12, 3, DocumentMask::On);
        assert_eq!(show(&windows.get(0)), "0>1 1>2 2>-", "the token after the window is of another document");
        assert_eq!(show(&windows.get(1)), "10>11 11>12 12>13");
        let windows = Windows::new(&file, 0..12, 11, DocumentMask::On);
        assert_eq!(windows.get(0).iter().map(Sequence::len).sum::<usize>(), 11);
    }

    #[test]
    fn random_windows_begin_everywhere_and_are_drawn_by_their_key() {
        let (_folder, file) = documents();
        let windows = Windows::new(&file, 3..12, 4, DocumentMask::Off);
        let first = |item| windows.random(&mut keyed(0, 0, item))[0].tokens[0];
        let mut seen: Vec<u32> = (0..200).map(first).collect();
        assert_eq!(seen, (0..200).map(first).collect::<Vec<u32>>());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [10, 11, 12, 13, 20], "the last window predicts the last token");
    }

    #[test]
    fn rows_hold_every_example_once_and_are_nearly_full() {
        let lengths: Vec<usize> = (0..2000).map(|i| 1 + (i * 7919) % 700).collect();
        let packed = best_fit(&lengths, 512);
        let mut all: Vec<usize> = packed.rows.iter().flatten().chain(&packed.too_long).copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..2000).collect::<Vec<usize>>());
        assert!(packed.too_long.iter().all(|&i| lengths[i] > 512));
        let filled: Vec<usize> =
            packed.rows.iter().map(|row| row.iter().map(|&i| lengths[i]).sum()).collect();
        assert!(filled.iter().all(|&tokens| tokens <= 512));
        let share = filled.iter().sum::<usize>() as f64 / (512 * filled.len()) as f64;
        assert!(share > 0.99, "{share}");
    }

    #[test]
    fn the_fullest_row_that_has_room_is_taken() {
        assert_eq!(best_fit(&[6, 5, 4, 3, 2, 11], 10).rows, [vec![0, 2], vec![1, 3, 4]]);
        assert_eq!(best_fit(&[6, 5, 4, 3, 2, 11], 10).too_long, [5]);
        assert_eq!(best_fit(&[], 10), Packed::default());
    }
}
