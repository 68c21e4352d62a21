//! SentencePiece's `tokenizer.model`: a protocol buffer with the pieces and how text is prepared.
//!
//! Source: `sentencepiece_model.proto` of SentencePiece's code (arXiv:1808.06226). Only the fields that change ids are
//! read; the wire format is simple enough to need no library.

use std::sync::OnceLock;

use crate::added_tokens::AddedTokens;
use crate::algorithms::{Algorithm, SentencePieceBpe, Unigram};
use crate::charsmap::{Charsmap, DummySpace, SentencePieceNormalizer};
use crate::detokenizer::{Decoding, LeadingSpace};
use crate::tokenizer::{Engine, SpecialIds, Tables, added_by_kind, stops};
use crate::vocabulary::{Kind, Vocabulary};
use crate::{Error, TokenId, Tokenizer};

use super::beside::Beside;

/// Reads the file's bytes.
pub(crate) fn read(bytes: &[u8], beside: &Beside) -> Result<Tokenizer, Error> {
    let model = parse(bytes)?;
    let SentencePieceModel { vocabulary, model_type, mut normalizer, add_dummy_space, .. } = model;
    let merges_spaces = normalizer.merges_spaces;
    let user_defined = vocabulary.ids().filter(|&id| vocabulary.kind(id) == Kind::UserDefined);
    normalizer.keep(user_defined.map(|id| (id, vocabulary.piece(id).to_string())));
    let existing = |id: i64| TokenId::try_from(id).ok().filter(|&id| (id as usize) < vocabulary.len());
    let [unknown, bos, eos, padding] = model.special.map(existing);
    let given = beside.special_ids(&vocabulary);
    let ids = SpecialIds {
        unknown: vocabulary.ids().find(|&id| vocabulary.kind(id) == Kind::Unknown).or(unknown),
        bos: given.bos.or(bos),
        eos: given.eos.or(eos),
        padding: given.padding.or(padding),
        ..given
    };
    let algorithm = match model_type {
        1 => Algorithm::Unigram(Unigram::new(&vocabulary, normalizer, ids.unknown)),
        2 => Algorithm::SentencePieceBpe(SentencePieceBpe::new(&vocabulary, normalizer, ids.unknown)),
        other => {
            let name =
                ["", "unigram", "bpe", "word", "char"].get(other as usize).copied().unwrap_or("unknown");
            return Err(Error::UnsupportedModel {
                name: format!("{name} ({other}) in tokenizer.model"),
                supported: "unigram, bpe",
            });
        }
    };
    let leading_space = match (merges_spaces, add_dummy_space) {
        (true, _) => LeadingSpace::DropUntilText,
        (false, true) => LeadingSpace::DropOne,
        (false, false) => LeadingSpace::Keep,
    };
    // User-defined tokens are found in the prepared text, by the algorithm.
    let added = added_by_kind(&vocabulary).into_iter().filter(|token| token.is_control).collect();
    // LLaMA's own code adds BOS and T5's EOS; the file does not say, tokenizer_config.json may.
    let adds_bos = beside.flag("add_bos_token").unwrap_or(model_type == 2);
    let adds_eos = beside.flag("add_eos_token").unwrap_or(model_type == 1);
    Ok(Tokenizer::new(Tables {
        stops: stops(&vocabulary, ids.eos.into_iter().chain(ids.eot).chain(beside.stops(&vocabulary))),
        decoding: Decoding::sentencepiece(&vocabulary, leading_space),
        engine: Engine::Own { added: AddedTokens::new(added), algorithm: Box::new(algorithm) },
        before: ids.bos.filter(|_| adds_bos).into_iter().collect(),
        after: ids.eos.filter(|_| adds_eos).into_iter().collect(),
        ids,
        chat_template: beside.chat_template(),
        read_from: "tokenizer.model",
        spans: OnceLock::new(),
        vocabulary,
    }))
}

struct SentencePieceModel {
    vocabulary: Vocabulary,
    /// 1 unigram, 2 BPE, 3 words, 4 characters.
    model_type: u64,
    /// The ids of unknown, BOS, EOS and padding; -1 for none.
    special: [i64; 4],
    normalizer: SentencePieceNormalizer,
    add_dummy_space: bool,
}

