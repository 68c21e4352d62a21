//! The vocabulary inside a GGUF file: the keys `tokenizer.ggml.*`.
//!
//! Defaults for absent keys are those of llama.cpp, since that is whom the files are written for.

use rhetor_formats::{Array, Metadata, Strings};

use std::sync::OnceLock;

use crate::TokenId;
use crate::added_tokens::AddedTokens;
use crate::algorithms::{Algorithm, Bpe, BpeOptions, SentencePieceBpe, Unigram, WordPiece, WordPieceOptions};
use crate::charsmap::{Charsmap, DummySpace, SPACE, SentencePieceNormalizer};
use crate::detokenizer::{Decoding, LeadingSpace, clean_up};
use crate::pre_tokenize::{self, Symbols};
use crate::tokenizer::{Engine, SpecialIds, Tables, added_by_kind, stops};
use crate::vocabulary::{Kind, Vocabulary};
use crate::{Error, Tokenizer};

const SUPPORTED: &str = "gpt2, gemma4, llama, t5, bert";

/// Reads the vocabulary out of `metadata`.
pub(crate) fn read(metadata: &Metadata) -> Result<Tokenizer, Error> {
    let keys = Keys(metadata);
    let model = metadata.require_str("tokenizer.ggml.model")?;
    let vocabulary = keys.vocabulary()?;
    match model {
        "gpt2" | "gemma4" => bpe(keys, model, vocabulary),
        "llama" => sentencepiece_bpe(keys, vocabulary),
        "t5" => unigram(keys, vocabulary),
        "bert" => word_piece(keys, vocabulary),
        _ => Err(Error::UnsupportedModel { name: model.to_string(), supported: SUPPORTED }),
    }
}

fn bpe(keys: Keys, model: &str, vocabulary: Vocabulary) -> Result<Tokenizer, Error> {
    let name =
        if model == "gemma4" { "gemma4" } else { keys.0.get_str("tokenizer.ggml.pre")?.unwrap_or("default") };
    let row = pre_tokenize::row(name)?;
    let Some(merges) = keys.0.get_strings("tokenizer.ggml.merges")? else {
        return Err(keys.wrong("tokenizer.ggml.merges", "an array of strings", "nothing"));
    };
    let ids = keys.special_ids(&vocabulary, SpecialIds::default())?;
    let options = BpeOptions { row, unknown: None };
    let algorithm = Algorithm::Bpe(Bpe::new(&vocabulary, merges.iter(), options)?);
    let decoding = match row.symbols {
        Symbols::Bytes => Decoding::byte_level(&vocabulary),
        Symbols::Characters => Decoding::sentencepiece(&vocabulary, LeadingSpace::Keep),
    };
    // Gemma was trained with BOS, and files that say otherwise are wrong.
    let adds_bos =
        (row.symbols == Symbols::Characters && row.adds_bos) || keys.flag("add_bos_token", row.adds_bos)?;
    let ends =
        Ends { bos: adds_bos.then_some(ids.bos), eos: keys.flag("add_eos_token", false)?.then_some(ids.eos) };
    keys.finish(vocabulary, algorithm, decoding, ids, ends)
}

fn sentencepiece_bpe(keys: Keys, vocabulary: Vocabulary) -> Result<Tokenizer, Error> {
    let default = SpecialIds { bos: Some(1), eos: Some(2), unknown: Some(0), ..SpecialIds::default() };
    let ids = keys.special_ids(&vocabulary, default)?;
    let has_space = keys.flag("add_space_prefix", true)?;
    let dummy_space = if has_space { DummySpace::Before } else { DummySpace::None };
    let normalizer = SentencePieceNormalizer::plain(dummy_space);
    let algorithm = Algorithm::SentencePieceBpe(SentencePieceBpe::new(&vocabulary, normalizer, ids.unknown));
    let decoding = Decoding::sentencepiece(&vocabulary, leading_space(has_space));
    let ends = Ends {
        bos: keys.flag("add_bos_token", true)?.then_some(ids.bos),
        eos: keys.flag("add_eos_token", false)?.then_some(ids.eos),
    };
    keys.finish(vocabulary, algorithm, decoding, ids, ends)
}

fn unigram(keys: Keys, vocabulary: Vocabulary) -> Result<Tokenizer, Error> {
    let default = SpecialIds { eos: Some(1), unknown: Some(2), padding: Some(0), ..SpecialIds::default() };
    let ids = keys.special_ids(&vocabulary, default)?;
    let has_space = keys.flag("add_space_prefix", true)?;
    let mut normalizer =
        SentencePieceNormalizer::plain(if has_space { DummySpace::Before } else { DummySpace::None });
    normalizer.merges_spaces = keys.flag("remove_extra_whitespaces", false)?;
    normalizer.charsmap = keys.charsmap()?;
    let user_defined = vocabulary.ids().filter(|&id| vocabulary.kind(id) == Kind::UserDefined);
    normalizer.keep(user_defined.map(|id| (id, vocabulary.piece(id).to_string())));
    let algorithm = Algorithm::Unigram(Unigram::new(&vocabulary, normalizer, ids.unknown));
    let decoding = Decoding::sentencepiece(&vocabulary, leading_space(has_space));
    let ends = Ends {
        bos: keys.flag("add_bos_token", false)?.then_some(ids.bos),
        eos: keys.flag("add_eos_token", true)?.then_some(ids.eos),
    };
    keys.finish(vocabulary, algorithm, decoding, ids, ends)
}

