//! Where in the text each token stands, and how two texts are put into one sequence.

use std::ops::Range;
use std::sync::Arc;

use serde_json::json;

use crate::algorithms::Algorithm;
use crate::hugging_face::HuggingFace;
use crate::tokenizer::Engine;
use crate::{Error, Special, TokenId, Tokenizer};

/// A token and the part of the text that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSpan {
    /// Its id.
    pub id: TokenId,
    /// Bytes of the text; empty for what stands for none of them.
    pub bytes: Range<usize>,
    /// The number of the word (or other piece that the tokenizer cuts text into first) that it is of.
    pub word: u32,
}

/// Two texts in one sequence, as the model was trained with pairs: `[CLS] a [SEP] b [SEP]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The tokens of both, and those around them.
    pub ids: Vec<TokenId>,
    /// The segment of each token.
    pub segments: Vec<u8>,
    /// Where the first text's tokens stand.
    pub first: Range<usize>,
    /// Where the second text's tokens stand.
    pub second: Range<usize>,
}

impl Tokenizer {
    /// The ids of `text`, without those that mark its beginning and end, each with its place in the text.
    ///
    /// Errors: a vocabulary that was not read from `tokenizer.json` or `vocab.txt`.
    pub fn encode_spans(&self, text: &str, special: Special) -> Result<Vec<TokenSpan>, Error> {
        let refused = || Error::NoSpans { read_from: self.read_from() };
        match &self.tables.engine {
            Engine::HuggingFace(engine) => engine.encode_spans(text, special).ok_or_else(refused),
            Engine::Own { .. } => {
                let tables = &self.tables;
                let engine = tables.spans.get_or_init(|| word_pieces(self).map(Arc::new));
                engine.as_ref().and_then(|engine| engine.encode_spans(text, special)).ok_or_else(refused)
            }
        }
    }

    /// Whether pieces that go on with a word are marked as such, as `##ing` is.
    pub fn marks_continuations(&self) -> bool {
        match &self.tables.engine {
            Engine::HuggingFace(engine) => engine.marks_continuations(),
            Engine::Own { algorithm, .. } => matches!(&**algorithm, Algorithm::WordPiece(_)),
        }
    }

    /// `ids` with the tokens that the model wants before and after a text.
    pub fn wrap(&self, ids: &[TokenId]) -> Vec<TokenId> {
        [&self.tables.before, ids, &self.tables.after].concat()
    }

    /// Tokens that [`wrap`](Tokenizer::wrap) adds before a text, and after it.
    pub fn n_around(&self) -> (usize, usize) {
        (self.tables.before.len(), self.tables.after.len())
    }

    /// The sequence of two texts; `None` if the vocabulary does not say how pairs are put together.
    pub fn join(&self, a: &[TokenId], b: &[TokenId]) -> Option<Pair> {
        let (parts, segments) = match &self.tables.engine {
            Engine::HuggingFace(engine) => engine.pair_parts()?,
            Engine::Own { .. } => {
                let (before, after) = (self.tables.before.clone(), self.tables.after.clone());
                if self.class().is_none() || after.is_empty() {
                    return None;
                }
                let n_last = after.len();
                let segments = [vec![0; before.len()], vec![0; n_last], vec![1; n_last]];
                ([before, after.clone(), after], (segments, [0, 1]))
            }
        };
        let ([before, between, after], ([of_before, of_between, of_after], of_texts)) = (parts, segments);
        let first = before.len()..before.len() + a.len();
        let second = first.end + between.len()..first.end + between.len() + b.len();
        Some(Pair {
            ids: [&before, a, &between, b, &after].concat(),
            segments: [
                &of_before[..],
                &vec![of_texts[0]; a.len()],
                &of_between,
                &vec![of_texts[1]; b.len()],
                &of_after,
            ]
            .concat(),
            first,
            second,
        })
    }
}

/// The engine for places that a `vocab.txt` stands for.
fn word_pieces(tokenizer: &Tokenizer) -> Option<HuggingFace> {
    let Engine::Own { algorithm, .. } = &tokenizer.tables.engine else { return None };
    let Algorithm::WordPiece(word_piece) = &**algorithm else { return None };
    if tokenizer.read_from() != "vocab.txt" {
        return None;
    }
    let (options, vocabulary) = (word_piece.options(), &tokenizer.tables.vocabulary);
    let pieces: serde_json::Map<String, serde_json::Value> =
        vocabulary.ids().map(|id| (vocabulary.piece(id).to_string(), id.into())).collect();
    let special = vocabulary.ids().filter(|&id| tokenizer.is_special(id)).map(|id| {
        json!({
            "id": id, "content": vocabulary.piece(id), "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false,
        })
    });
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "post_processor": null, "decoder": null,
        "added_tokens": special.collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": options.strips_accents, "lowercase": options.lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece", "vocab": pieces, "unk_token": vocabulary.piece(options.unknown),
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        },
    });
    HuggingFace::new(tokenizers::Tokenizer::from_bytes(file.to_string()).ok()?, None).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
    }

    #[test]
    fn tokens_of_both_kinds_of_word_pieces_stand_at_the_same_places() {
        let from_json = Tokenizer::from_file(&fixture("encode/bert-tags/tokenizer.json")).unwrap();
        let from_lines = Tokenizer::from_file(&fixture("encode/bert-tags/vocab.txt")).unwrap();
        for text in ["", "The Cat sat,  on THE mat.", "caf\u{e9} 我 cat", "xyz [MASK] cats"] {
            let spans = from_json.encode_spans(text, Special::Literal).unwrap();
            let ids: Vec<u32> = spans.iter().map(|span| span.id).collect();
            assert_eq!(ids, from_json.encode(text, Special::Literal), "{text}");
            assert_eq!(spans, from_lines.encode_spans(text, Special::Literal).unwrap(), "{text}");
        }
        let spans = from_json.encode_spans("The cats", Special::Literal).unwrap();
        let places: Vec<_> = spans.iter().map(|span| (span.bytes.clone(), span.word)).collect();
        assert_eq!(places, [(0..3, 0), (4..7, 1), (7..8, 1)]);
    }

    #[test]
    fn pairs_are_put_together_as_the_file_says() {
        for file in ["encode/bert-tags/tokenizer.json", "encode/bert-tags/vocab.txt"] {
            let tokenizer = Tokenizer::from_file(&fixture(file)).unwrap();
            let (class, separator) = (tokenizer.class().unwrap(), tokenizer.separator().unwrap());
            let pair = tokenizer.join(&[7, 8], &[9]).unwrap();
            assert_eq!(pair.ids, [class, 7, 8, separator, 9, separator], "{file}");
            assert_eq!(pair.segments, [0, 0, 0, 0, 1, 1]);
            assert_eq!((pair.first, pair.second), (1..3, 4..5));
            assert_eq!(tokenizer.wrap(&[7]), [class, 7, separator]);
        }
    }
}
