//! `tokenizer.json`: the crate `tokenizers` encodes; how ids become text is worked out here, so that it can be done
//! token by token.

use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::tokenizer::Model;

use super::beside::Beside;
use std::sync::OnceLock;

use crate::byte_level;
use crate::charsmap::Charsmap;
use crate::detokenizer::{Decoding, LeadingSpace, clean_up};
use crate::hugging_face::HuggingFace;
use crate::tokenizer::{Engine, Tables, stops};
use crate::vocabulary::{Kind, Vocabulary, byte_of_piece};
use crate::{Error, TokenId, Tokenizer};

/// Reads the file's bytes.
pub(crate) fn read(bytes: &[u8], beside: &Beside) -> Result<Tokenizer, Error> {
    let head: Head =
        serde_json::from_slice(bytes).map_err(|error| Error::TokenizerJson { reason: error.to_string() })?;
    check_charsmaps([&head.normalizer, &head.pre_tokenizer, &head.post_processor, &head.decoder])?;
    let prefix =
        head.model.as_ref().and_then(|model| model.continuing_subword_prefix.as_str()).unwrap_or_default();
    check_merges(bytes, prefix.len())?;
    let tokenizer = tokenizers::Tokenizer::from_bytes(bytes);
    let tokenizer = tokenizer.map_err(|error| Error::TokenizerJson { reason: error.to_string() })?;
    let unknown = head.model.and_then(|model| u32::try_from(model.unk_id.as_u64()?).ok());
    from_engine(tokenizer, unknown, beside, "tokenizer.json")
}

/// The file without its vocabulary. The crate panics where JSON is broken inside one of these parts, and looks up
/// tables without checking their bounds; so they are read here first.
#[derive(serde::Deserialize)]
struct Head {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    model: Option<HeadModel>,
}

#[derive(serde::Deserialize)]
struct HeadModel {
    /// The unknown token of a unigram model.
    #[serde(default)]
    unk_id: Value,
    #[serde(default)]
    continuing_subword_prefix: Value,
}

/// Refuses merges whose second part is shorter than the prefix that the crate takes off it.
fn check_merges(bytes: &[u8], prefix_len: usize) -> Result<(), Error> {
    if prefix_len == 0 {
        return Ok(());
    }
    let file: Value =
        serde_json::from_slice(bytes).map_err(|error| Error::TokenizerJson { reason: error.to_string() })?;
    let merges = file["model"]["merges"].as_array().map_or(&[][..], Vec::as_slice);
    for (i, merge) in merges.iter().enumerate() {
        // Two strings, or one with a space.
        let second = merge[1].as_str().or_else(|| merge.as_str()?.split(' ').nth(1));
        if second.is_some_and(|second| second.get(prefix_len..).is_none()) {
            let expected =
                format!("a second part of {prefix_len} bytes or more, as continuing_subword_prefix is");
            return Err(Error::field(
                "tokenizer.json",
                format!("model.merges[{i}]"),
                expected,
                merge.to_string(),
            ));
        }
    }
    Ok(())
}

/// Refuses tables of replacements that the crate would look up outside their bounds.
fn check_charsmaps(parts: [&Value; 4]) -> Result<(), Error> {
    let mut open = parts.to_vec();
    while let Some(value) = open.pop() {
        match value {
            Value::Array(values) => open.extend(values),
            Value::Object(object) => {
                if let Some(Value::String(text)) = object.get("precompiled_charsmap") {
                    let wrong = |expected: &str, got: &str| {
                        Error::field("tokenizer.json", "normalizer.precompiled_charsmap", expected, got)
                    };
                    let blob = from_base64(text).ok_or_else(|| wrong("base64", "other text"))?;
                    if !Charsmap::read(&blob, "tokenizer.json")?.is_sound() {
                        return Err(wrong("a table whose indices are inside it", "one that points outside"));
                    }
                }
                open.extend(object.values());
            }
            _ => {}
        }
    }
    Ok(())
}

/// The bytes of a text in base64 with the usual alphabet.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for &c in group {
            let value = match c {
                b'A'..=b'Z' => c - b'A',
                b'a'..=b'z' => c - b'a' + 26,
                b'0'..=b'9' => c - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | value as u32;
        }
        bits <<= 6 * (4 - group.len());
        let n_bytes = group.len() * 6 / 8;
        bytes.extend_from_slice(&bits.to_be_bytes()[1..1 + n_bytes]);
    }
    Some(bytes)
}