/// GGUF writes a piece that starts a word with U+2581 and one that continues it without `##`.
fn word_piece(keys: Keys, vocabulary: Vocabulary) -> Result<Tokenizer, Error> {
    let default = SpecialIds {
        bos: Some(101),
        unknown: Some(100),
        separator: Some(102),
        padding: Some(0),
        mask: Some(103),
        ..SpecialIds::default()
    };
    let mut ids = keys.special_ids(&vocabulary, default)?;
    // The files have `cls_token_id`, which is BOS by another name.
    ids.class = ids.class.or(ids.bos);
    let Some(unknown) = ids.unknown else {
        return Err(keys.wrong("tokenizer.ggml.unknown_token_id", "an id of the vocabulary", "nothing"));
    };
    let lowercase = keys.flag("normalizer.lowercase", true)?;
    let strips_accents = keys.flag("normalizer.strip_accents", lowercase)?;
    let mut word_piece = WordPiece::new(WordPieceOptions { lowercase, strips_accents, unknown });
    for id in vocabulary.ids().filter(|&id| vocabulary.kind(id) == Kind::Normal) {
        match vocabulary.piece(id).strip_prefix(SPACE) {
            Some(piece) => word_piece.push_initial(piece, id),
            None => word_piece.push_continuing(vocabulary.piece(id), id),
        }
    }
    let decoding = Decoding::new(&vocabulary, LeadingSpace::DropOne, |id, out| {
        out.extend_from_slice(clean_up(&vocabulary.piece(id).replace(SPACE, " ")).as_bytes());
    });
    let ends = Ends { bos: Some(ids.class), eos: Some(ids.separator) };
    keys.finish(vocabulary, Algorithm::WordPiece(word_piece), decoding, ids, ends)
}

fn leading_space(has_space: bool) -> LeadingSpace {
    if has_space { LeadingSpace::DropOne } else { LeadingSpace::Keep }
}

/// What is set before and after a text; the inner `None` is a token that the file wants but does not name.
struct Ends {
    bos: Option<Option<TokenId>>,
    eos: Option<Option<TokenId>>,
}

/// The keys of a file, read with llama.cpp's defaults.
#[derive(Clone, Copy)]
struct Keys<'m>(&'m Metadata);