fn parse(bytes: &[u8]) -> Result<SentencePieceModel, Error> {
    let mut model = SentencePieceModel {
        vocabulary: Vocabulary::with_capacity(0),
        model_type: 1,
        special: [0, 1, 2, -1],
        normalizer: SentencePieceNormalizer::plain(DummySpace::Before),
        add_dummy_space: true,
    };
    model.normalizer.merges_spaces = true;
    let mut is_suffix = false;
    for field in Message::new(bytes) {
        match field? {
            Field { number: 1, value: Wire::Bytes(piece), at } => {
                parse_piece(piece, at, &mut model.vocabulary)?
            }
            Field { number: 2, value: Wire::Bytes(trainer), .. } => {
                for field in Message::new(trainer) {
                    match field? {
                        Field { number: 3, value: Wire::Number(n), .. } => model.model_type = n,
                        Field { number: 24, value: Wire::Number(n), .. } => is_suffix = n != 0,
                        // Negative numbers are written as 64 bits, two's complement.
                        Field { number: number @ 40..=43, value: Wire::Number(n), .. } => {
                            model.special[number as usize - 40] = n as i64;
                        }
                        _ => {}
                    }
                }
            }
            Field { number: 3, value: Wire::Bytes(normalizer), .. } => {
                for field in Message::new(normalizer) {
                    match field? {
                        Field { number: 2, value: Wire::Bytes(blob), .. } => {
                            model.normalizer.charsmap = Charsmap::read(blob, "tokenizer.model")?;
                        }
                        Field { number: 3, value: Wire::Number(n), .. } => model.add_dummy_space = n != 0,
                        Field { number: 4, value: Wire::Number(n), .. } => {
                            model.normalizer.merges_spaces = n != 0
                        }
                        Field { number: 5, value: Wire::Number(0), .. } => {
                            return Err(wrong("normalizer_spec.escape_whitespaces", "true", "false"));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if model.vocabulary.len() == 0 {
        return Err(wrong("pieces", "at least one piece", "none"));
    }
    model.normalizer.dummy_space = match (model.add_dummy_space, is_suffix) {
        (false, _) => DummySpace::None,
        (true, false) => DummySpace::Before,
        (true, true) => DummySpace::After,
    };
    Ok(model)
}

fn parse_piece(bytes: &[u8], at: usize, vocabulary: &mut Vocabulary) -> Result<(), Error> {
    let (mut piece, mut score, mut kind) = ("", 0.0, Kind::Normal);
    for field in Message::new(bytes) {
        match field? {
            Field { number: 1, value: Wire::Bytes(text), .. } => {
                piece = std::str::from_utf8(text)
                    .map_err(|_| wrong(&format!("pieces at byte {at}"), "UTF-8", "other bytes"))?;
            }
            Field { number: 2, value: Wire::Float(value), .. } => score = value,
            Field { number: 3, value: Wire::Number(number), .. } => {
                kind = match number {
                    1 => Kind::Normal,
                    2 => Kind::Unknown,
                    3 => Kind::Control,
                    4 => Kind::UserDefined,
                    5 => Kind::Unused,
                    6 => Kind::Byte,
                    _ => {
                        return Err(wrong(
                            &format!("pieces at byte {at}"),
                            "a type from 1 to 6",
                            &number.to_string(),
                        ));
                    }
                }
            }
            _ => {}
        }
    }
    if score.is_nan() {
        return Err(wrong(&format!("pieces at byte {at}"), "a score", "NaN"));
    }
    vocabulary.push(piece, kind, score);
    Ok(())
}

fn wrong(field: &str, expected: &str, got: &str) -> Error {
    Error::field("tokenizer.model", field, expected, got)
}

/// One field of a message.
struct Field<'b> {
    number: u64,
    value: Wire<'b>,
    /// Where it starts in its message.
    at: usize,
}

enum Wire<'b> {
    Number(u64),
    Float(f32),
    Bytes(&'b [u8]),
    Other,
}

/// The fields of a message, in the order of the bytes.
struct Message<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Message<'b> {
    fn new(bytes: &'b [u8]) -> Message<'b> {
        Message { bytes, at: 0 }
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            number |= ((byte & 0x7F) as u64) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, n: u64) -> Option<&'b [u8]> {
        let end = self.at.checked_add(usize::try_from(n).ok()?)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn field(&mut self) -> Option<Field<'b>> {
        let at = self.at;
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Wire::Number(self.number()?),
            1 => self.take(8).map(|_| Wire::Other)?,
            2 => {
                let len = self.number()?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Float(f32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some(Field { number: tag >> 3, value, at })
    }
}

impl<'b> Iterator for Message<'b> {
    type Item = Result<Field<'b>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let at = self.at;
        Some(self.field().ok_or_else(|| {
            self.at = self.bytes.len();
            wrong(&format!("byte {at} of a message of {}", self.bytes.len()), "a whole field", "a broken one")
        }))
    }
}
