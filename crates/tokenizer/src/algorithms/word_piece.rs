//! BERT's WordPiece: words are cut into the longest pieces from the left; a word that cannot be is unknown.
//!
//! Source: BERT, arXiv:1810.04805, §3 (and `tokenization.py` of its code); Google's NMT system, arXiv:1609.08144, §4.1.

use unicode_normalization::UnicodeNormalization;

use crate::TokenId;
use crate::unicode_class::{Class, class_of};
use crate::vocabulary::QuickMap;

/// What is done to text first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WordPieceOptions {
    pub lowercase: bool,
    /// Whether accents are taken off letters.
    pub strips_accents: bool,
    /// The token of a word that has no pieces.
    pub unknown: TokenId,
}

/// The tables of a WordPiece.
#[derive(Debug, Clone)]
pub(crate) struct WordPiece {
    /// Pieces that start a word, and pieces that continue one.
    initial: QuickMap<Box<str>, TokenId>,
    continuing: QuickMap<Box<str>, TokenId>,
    /// The length of the longest piece in bytes.
    longest: usize,
    options: WordPieceOptions,
}

/// A longer word, in characters, is unknown.
const MAX_WORD: usize = 100;

impl WordPiece {
    /// No pieces yet.
    pub fn new(options: WordPieceOptions) -> WordPiece {
        WordPiece { initial: QuickMap::default(), continuing: QuickMap::default(), longest: 0, options }
    }

    /// What is done to text first.
    pub fn options(&self) -> WordPieceOptions {
        self.options
    }

    /// Adds a piece that starts a word.
    pub fn push_initial(&mut self, piece: &str, id: TokenId) {
        self.longest = self.longest.max(piece.len());
        self.initial.entry(piece.into()).or_insert(id);
    }

    /// Adds a piece that continues a word.
    pub fn push_continuing(&mut self, piece: &str, id: TokenId) {
        self.longest = self.longest.max(piece.len());
        self.continuing.entry(piece.into()).or_insert(id);
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, text: &str, out: &mut Vec<TokenId>) {
        let normalized = self.normalize(text);
        for word in normalized.split(char::is_whitespace) {
            let mut start = 0;
            for (i, c) in word.char_indices() {
                if is_punctuation(c) {
                    self.encode_word(&word[start..i], out);
                    start = i + c.len_utf8();
                    self.encode_word(&word[i..start], out);
                }
            }
            self.encode_word(&word[start..], out);
        }
    }

    fn encode_word(&self, word: &str, out: &mut Vec<TokenId>) {
        if word.is_empty() {
            return;
        }
        let first = out.len();
        let mut at = 0;
        while at < word.len() {
            let pieces = if at == 0 { &self.initial } else { &self.continuing };
            let longest = word.len().min(at + self.longest);
            let ends = (at + 1..=longest).rev().filter(|&end| word.is_char_boundary(end));
            match ends.into_iter().find_map(|end| Some((end, *pieces.get(&word[at..end])?))) {
                Some((end, id)) if word.len() <= MAX_WORD || word.chars().count() <= MAX_WORD => {
                    out.push(id);
                    at = end;
                }
                _ => {
                    out.truncate(first);
                    out.push(self.options.unknown);
                    return;
                }
            }
        }
    }

    /// Drops control characters, sets ideographs apart, takes off accents, writes small letters.
    fn normalize(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 2);
        for c in text.chars() {
            if matches!(c, '\t' | '\n' | '\r') || c.is_whitespace() {
                out.push(' ');
            } else if c == '\0' || c == '\u{FFFD}' || class_of(c) == Class::Other {
                continue;
            } else if is_ideograph(c) {
                out.extend([' ', c, ' ']);
            } else {
                out.push(c);
            }
        }
        if self.options.strips_accents && !out.is_ascii() {
            out = out.nfd().filter(|&c| class_of(c) != Class::MarkNonspacing).collect();
        }
        if self.options.lowercase {
            // Letter by letter: the final sigma of `str::to_lowercase` would be another piece.
            out = out.chars().flat_map(char::to_lowercase).collect();
        }
        out
    }
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || (!c.is_ascii() && class_of(c) == Class::Punctuation)
}

/// The blocks that BERT sets spaces around.
fn is_ideograph(c: char) -> bool {
    matches!(c as u32,
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F
        // 2B820 in BERT's own code; Hugging Face's, which trained most vocabularies, has 2B920.
        | 0x2B920..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}