/// Wraps a tokenizer of the crate `tokenizers`; `unknown` is the unknown token of a unigram model.
pub(crate) fn from_engine(
    tokenizer: tokenizers::Tokenizer,
    unknown: Option<TokenId>,
    beside: &Beside,
    read_from: &'static str,
) -> Result<Tokenizer, Error> {
    check_model(tokenizer.get_model())?;
    let engine = HuggingFace::new(tokenizer, unknown)?;
    let vocabulary = vocabulary(engine.tokenizer(), unknown)?;
    let (before, after) = engine.before_and_after()?;
    let decoder = serde_json::to_value(engine.tokenizer().get_decoder()).unwrap_or_default();
    let mut ids = beside.special_ids(&vocabulary);
    let spelled = |text: &str| vocabulary.id(text).filter(|&id| vocabulary.kind(id) != Kind::Normal);
    ids.unknown = ids.unknown.or_else(|| vocabulary.ids().find(|&id| vocabulary.kind(id) == Kind::Unknown));
    ids.bos = ids.bos.or_else(|| spelled("<s>")).or_else(|| spelled("<|begin_of_text|>"));
    ids.eos = ids.eos.or_else(|| spelled("</s>")).or_else(|| spelled("<|endoftext|>"));
    ids.class = ids.class.or_else(|| spelled("[CLS]"));
    ids.separator = ids.separator.or_else(|| spelled("[SEP]"));
    ids.padding = ids.padding.or_else(|| spelled("[PAD]"));
    ids.mask = ids.mask.or_else(|| spelled("[MASK]"));
    Ok(Tokenizer::new(Tables {
        stops: stops(&vocabulary, ids.eos.into_iter().chain(ids.eot).chain(beside.stops(&vocabulary))),
        decoding: decoding(&vocabulary, &decoder),
        engine: Engine::HuggingFace(Box::new(engine)),
        before,
        after,
        ids,
        chat_template: beside.chat_template(),
        read_from,
        spans: OnceLock::new(),
        vocabulary,
    }))
}

/// What would make encoding fail, or give other ids each time.
fn check_model(model: &ModelWrapper) -> Result<(), Error> {
    let wrong = |field: &str, expected: &str, got: String| {
        Err(Error::field("tokenizer.json", format!("model.{field}"), expected, got))
    };
    let unknown = match model {
        ModelWrapper::BPE(bpe) => {
            if bpe.dropout.is_some_and(|dropout| dropout != 0.0) {
                return wrong("dropout", "none, since it makes ids random", format!("{:?}", bpe.dropout));
            }
            bpe.unk_token.clone()
        }
        ModelWrapper::WordPiece(word_piece) => Some(word_piece.unk_token.clone()),
        ModelWrapper::WordLevel(word_level) => Some(word_level.unk_token.clone()),
        ModelWrapper::Unigram(_) => None,
    };
    match unknown {
        Some(token) if model.token_to_id(&token).is_none() => {
            wrong("unk_token", "a token of the vocabulary", format!("{token:?}"))
        }
        _ => Ok(()),
    }
}

fn vocabulary(tokenizer: &tokenizers::Tokenizer, unknown_id: Option<TokenId>) -> Result<Vocabulary, Error> {
    let mut pieces: Vec<(u32, String)> =
        tokenizer.get_vocab(true).into_iter().map(|(piece, id)| (id, piece)).collect();
    pieces.sort_unstable();
    let n = pieces.last().map_or(0, |last| last.0 as usize + 1);
    // Gaps are allowed, but a few tokens with huge ids would fill the memory.
    if n > pieces.len() * 2 + (1 << 16) {
        let expected = format!("ids for {} tokens without large gaps", pieces.len());
        return Err(Error::field("tokenizer.json", "model.vocab", expected, format!("id {}", n - 1)));
    }
    let added = tokenizer.get_added_tokens_decoder();
    let (has_bytes, unknown) = match tokenizer.get_model() {
        ModelWrapper::BPE(bpe) => (bpe.byte_fallback, bpe.unk_token.clone()),
        ModelWrapper::Unigram(_) => (true, None),
        ModelWrapper::WordPiece(word_piece) => (false, Some(word_piece.unk_token.clone())),
        ModelWrapper::WordLevel(word_level) => (false, Some(word_level.unk_token.clone())),
    };
    let mut vocabulary = Vocabulary::with_capacity(n);
    for (id, piece) in pieces {
        while vocabulary.len() < id as usize {
            vocabulary.push("", Kind::Unused, 0.0);
        }
        if vocabulary.len() > id as usize {
            // Two texts with one id: the first in order of the alphabet names it.
            continue;
        }
        let kind = match added.get(&id) {
            _ if unknown_id == Some(id) || unknown.as_deref() == Some(piece.as_str()) => Kind::Unknown,
            Some(token) if token.special => Kind::Control,
            Some(_) => Kind::UserDefined,
            None if has_bytes && byte_of_piece(&piece).is_some() => Kind::Byte,
            None => Kind::Normal,
        };
        vocabulary.push(&piece, kind, 0.0);
    }
    Ok(vocabulary)
}

/// What a decoder does to one token.
enum Step {
    Replace(String, String),
    ByteFallback,
    ByteLevel,
    /// Put before every token but those that start with the prefix, which goes.
    WordPiece {
        prefix: String,
        cleans_up: bool,
    },
    Strip {
        content: char,
        start: usize,
        stop: usize,
    },
}

