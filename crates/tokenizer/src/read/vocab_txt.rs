//! BERT's `vocab.txt`: one piece a line, its id the line's number from 0; `##` continues a word.

use std::sync::OnceLock;

use crate::added_tokens::AddedTokens;
use crate::algorithms::{Algorithm, WordPiece, WordPieceOptions};
use crate::detokenizer::{Decoding, LeadingSpace, clean_up};
use crate::tokenizer::{Engine, SpecialIds, Tables, added_by_kind, stops};
use crate::vocabulary::{Kind, Vocabulary};
use crate::{Error, Tokenizer};

use super::beside::Beside;

/// Reads the file's bytes. Whether capitals are kept is in `tokenizer_config.json`; without it they are not.
pub(crate) fn read(bytes: &[u8], beside: &Beside) -> Result<Tokenizer, Error> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Error::field("vocab.txt", format!("byte {}", error.valid_up_to()), "UTF-8", "other bytes")
    })?;
    let mut vocabulary = Vocabulary::with_capacity(bytes.len() / 8);
    for piece in text.lines() {
        let kind = match piece {
            "[UNK]" => Kind::Unknown,
            "[PAD]" | "[CLS]" | "[SEP]" | "[MASK]" => Kind::Control,
            _ => Kind::Normal,
        };
        vocabulary.push(piece, kind, 0.0);
    }
    let (unknown, class, separator) =
        (vocabulary.id("[UNK]"), vocabulary.id("[CLS]"), vocabulary.id("[SEP]"));
    let (Some(unknown), Some(class), Some(separator)) = (unknown, class, separator) else {
        let got = format!("{} lines without one of them", vocabulary.len());
        return Err(Error::field("vocab.txt", "the file", "lines [UNK], [CLS] and [SEP]", got));
    };
    let lowercase = beside.flag("do_lower_case").unwrap_or(true);
    let strips_accents = beside.flag("strip_accents").unwrap_or(lowercase);
    let mut word_piece = WordPiece::new(WordPieceOptions { lowercase, strips_accents, unknown });
    for id in vocabulary.ids().filter(|&id| vocabulary.kind(id) != Kind::Control) {
        match vocabulary.piece(id).strip_prefix("##") {
            Some(piece) => word_piece.push_continuing(piece, id),
            None => word_piece.push_initial(vocabulary.piece(id), id),
        }
    }
    let ids = SpecialIds {
        unknown: Some(unknown),
        class: Some(class),
        separator: Some(separator),
        padding: vocabulary.id("[PAD]"),
        mask: vocabulary.id("[MASK]"),
        ..SpecialIds::default()
    };
    let decoding = Decoding::new(&vocabulary, LeadingSpace::DropOne, |id, out| {
        let piece = vocabulary.piece(id);
        match piece.strip_prefix("##") {
            Some(piece) => out.extend_from_slice(piece.as_bytes()),
            None => out.extend_from_slice(clean_up(&format!(" {piece}")).as_bytes()),
        }
    });
    Ok(Tokenizer::new(Tables {
        stops: stops(&vocabulary, beside.stops(&vocabulary)),
        decoding,
        engine: Engine::Own {
            added: AddedTokens::new(added_by_kind(&vocabulary)),
            algorithm: Box::new(Algorithm::WordPiece(word_piece)),
        },
        before: vec![class],
        after: vec![separator],
        ids,
        chat_template: None,
        read_from: "vocab.txt",
        spans: OnceLock::new(),
        vocabulary,
    }))
}
