//! Data that come from nowhere: made by this program, the same bytes each time.

use crate::random::{below, keyed};

/// How a file of data is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// Lines, each a random run of 6 to 24 letters and digits, all different, written two to four times in a row.
    RepeatedSegments,
    /// Pairs in JSON lines: words of 3 to 10 of the first 16 letters, and the same backwards.
    ReversedWords,
}

/// What segments are made of.
const SYMBOLS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

impl Made {
    /// The bytes of the file.
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Made::RepeatedSegments => (0..10_000).flat_map(segments).collect(),
            Made::ReversedWords => (0..10_000).flat_map(reversed).collect(),
        }
    }
}

/// Line `i`.
fn segments(i: u64) -> Vec<u8> {
    let mut random = keyed(0, 0, i);
    let mut symbols = *SYMBOLS;
    let len = 6 + below(&mut random, 19);
    for at in 0..len {
        symbols.swap(at, at + below(&mut random, SYMBOLS.len() - at));
    }
    let mut line = symbols[..len].repeat(2 + below(&mut random, 3));
    line.push(b'\n');
    line
}

/// Pair `i`.
fn reversed(i: u64) -> Vec<u8> {
    let mut random = keyed(1, 0, i);
    let len = 3 + below(&mut random, 8);
    let word: String = (0..len).map(|_| char::from(b'a' + below(&mut random, 26) as u8)).collect();
    let backwards: String = word.chars().rev().collect();
    format!("{{\"prompt\": \"{word}\", \"completion\": \"{backwards}\"}}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DATA_SETS;
    use sha2::{Digest, Sha256};

    #[test]
    fn what_is_made_has_the_bytes_that_the_table_says() {
        let files = DATA_SETS.iter().flat_map(|set| set.files);
        for (file, made) in files.filter_map(|file| Some((file, file.made?))) {
            let bytes = made.bytes();
            assert_eq!(bytes.len() as u64, file.size);
            let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(sum, file.sha256);
        }
    }

    #[test]
    fn each_line_is_one_segment_of_different_symbols_over_and_over() {
        let text = String::from_utf8(Made::RepeatedSegments.bytes()).unwrap();
        for line in text.lines().take(200) {
            let n =
                (6..=24).find(|n| line.len() % n == 0 && line == line[..*n].repeat(line.len() / n)).unwrap();
            let mut symbols: Vec<char> = line[..n].chars().collect();
            symbols.sort_unstable();
            symbols.dedup();
            assert!(symbols.len() == n && (2..=4).contains(&(line.len() / n)), "{line}");
        }
    }
}