/// Works out the bytes of each token, if the decoder looks at one at a time; else leaves it to the engine.
fn decoding(vocabulary: &Vocabulary, decoder: &Value) -> Decoding {
    let Some((steps, leading_space)) = steps(decoder) else {
        let mut decoding = Decoding::new(vocabulary, LeadingSpace::Keep, |id, out| {
            out.extend_from_slice(vocabulary.piece(id).as_bytes());
        });
        decoding.needs_engine = true;
        return decoding;
    };
    Decoding::new(vocabulary, leading_space, |id, out| {
        let mut piece = vocabulary.piece(id).to_string();
        for step in &steps {
            match step {
                Step::Replace(from, to) => piece = piece.replace(from, to),
                Step::ByteFallback => {
                    if let Some(byte) = byte_of_piece(&piece) {
                        out.push(byte);
                        return;
                    }
                }
                Step::ByteLevel => return byte_level::decode_into(&piece, out),
                Step::WordPiece { prefix, cleans_up } => {
                    piece = match piece.strip_prefix(prefix.as_str()) {
                        Some(rest) if !prefix.is_empty() => rest.to_string(),
                        _ => format!(" {piece}"),
                    };
                    if *cleans_up {
                        piece = clean_up(&piece);
                    }
                }
                Step::Strip { content, start, stop } => {
                    let mut rest = piece.as_str();
                    (0..*start).for_each(|_| rest = rest.strip_prefix(*content).unwrap_or(rest));
                    (0..*stop).for_each(|_| rest = rest.strip_suffix(*content).unwrap_or(rest));
                    piece = rest.to_string();
                }
            }
        }
        out.extend_from_slice(piece.as_bytes());
    })
}

/// The steps of a decoder, or `None` if one of them is not done token by token.
fn steps(decoder: &Value) -> Option<(Vec<Step>, LeadingSpace)> {
    let parts = match decoder["type"].as_str() {
        // Without a decoder the tokens are joined with spaces.
        None => {
            let join = Step::WordPiece { prefix: String::new(), cleans_up: false };
            return Some((vec![join], LeadingSpace::DropOne));
        }
        Some("Sequence") => decoder["decoders"].as_array()?.iter().collect(),
        Some(_) => vec![decoder],
    };
    let (mut steps, mut leading_space, mut is_fused) = (Vec::new(), LeadingSpace::Keep, false);
    for part in parts {
        if is_fused {
            // After the tokens are one text, only the space at its beginning can go.
            let is_one_space = part["content"] == " " && part["start"] == 1 && part["stop"] == 0;
            if part["type"] != "Strip" || !is_one_space || leading_space != LeadingSpace::Keep {
                return None;
            }
            leading_space = LeadingSpace::DropOne;
            continue;
        }
        match part["type"].as_str()? {
            "Fuse" => is_fused = true,
            "ByteFallback" => steps.push(Step::ByteFallback),
            "ByteLevel" => {
                steps.push(Step::ByteLevel);
                is_fused = true;
            }
            "Replace" => {
                let from = part["pattern"]["String"].as_str()?.to_string();
                steps.push(Step::Replace(from, part["content"].as_str()?.to_string()));
            }
            "Strip" => {
                let content = part["content"].as_str()?.chars().next()?;
                let count = |name: &str| part[name].as_u64().map(|n| n as usize);
                steps.push(Step::Strip { content, start: count("start")?, stop: count("stop")? });
            }
            "Metaspace" => {
                let replacement = part["replacement"].as_str()?.to_string();
                if part["prepend_scheme"] != "never" {
                    leading_space = LeadingSpace::DropInFirstToken;
                }
                steps.push(Step::Replace(replacement, " ".to_string()));
            }
            "WordPiece" if steps.is_empty() => {
                let (prefix, cleans_up) = (part["prefix"].as_str()?.to_string(), part["cleanup"].as_bool()?);
                steps.push(Step::WordPiece { prefix, cleans_up });
                leading_space = LeadingSpace::DropOne;
            }
            _ => return None,
        }
    }
    Some((steps, leading_space))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_with_and_without_padding() {
        for (text, bytes) in
            [("", &b""[..]), ("TQ==", b"M"), ("TWE=", b"Ma"), ("TWFu", b"Man"), ("TWFuTQ", b"ManM")]
        {
            assert_eq!(from_base64(text).as_deref(), Some(bytes));
        }
        assert_eq!(from_base64("T-"), None);
    }

    #[test]
    fn a_table_of_replacements_that_points_outside_is_refused() {
        // A table of four bytes of units, of which the root leads far away.
        let json = br#"{"normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAAD///8="}}"#;
        let error = read(json, &Beside::default()).unwrap_err().to_string();
        assert!(
            error.contains("precompiled_charsmap: expected a table whose indices are inside it"),
            "{error}"
        );
    }

    #[test]
    fn a_merge_shorter_than_the_prefix_is_refused() {
        let json = br###"{"model": {"type": "BPE", "continuing_subword_prefix": "##", "vocab": {"a": 0, "b": 1, "ab": 2},
            "merges": [["a", "b"]]}}"###;
        let error = read(json, &Beside::default()).unwrap_err().to_string();
        assert!(error.contains("model.merges[0]: expected a second part of 2 bytes"), "{error}");
    }
}