impl Keys<'_> {
    fn wrong(&self, key: &str, expected: impl Into<String>, got: impl Into<String>) -> Error {
        Error::field(self.0.file().display().to_string(), key, expected, got)
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, Error> {
        Ok(self.0.get_bool(&format!("tokenizer.ggml.{name}"))?.unwrap_or(default))
    }

    fn vocabulary(&self) -> Result<Vocabulary, Error> {
        let Some(pieces) = self.0.get_strings("tokenizer.ggml.tokens")? else {
            return Err(self.wrong("tokenizer.ggml.tokens", "an array of strings", "nothing"));
        };
        let scores = self.numbers("tokenizer.ggml.scores", pieces)?;
        let kinds = self.numbers("tokenizer.ggml.token_type", pieces)?;
        let mut vocabulary = Vocabulary::with_capacity(pieces.len());
        for (i, piece) in pieces.iter().enumerate() {
            let kind = match kinds.as_ref().map(|kinds| kinds[i] as i64) {
                None | Some(1) => Kind::Normal,
                Some(2) => Kind::Unknown,
                Some(3) => Kind::Control,
                Some(4) => Kind::UserDefined,
                Some(6) => Kind::Byte,
                // 5, and 0 for undefined ones.
                Some(0 | 5) => Kind::Unused,
                Some(other) => {
                    let key = format!("tokenizer.ggml.token_type[{i}]");
                    return Err(self.wrong(&key, "a number from 0 to 6", other.to_string()));
                }
            };
            let score = scores.as_ref().map_or(0.0, |scores| scores[i]);
            if score.is_nan() {
                return Err(self.wrong(&format!("tokenizer.ggml.scores[{i}]"), "a number", "NaN"));
            }
            vocabulary.push(piece, kind, score);
        }
        Ok(vocabulary)
    }

    /// One number for each piece, if the key exists.
    fn numbers(&self, key: &str, pieces: &Strings) -> Result<Option<Vec<f32>>, Error> {
        let numbers = match self.0.get_array(key)? {
            Some(Array::F32(numbers)) => numbers.clone(),
            Some(Array::I32(numbers)) => numbers.iter().map(|&n| n as f32).collect(),
            Some(_) => self.0.get_f32s(key)?.unwrap_or_default(),
            None => return Ok(None),
        };
        if numbers.len() != pieces.len() {
            let (expected, got) = (pieces.len().to_string(), numbers.len().to_string());
            return Err(self.wrong(key, format!("{expected} values, one for each token"), got));
        }
        Ok(Some(numbers))
    }

    fn charsmap(&self) -> Result<Charsmap, Error> {
        let key = "tokenizer.ggml.precompiled_charsmap";
        let bytes: Vec<u8> = match self.0.get_array(key)? {
            None => return Ok(Charsmap::default()),
            Some(Array::U8(bytes)) => bytes.clone(),
            Some(Array::I8(bytes)) => bytes.iter().map(|&byte| byte as u8).collect(),
            Some(other) => return Err(self.wrong(key, "an array of bytes", other.to_string())),
        };
        Charsmap::read(&bytes, &self.0.file().display().to_string())
    }

    /// The ids with a role. A default beyond the vocabulary is none; one that the file names must be there.
    fn special_ids(&self, vocabulary: &Vocabulary, default: SpecialIds) -> Result<SpecialIds, Error> {
        let id = |name: &str, default: Option<TokenId>| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match self.0.get_u64(&key)? {
                Some(id) if id < vocabulary.len() as u64 => Ok(Some(id as TokenId)),
                Some(id) => {
                    let expected = format!("an id below {}", vocabulary.len());
                    Err(self.wrong(&key, expected, id.to_string()))
                }
                None => Ok(default.filter(|&id| (id as usize) < vocabulary.len())),
            }
        };
        Ok(SpecialIds {
            bos: id("bos", default.bos)?,
            eos: id("eos", default.eos)?,
            eot: id("eot", default.eot)?.or_else(|| end_of_turn(vocabulary)),
            unknown: id("unknown", default.unknown)?,
            // The key has been misspelled from the beginning.
            separator: id("seperator", id("separator", default.separator)?)?,
            padding: id("padding", default.padding)?,
            class: id("cls", default.class)?,
            mask: id("mask", default.mask)?,
        })
    }

    fn finish(
        &self,
        vocabulary: Vocabulary,
        algorithm: Algorithm,
        decoding: Decoding,
        ids: SpecialIds,
        ends: Ends,
    ) -> Result<Tokenizer, Error> {
        let token = |end: Option<Option<TokenId>>, name: &str| match end {
            None => Ok(Vec::new()),
            Some(Some(id)) => Ok(vec![id]),
            Some(None) => Err(self.wrong(name, "an id, since the file wants it added", "nothing")),
        };
        let before = token(ends.bos, "tokenizer.ggml.bos_token_id")?;
        let after = token(ends.eos, "tokenizer.ggml.eos_token_id")?;
        let mut added = added_by_kind(&vocabulary);
        self.strip(&mut added)?;
        let eom = self.0.get_u64("tokenizer.ggml.eom_token_id")?.and_then(|id| TokenId::try_from(id).ok());
        Ok(Tokenizer::new(Tables {
            stops: stops(&vocabulary, ids.eos.into_iter().chain(ids.eot).chain(eom)),
            engine: Engine::Own { added: AddedTokens::new(added), algorithm: Box::new(algorithm) },
            decoding,
            before,
            after,
            ids,
            chat_template: self.0.get_str("tokenizer.chat_template")?.map(str::to_string),
            read_from: "GGUF",
            spans: OnceLock::new(),
            vocabulary,
        }))
    }

    /// GGUF has no place for the white space that added tokens swallow; these models are known to need it.
    fn strip(&self, added: &mut [crate::added_tokens::AddedToken]) -> Result<(), Error> {
        let pre = self.0.get_str("tokenizer.ggml.pre")?.unwrap_or_default();
        let architecture = self.0.get_str("general.architecture")?.unwrap_or_default();
        let name = self.0.get_str("general.name")?.unwrap_or_default().to_lowercase();
        let left: &[&str] = match () {
            _ if pre.starts_with("jina-v2-") || matches!(architecture, "nomic-bert-moe" | "jina-bert-v3") => {
                &["<mask>"]
            }
            _ if name.contains("modern-bert") => &["[MASK]"],
            _ => &[],
        };
        let strips_right = name.contains("phi-3") || name.contains("phi3");
        for token in added {
            token.strips_left = left.contains(&token.text.as_str());
            token.strips_right =
                strips_right && !matches!(token.text.as_str(), "<unk>" | "<s>" | "<|endoftext|>");
        }
        Ok(())
    }
}

/// The token that ends a turn, by its spelling.
fn end_of_turn(vocabulary: &Vocabulary) -> Option<TokenId> {
    const TURNS: [&str; 6] = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<turn|>", "<EOT>"];
    TURNS.iter().find_map(|text| vocabulary.id(text).filter(|&id| vocabulary.kind(id) != Kind::Normal))
}
