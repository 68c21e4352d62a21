//! llama2.c's `tokenizer.bin` (`tok512.bin`): the greatest length, then for each token its score, length and bytes.
//!
//! Its encoder is SentencePiece's BPE with byte fallback; the pieces are written with plain spaces, and the first
//! three are unknown, BOS and EOS. Source: `run.c` of llama2.c, `build_tokenizer` and `encode`.

use std::sync::OnceLock;

use crate::added_tokens::AddedTokens;
use crate::algorithms::{Algorithm, SentencePieceBpe};
use crate::charsmap::{DummySpace, SPACE, SentencePieceNormalizer};
use crate::detokenizer::{Decoding, LeadingSpace};
use crate::tokenizer::{Engine, SpecialIds, Tables, added_by_kind, stops};
use crate::vocabulary::{Kind, Vocabulary, byte_of_piece};
use crate::{Error, Tokenizer};

/// Reads the file's bytes; there are as many tokens as the file holds.
pub(crate) fn read(bytes: &[u8]) -> Result<Tokenizer, Error> {
    let wrong = |at: usize, expected: &str, got: String| {
        Error::field("tokenizer.bin", format!("byte {at}"), expected, got)
    };
    let mut vocabulary = Vocabulary::with_capacity(bytes.len() / 12);
    let mut at = 4;
    while at < bytes.len() || vocabulary.len() == 0 {
        let word = |at: usize| bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        let (Some(score), Some(len)) =
            (word(at).map(f32::from_le_bytes), word(at + 4).map(u32::from_le_bytes))
        else {
            return Err(wrong(
                at,
                "a score and a length",
                format!("the end of the file at byte {}", bytes.len()),
            ));
        };
        let piece = bytes.get(at + 8..).and_then(|rest| rest.get(..len as usize));
        let Some(piece) = piece else {
            return Err(wrong(at + 4, "a length that ends within the file", len.to_string()));
        };
        let Ok(piece) = std::str::from_utf8(piece) else {
            return Err(wrong(at + 8, "UTF-8", "other bytes".to_string()));
        };
        if score.is_nan() {
            return Err(wrong(at, "a score", "NaN".to_string()));
        }
        match vocabulary.len() {
            0 => vocabulary.push("<unk>", Kind::Unknown, score),
            1 => vocabulary.push("<s>", Kind::Control, score),
            2 => vocabulary.push("</s>", Kind::Control, score),
            _ if byte_of_piece(piece).is_some() => vocabulary.push(piece, Kind::Byte, score),
            _ => vocabulary.push(&piece.replace(' ', SPACE), Kind::Normal, score),
        };
        at += 8 + len as usize;
    }
    let there = |id: u32| Some(id).filter(|&id| (id as usize) < vocabulary.len());
    let ids = SpecialIds { unknown: there(0), bos: there(1), eos: there(2), ..SpecialIds::default() };
    let normalizer = SentencePieceNormalizer::plain(DummySpace::Before);
    let algorithm = Algorithm::SentencePieceBpe(SentencePieceBpe::new(&vocabulary, normalizer, ids.unknown));
    Ok(Tokenizer::new(Tables {
        stops: stops(&vocabulary, ids.bos.into_iter().chain(ids.eos)),
        decoding: Decoding::sentencepiece(&vocabulary, LeadingSpace::DropOne),
        engine: Engine::Own {
            added: AddedTokens::new(added_by_kind(&vocabulary)),
            algorithm: Box::new(algorithm),
        },
        before: ids.bos.into_iter().collect(),
        after: Vec::new(),
        ids,
        chat_template: None,
        read_from: "tokenizer.bin",
        spans: OnceLock::new(),
        vocabulary,
    }))
}
