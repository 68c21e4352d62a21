//! Ids to text, one by one: no character is ever split, and what was streamed is what [`crate::Tokenizer::decode`]
//! gives for all ids at once.

use std::sync::Arc;

use crate::TokenId;
use crate::byte_level;
use crate::charsmap::SPACE;
use crate::tokenizer::{ControlTokens, Engine, Tables, is_special};
use crate::vocabulary::{Kind, Vocabulary, byte_of_piece};

/// How the tokens of a vocabulary become text.
#[derive(Debug, Clone)]
pub(crate) struct Decoding {
    text: Vec<u8>,
    /// Where the bytes of each token end in `text`.
    ends: Vec<u32>,
    pub leading_space: LeadingSpace,
    /// Whether text depends on more than one token at once, so that only the engine can tell it.
    pub needs_engine: bool,
}

/// What happens to the space that SentencePiece put before the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeadingSpace {
    Keep,
    /// One space at the very beginning goes.
    DropOne,
    /// All spaces of the first token go.
    DropInFirstToken,
}

impl Decoding {
    /// The bytes of each token by `bytes`, which appends them.
    pub fn new(
        vocabulary: &Vocabulary,
        leading_space: LeadingSpace,
        mut bytes: impl FnMut(TokenId, &mut Vec<u8>),
    ) -> Decoding {
        let mut decoding = Decoding {
            text: Vec::with_capacity(vocabulary.len() * 8),
            ends: Vec::with_capacity(vocabulary.len()),
            leading_space,
            needs_engine: false,
        };
        for id in vocabulary.ids() {
            bytes(id, &mut decoding.text);
            decoding.ends.push(decoding.text.len() as u32);
        }
        decoding
    }

    /// Pieces in GPT-2's alphabet; added tokens are written as they are.
    pub fn byte_level(vocabulary: &Vocabulary) -> Decoding {
        Decoding::new(vocabulary, LeadingSpace::Keep, |id, out| match vocabulary.kind(id) {
            Kind::Normal | Kind::Unused => byte_level::decode_into(vocabulary.piece(id), out),
            _ => out.extend_from_slice(vocabulary.piece(id).as_bytes()),
        })
    }

    /// Pieces with U+2581 for a space and `<0x0A>` for a byte.
    pub fn sentencepiece(vocabulary: &Vocabulary, leading_space: LeadingSpace) -> Decoding {
        Decoding::new(vocabulary, leading_space, |id, out| {
            let piece = vocabulary.piece(id);
            match (vocabulary.kind(id), byte_of_piece(piece)) {
                (Kind::Byte, Some(byte)) => out.push(byte),
                (kind, _) if is_special(kind) => out.extend_from_slice(piece.as_bytes()),
                _ => out.extend_from_slice(piece.replace(SPACE, " ").as_bytes()),
            }
        })
    }

    /// The bytes of token `id`, none beyond the vocabulary.
    pub fn bytes(&self, id: TokenId) -> &[u8] {
        let i = id as usize;
        let Some(&end) = self.ends.get(i) else { return &[] };
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.text[start as usize..end as usize]
    }
}

/// Turns ids into text as they come, holding back the bytes of a character that is not complete.
#[derive(Clone)]
pub struct Detokenizer {
    tables: Arc<Tables>,
    control: ControlTokens,
    /// Bytes of a character whose end has not come.
    pending: Vec<u8>,
    is_at_start: bool,
    /// All ids, for decoders that look at more than one token.
    ids: Vec<TokenId>,
}

impl Detokenizer {
    pub(crate) fn new(tables: Arc<Tables>) -> Detokenizer {
        Detokenizer {
            tables,
            control: ControlTokens::Skip,
            pending: Vec::new(),
            is_at_start: true,
            ids: Vec::new(),
        }
    }

    /// Shows control tokens or skips them.
    pub fn control_tokens(mut self, control: ControlTokens) -> Detokenizer {
        self.control = control;
        self
    }

    /// For text that goes on from other text: the space that starts its first word stays.
    pub fn continuing(mut self) -> Detokenizer {
        self.is_at_start = false;
        self
    }

    /// Takes one id and returns the characters that are complete by it. Should the vocabulary's decoder look at several
    /// tokens at once (`CTC`), all text comes with [`Detokenizer::finish`].
    pub fn push(&mut self, id: TokenId) -> String {
        let mut text = String::new();
        self.push_to(id, &mut text);
        text
    }

    /// Returns what is left: U+FFFD for a character whose end never came. The next text may begin.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        self.finish_to(&mut text);
        text
    }

    pub(crate) fn push_to(&mut self, id: TokenId, out: &mut String) {
        let tables = &self.tables;
        if (id as usize) >= tables.vocabulary.len() {
            return;
        }
        if self.control == ControlTokens::Skip && is_special(tables.vocabulary.kind(id)) {
            return;
        }
        if tables.decoding.needs_engine {
            self.ids.push(id);
            return;
        }
        let mut bytes = tables.decoding.bytes(id);
        if self.is_at_start && !bytes.is_empty() {
            self.is_at_start = false;
            match tables.decoding.leading_space {
                LeadingSpace::Keep => {}
                LeadingSpace::DropOne => bytes = bytes.strip_prefix(b" ").unwrap_or(bytes),
                LeadingSpace::DropInFirstToken => {
                    self.pending.extend(bytes.iter().filter(|&&byte| byte != b' '));
                    bytes = &[];
                }
            }
        }
        if self.pending.is_empty() {
            // The usual case: whole characters.
            if let Ok(text) = std::str::from_utf8(bytes) {
                out.push_str(text);
                return;
            }
        }
        self.pending.extend_from_slice(bytes);
        self.take_complete(out);
    }

    pub(crate) fn finish_to(&mut self, out: &mut String) {
        if let Engine::HuggingFace(engine) = &self.tables.engine {
            if self.tables.decoding.needs_engine {
                out.push_str(&engine.decode(&self.ids));
                self.ids.clear();
            }
        }
        if !self.pending.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
        self.is_at_start = true;
    }

    /// Moves whole characters from `pending` to `out`, and U+FFFD for what cannot become one.
    fn take_complete(&mut self, out: &mut String) {
        let mut at = 0;
        loop {
            match std::str::from_utf8(&self.pending[at..]) {
                Ok(text) => {
                    out.push_str(text);
                    self.pending.clear();
                    return;
                }
                Err(error) => {
                    let valid = at + error.valid_up_to();
                    out.push_str(std::str::from_utf8(&self.pending[at..valid]).unwrap_or_default());
                    match error.error_len() {
                        Some(n) => {
                            out.push(char::REPLACEMENT_CHARACTER);
                            at = valid + n;
                        }
                        None => {
                            self.pending.drain(..valid);
                            return;
                        }
                    }
                }
            }
        }
    }
}
