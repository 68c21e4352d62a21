//! GPT-2's own two files: `vocab.json` (piece to id, in the byte alphabet) and `merges.txt`.

use std::collections::BTreeMap;

use std::sync::OnceLock;

use crate::added_tokens::AddedTokens;
use crate::algorithms::{Algorithm, Bpe, BpeOptions};
use crate::detokenizer::Decoding;
use crate::pre_tokenize;
use crate::tokenizer::{Engine, Tables, added_by_kind, stops};
use crate::vocabulary::{Kind, Vocabulary};
use crate::{Error, Tokenizer};

use super::beside::Beside;

/// Reads the bytes of both files. `<|endoftext|>` and what the files beside name are control tokens.
pub(crate) fn read(vocab: &[u8], merges: &[u8], beside: &Beside) -> Result<Tokenizer, Error> {
    let ids: BTreeMap<String, u32> = serde_json::from_slice(vocab)
        .map_err(|error| Error::field("vocab.json", "the file", "an object of ids", error.to_string()))?;
    let mut pieces: Vec<(u32, &str)> = ids.iter().map(|(piece, &id)| (id, piece.as_str())).collect();
    pieces.sort_unstable();
    let control = beside.special_tokens();
    let mut vocabulary = Vocabulary::with_capacity(pieces.len());
    for (i, &(id, piece)) in pieces.iter().enumerate() {
        if id as usize != i {
            let expected = format!("the ids 0 to {}, each once", pieces.len() - 1);
            return Err(Error::field("vocab.json", format!("{piece:?}"), expected, id.to_string()));
        }
        let is_control = piece == "<|endoftext|>" || control.contains(&piece);
        vocabulary.push(piece, if is_control { Kind::Control } else { Kind::Normal }, 0.0);
    }
    let merges = std::str::from_utf8(merges).map_err(|error| {
        Error::field("merges.txt", format!("byte {}", error.valid_up_to()), "UTF-8", "other bytes")
    })?;
    // The first line names the version.
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
    let row = pre_tokenize::row("gpt-2")?;
    let algorithm =
        Algorithm::Bpe(Bpe::new(&vocabulary, merges.into_iter(), BpeOptions { row, unknown: None })?);
    let mut ids = beside.special_ids(&vocabulary);
    let end = vocabulary.id("<|endoftext|>");
    (ids.bos, ids.eos) = (ids.bos.or(end), ids.eos.or(end));
    let adds_bos = beside.flag("add_bos_token").unwrap_or(false);
    Ok(Tokenizer::new(Tables {
        stops: stops(&vocabulary, ids.eos.into_iter().chain(beside.stops(&vocabulary))),
        decoding: Decoding::byte_level(&vocabulary),
        engine: Engine::Own {
            added: AddedTokens::new(added_by_kind(&vocabulary)),
            algorithm: Box::new(algorithm),
        },
        before: ids.bos.filter(|_| adds_bos).into_iter().collect(),
        after: Vec::new(),
        ids,
        chat_template: beside.chat_template(),
        read_from: "vocab.json and merges.txt",
        spans: OnceLock::new(),
        vocabulary,
    }))
}
