//! SentencePiece's BPE (LLaMA, Mistral): the pair whose union has the best score is merged first; characters without
//! a token fall back to bytes.
//!
//! Source: SentencePiece, arXiv:1808.06226, §3.1, and `bpe_model.cc` of its code.

use super::After;
use super::merge::{Merged, Merger, Symbol};
use crate::TokenId;
use crate::charsmap::{SPACE, SentencePieceNormalizer};
use crate::vocabulary::{Kind, QuickMap, Vocabulary};

/// The tables of a SentencePiece BPE.
#[derive(Debug, Clone)]
pub(crate) struct SentencePieceBpe {
    normalizer: SentencePieceNormalizer,
    /// The token of each byte, `NONE` where there is none.
    bytes: Box<[u32; 256]>,
    unknown: Option<TokenId>,
    /// Whether no token has a space behind another character: then no merge crosses the start of a word, and words
    /// can be merged one by one and remembered.
    words_are_apart: bool,
}

const NONE: u32 = u32::MAX;
const CACHE_LEN: usize = 1 << 16;

impl SentencePieceBpe {
    /// Reads the byte tokens from `vocabulary`.
    pub fn new(
        vocabulary: &Vocabulary,
        normalizer: SentencePieceNormalizer,
        unknown: Option<TokenId>,
    ) -> SentencePieceBpe {
        let mut bytes = Box::new([NONE; 256]);
        for byte in 0..=255u8 {
            bytes[byte as usize] = vocabulary.byte_id(byte).unwrap_or(NONE);
        }
        let words_are_apart = vocabulary
            .ids()
            .filter(|&id| matches!(vocabulary.kind(id), Kind::Normal | Kind::UserDefined | Kind::Unused))
            .all(|id| !vocabulary.piece(id).trim_start_matches(SPACE).contains(SPACE));
        SentencePieceBpe { normalizer, bytes, unknown, words_are_apart }
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, after: After, out: &mut Vec<TokenId>) {
        let text = self.normalizer.normalize(text, after);
        let mut merger = Merger::default();
        if !self.words_are_apart {
            self.encode_word(vocabulary, &text, &mut merger, out);
            return;
        }
        let mut cache: QuickMap<&str, (u32, u32)> = QuickMap::default();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let body = rest.len() - rest.trim_start_matches(SPACE).len();
            let end = rest[body..].find(SPACE).map_or(rest.len(), |i| body + i);
            let word = &rest[..end];
            rest = &rest[end..];
            if let Some(&(start, end)) = cache.get(word) {
                out.extend_from_within(start as usize..end as usize);
                continue;
            }
            let start = out.len();
            self.encode_word(vocabulary, word, &mut merger, out);
            if cache.len() < CACHE_LEN && out.len() < u32::MAX as usize {
                cache.insert(word, (start as u32, out.len() as u32));
            }
        }
    }

    fn encode_word(&self, vocabulary: &Vocabulary, word: &str, merger: &mut Merger, out: &mut Vec<TokenId>) {
        merger.symbols.clear();
        merger.symbols.extend(word.char_indices().map(|(i, c)| Symbol {
            id: text_token(vocabulary, &word[i..i + c.len_utf8()]).unwrap_or(NONE),
            start: i as u32,
            end: (i + c.len_utf8()) as u32,
        }));
        merger.run(|left, right| {
            let id = text_token(vocabulary, &word[left.start as usize..right.end as usize])?;
            Some(Merged { rank: rank_of_score(vocabulary.score(id)), id })
        });
        let mut was_unknown = false;
        for symbol in &merger.symbols {
            if symbol.id != NONE {
                out.push(symbol.id);
                was_unknown = false;
                continue;
            }
            for &byte in &word.as_bytes()[symbol.start as usize..symbol.end as usize] {
                match (self.bytes[byte as usize], self.unknown) {
                    (NONE, None) => {}
                    // A run of unknown characters is one unknown token.
                    (NONE, Some(unknown)) => {
                        if !was_unknown {
                            out.push(unknown);
                        }
                        was_unknown = true;
                    }
                    (id, _) => out.push(id),
                }
            }
        }
    }
}

/// The token of `piece`, if it stands for text.
fn text_token(vocabulary: &Vocabulary, piece: &str) -> Option<TokenId> {
    let id = vocabulary.id(piece)?;
    matches!(vocabulary.kind(id), Kind::Normal | Kind::UserDefined | Kind::Unused).then_some(id)
}

/// A number that is the smaller the better the score is.
fn rank_of_score(score: f32) -> u32 {
    let bits = (-score).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_scores_from_best_to_worst() {
        let scores = [f32::INFINITY, 3.5, 1e-40, 0.0, -1e-40, -1.0, -2.0, -1e9, f32::NEG_INFINITY];
        assert!(scores.windows(2).all(|two| rank_of_score(two[0]) < rank_of_score(two[1])));
    }
}
