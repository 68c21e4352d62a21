//! The list of tokens: id to piece, piece to id, kind and score.
//!
//! All pieces live in one string and one open-addressing table points into it, because a vocabulary of 10^5 small
//! strings, each allocated alone, would cost more time to load than the rest of the tokenizer.

use crate::TokenId;

/// What a token stands for, by the numbers of GGUF's `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Normal,
    /// Stands for text that no other token covers.
    Unknown,
    /// Steers the model and is no text: `<s>`, `<|im_end|>`.
    Control,
    /// Text that is always one token, found before everything else.
    UserDefined,
    /// Reserved; never produced.
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
}

/// The tokens of a model, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vocabulary {
    text: String,
    /// Where each piece ends in `text`; it starts where the one before ends.
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    scores: Vec<f32>,
    /// Ids + 1 by hash of the piece, 0 where empty; a power of two at least twice as long as there are tokens.
    slots: Vec<u32>,
}

impl Vocabulary {
    /// Room for `n_tokens` tokens.
    pub fn with_capacity(n_tokens: usize) -> Vocabulary {
        Vocabulary {
            text: String::with_capacity(n_tokens * 8),
            ends: Vec::with_capacity(n_tokens),
            kinds: Vec::with_capacity(n_tokens),
            scores: Vec::with_capacity(n_tokens),
            slots: vec![0; (n_tokens * 2).next_power_of_two().max(16)],
        }
    }

    /// Appends a token and returns its id. Of two tokens with the same piece the first is the one that
    /// [`Vocabulary::id`] finds; an empty one is never found.
    pub fn push(&mut self, piece: &str, kind: Kind, score: f32) -> TokenId {
        let id = self.ends.len() as TokenId;
        self.text.push_str(piece);
        self.ends.push(self.text.len() as u32);
        self.kinds.push(kind);
        self.scores.push(score);
        if self.ends.len() * 2 > self.slots.len() {
            self.slots = vec![0; self.slots.len() * 2];
            (0..id).for_each(|id| self.insert(id));
        }
        self.insert(id);
        id
    }

    fn insert(&mut self, id: TokenId) {
        if self.piece(id).is_empty() {
            return;
        }
        let mask = self.slots.len() - 1;
        let mut at = hash(self.piece(id).as_bytes()) as usize & mask;
        while self.slots[at] != 0 {
            if self.piece(self.slots[at] - 1) == self.piece(id) {
                return;
            }
            at = (at + 1) & mask;
        }
        self.slots[at] = id + 1;
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The piece of `id`, which must be in the vocabulary.
    pub fn piece(&self, id: TokenId) -> &str {
        let i = id as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.text[start..self.ends[i] as usize]
    }

    /// The kind of `id`, which must be in the vocabulary.
    pub fn kind(&self, id: TokenId) -> Kind {
        self.kinds[id as usize]
    }

    /// The score of `id`, a log-probability or a negative rank; 0 where the file gives none.
    pub fn score(&self, id: TokenId) -> f32 {
        self.scores[id as usize]
    }

    /// The token whose piece is `piece`.
    pub fn id(&self, piece: &str) -> Option<TokenId> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut at = hash(piece.as_bytes()) as usize & mask;
        while self.slots[at] != 0 {
            let id = self.slots[at] - 1;
            if self.piece(id) == piece {
                return Some(id);
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// The token that stands for one byte, `<0x0A>`.
    pub fn byte_id(&self, byte: u8) -> Option<TokenId> {
        let id = self.id(&format!("<0x{byte:02X}>"))?;
        (self.kind(id) == Kind::Byte).then_some(id)
    }

    /// Every id, in order.
    pub fn ids(&self) -> impl Iterator<Item = TokenId> + use<> {
        0..self.len() as TokenId
    }
}

/// The byte that a piece such as `<0x0A>` stands for.
pub(crate) fn byte_of_piece(piece: &str) -> Option<u8> {
    let hex = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        u8::from_str_radix(hex, 16).ok()
    } else {
        None
    }
}

/// A quick hash of short strings: eight bytes at a time, multiply and fold.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    const K: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut h = bytes.len() as u64;
    let mut rest = bytes;
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        h = (h.rotate_left(23) ^ u64::from_le_bytes(*head)).wrapping_mul(K);
        rest = tail;
    }
    let mut last = [0u8; 8];
    last[..rest.len()].copy_from_slice(rest);
    h = (h.rotate_left(23) ^ u64::from_le_bytes(last)).wrapping_mul(K);
    h ^ (h >> 32)
}

/// [`hash`] for the maps of the standard library.
#[derive(Default)]
pub(crate) struct QuickHasher(u64);

impl std::hash::Hasher for QuickHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = self.0.rotate_left(5) ^ hash(bytes);
    }

    fn write_u64(&mut self, n: u64) {
        let h = (self.0.rotate_left(5) ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = h ^ (h >> 32);
    }

    fn write_u8(&mut self, _: u8) {
        // The end mark of a string; its length is in the hash already.
    }

    fn write_usize(&mut self, _: usize) {
        // The length of a slice; it is in the hash already.
    }
}

pub(crate) type QuickMap<K, V> = std::collections::HashMap<K, V, std::hash::BuildHasherDefault<QuickHasher>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_found_by_its_text_after_the_table_has_grown() {
        let mut vocabulary = Vocabulary::with_capacity(0);
        for i in 0..5000 {
            assert_eq!(vocabulary.push(&format!("piece {i}"), Kind::Normal, -(i as f32)), i);
        }
        for i in 0..5000 {
            assert_eq!(vocabulary.id(&format!("piece {i}")), Some(i));
            assert_eq!(vocabulary.score(i), -(i as f32));
        }
        assert_eq!(vocabulary.id("piece"), None);
        assert_eq!(Vocabulary::default().id("x"), None);
    }

    #[test]
    fn the_first_of_two_equal_pieces_is_found() {
        let mut vocabulary = Vocabulary::with_capacity(2);
        vocabulary.push("a", Kind::Normal, 0.0);
        vocabulary.push("a", Kind::Control, 0.0);
        assert_eq!((vocabulary.id("a"), vocabulary.len()), (Some(0), 2));
    }

    #[test]
    fn byte_pieces_are_read_strictly() {
        assert_eq!(byte_of_piece("<0x0A>"), Some(10));
        for wrong in ["<0x+A>", "<0x0>", "<0x0A", "0x0A", "<0x00A>", ""] {
            assert_eq!(byte_of_piece(wrong), None, "{wrong}");
        }
    }
}
