//! SentencePiece's unigram model (T5, XLM-R): the segmentation with the greatest sum of log-probabilities.
//!
//! Viterbi over byte positions; the pieces that start at a position are found by narrowing a range of the sorted
//! pieces byte by byte. Source: Subword Regularization, arXiv:1804.10959, §3.1-3.2.

use super::After;
use crate::TokenId;
use crate::charsmap::SentencePieceNormalizer;
use crate::vocabulary::{Kind, Vocabulary};

/// An unknown character costs this much more than the worst piece.
const UNKNOWN_PENALTY: f64 = 10.0;

/// The tables of a unigram model.
#[derive(Debug, Clone)]
pub(crate) struct Unigram {
    normalizer: SentencePieceNormalizer,
    /// Ids of the pieces that may be found, sorted by piece.
    sorted: Vec<TokenId>,
    /// Where in `sorted` the pieces with each first byte start; 257 entries.
    first_bytes: Vec<u32>,
    unknown: Option<TokenId>,
    unknown_score: f64,
    bytes: Option<Box<[TokenId; 256]>>,
}

impl Unigram {
    /// Sorts the pieces of `vocabulary`. With all 256 byte tokens there, unknown characters become bytes.
    pub fn new(
        vocabulary: &Vocabulary,
        normalizer: SentencePieceNormalizer,
        unknown: Option<TokenId>,
    ) -> Unigram {
        let findable = |id: &TokenId| {
            matches!(vocabulary.kind(*id), Kind::Normal | Kind::UserDefined | Kind::Unused)
                && !vocabulary.piece(*id).is_empty()
        };
        let mut sorted: Vec<TokenId> = vocabulary.ids().filter(findable).collect();
        sorted.sort_by(|&a, &b| vocabulary.piece(a).cmp(vocabulary.piece(b)));
        sorted.dedup_by(|a, b| vocabulary.piece(*a) == vocabulary.piece(*b));
        let first = |id: TokenId| vocabulary.piece(id).as_bytes()[0] as usize;
        let first_bytes =
            (0..=256).map(|byte| sorted.partition_point(|&id| first(id) < byte) as u32).collect();
        let normal = sorted.iter().filter(|&&id| vocabulary.kind(id) == Kind::Normal);
        let worst = normal.map(|&id| vocabulary.score(id) as f64).fold(f64::INFINITY, f64::min);
        let worst = if worst.is_finite() { worst } else { 0.0 };
        let bytes: Option<Vec<TokenId>> = (0..=255).map(|byte| vocabulary.byte_id(byte)).collect();
        Unigram {
            normalizer,
            sorted,
            first_bytes,
            unknown,
            unknown_score: worst - UNKNOWN_PENALTY,
            bytes: bytes.and_then(|bytes| bytes.try_into().ok()),
        }
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, after: After, out: &mut Vec<TokenId>) {
        let text = self.normalizer.normalize(text, after);
        let n = text.len();
        // The best way to reach each byte: its score, where its last piece starts, and the piece (none: unknown).
        let mut best: Vec<(f64, u32, Option<TokenId>)> = vec![(f64::NEG_INFINITY, 0, None); n + 1];
        best[0].0 = 0.0;
        for (at, c) in text.char_indices() {
            let reached = best[at].0;
            let mut offer = |end: usize, score: f64, piece: Option<TokenId>| {
                if reached + score > best[end].0 {
                    best[end] = (reached + score, at as u32, piece);
                }
            };
            let mut covers_the_char = false;
            self.pieces_at(vocabulary, &text.as_bytes()[at..], |id, len| {
                covers_the_char |= len == c.len_utf8();
                let is_user_defined = vocabulary.kind(id) == Kind::UserDefined;
                offer(at + len, if is_user_defined { 0.0 } else { vocabulary.score(id) as f64 }, Some(id));
            });
            if !covers_the_char {
                offer(at + c.len_utf8(), self.unknown_score, None);
            }
        }
        self.trace_back(&text, &best, out);
    }

    /// Calls `each` with every piece that `bytes` start with, and its length, shortest first.
    fn pieces_at(&self, vocabulary: &Vocabulary, bytes: &[u8], mut each: impl FnMut(TokenId, usize)) {
        let first = bytes[0] as usize;
        let (mut low, mut high) = (self.first_bytes[first] as usize, self.first_bytes[first + 1] as usize);
        for len in 1..=bytes.len() {
            if low == high {
                return;
            }
            // All of low..high start with bytes[..len]; one that is no longer comes first.
            let id = self.sorted[low];
            if vocabulary.piece(id).len() == len {
                each(id, len);
                low += 1;
            }
            let Some(&next) = bytes.get(len) else { return };
            let range = &self.sorted[low..high];
            let byte = |id: &TokenId| vocabulary.piece(*id).as_bytes()[len];
            high = low + range.partition_point(|id| byte(id) <= next);
            low += range.partition_point(|id| byte(id) < next);
        }
    }

    fn trace_back(&self, text: &str, best: &[(f64, u32, Option<TokenId>)], out: &mut Vec<TokenId>) {
        let first = out.len();
        let mut end = text.len();
        let mut was_unknown = false;
        while end > 0 {
            let (_, start, piece) = best[end];
            match (piece, &self.bytes) {
                (Some(id), _) => out.push(id),
                (None, Some(bytes)) => {
                    out.extend(text.as_bytes()[start as usize..end].iter().rev().map(|&b| bytes[b as usize]));
                }
                // A run of unknown characters is one unknown token.
                (None, None) => out.extend(self.unknown.filter(|_| !was_unknown)),
            }
            was_unknown = piece.is_none();
            end = start as usize;
        }
        out[first..].reverse();
    }
}
