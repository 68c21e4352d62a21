//! `tokenizer.json` by the crate `tokenizers`, which defines what the file means.
//!
//! Its steps are called one by one, because the same model must read text both with control tokens and without: only
//! the small table of added tokens exists twice. Truncation and padding that the file asks for are a caller's
//! matter and are left out; dropout would make ids random and is refused.

use std::path::Path;

use tokenizers::models::ModelWrapper;
use tokenizers::tokenizer::{
    Encoding, Model, OffsetReferential, OffsetType, PostProcessor, PreTokenizer, Token,
};
use tokenizers::{AddedVocabulary, PreTokenizedString, Tokenizer};

use crate::{Error, Special, TokenId, TokenSpan};

/// The engine with its two tables of added tokens.
pub(crate) struct HuggingFace {
    tokenizer: Tokenizer,
    /// Finds no special tokens.
    literal: AddedVocabulary,
    /// The ids of special tokens, sorted, without the unknown one.
    special: Vec<TokenId>,
    unknown: Option<TokenId>,
}

impl HuggingFace {
    /// Takes over a tokenizer and the unknown token of a unigram model; its truncation and padding are switched off.
    pub fn new(mut tokenizer: Tokenizer, unknown: Option<TokenId>) -> Result<HuggingFace, Error> {
        let refused = |error: tokenizers::Error| Error::TokenizerJson { reason: error.to_string() };
        tokenizer.with_truncation(None).map_err(refused)?;
        tokenizer.with_padding(None);
        tokenizer.set_encode_special_tokens(false);
        let mut literal = tokenizer.get_added_vocabulary().clone();
        literal.set_encode_special_tokens(true);
        let unknown = unknown.or_else(|| {
            let text = match tokenizer.get_model() {
                ModelWrapper::BPE(bpe) => bpe.unk_token.as_deref()?,
                ModelWrapper::WordPiece(word_piece) => &word_piece.unk_token,
                ModelWrapper::WordLevel(word_level) => &word_level.unk_token,
                ModelWrapper::Unigram(_) => return None,
            };
            tokenizer.token_to_id(text)
        });
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.iter().filter(|(id, token)| token.special && Some(**id) != unknown);
        let mut special: Vec<TokenId> = special.map(|(id, _)| *id).collect();
        special.sort_unstable();
        Ok(HuggingFace { tokenizer, literal, special, unknown })
    }

    /// The tokens that the post-processor sets before and after a text.
    pub fn before_and_after(&self) -> Result<(Vec<TokenId>, Vec<TokenId>), Error> {
        // One token that cannot be in the vocabulary stands for the text.
        const TEXT: u32 = u32::MAX;
        let Some(processor) = self.tokenizer.get_post_processor() else { return Ok(Default::default()) };
        let text: Encoding = std::iter::once((TEXT, String::new(), (0, 0), None, 0)).collect();
        let refused = |reason: String| Error::TokenizerJson { reason: format!("post_processor: {reason}") };
        let processed = processor.process(text, None, true).map_err(|error| refused(error.to_string()))?;
        let ids = processed.get_ids();
        match ids.iter().position(|&id| id == TEXT) {
            Some(at) if !ids[at + 1..].contains(&TEXT) => Ok((ids[..at].to_vec(), ids[at + 1..].to_vec())),
            _ => Err(refused("a template must hold the text exactly once".to_string())),
        }
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, text: &str, special: Special, out: &mut Vec<TokenId>) {
        let pieces = self.tokenized(text, special);
        for (_, _, tokens) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            out.extend(tokens.iter().flatten().map(|token| token.id));
        }
    }

    /// The ids of `text`, each with its place.
    pub fn encode_spans(&self, text: &str, special: Special) -> Option<Vec<TokenSpan>> {
        let encoding = self.tokenized(text, special).into_encoding(None, 0, OffsetType::Byte).ok()?;
        // The spaces before words are cut off by the post-processor.
        let encoding = match self.tokenizer.get_post_processor() {
            Some(processor) => processor.process(encoding, None, false).ok()?,
            None => encoding,
        };
        let places = encoding.get_offsets().iter().zip(encoding.get_word_ids());
        let spans = encoding.get_ids().iter().zip(places).map(|(&id, (&(start, end), word))| TokenSpan {
            id,
            bytes: start..end,
            word: word.unwrap_or(0),
        });
        Some(spans.collect())
    }

    /// Whether pieces that go on with a word have a prefix.
    pub fn marks_continuations(&self) -> bool {
        match self.tokenizer.get_model() {
            ModelWrapper::WordPiece(word_piece) => !word_piece.continuing_subword_prefix.is_empty(),
            ModelWrapper::BPE(bpe) => bpe.continuing_subword_prefix.as_ref().is_some_and(|p| !p.is_empty()),
            ModelWrapper::WordLevel(_) | ModelWrapper::Unigram(_) => false,
        }
    }

    /// The tokens before the first of two texts, between them, and behind the second, their segments, and those of the texts.
    #[allow(clippy::type_complexity)]
    pub fn pair_parts(&self) -> Option<([Vec<TokenId>; 3], ([Vec<u8>; 3], [u8; 2]))> {
        // Two tokens that cannot be in the vocabulary stand for the texts.
        const TEXTS: [u32; 2] = [u32::MAX, u32::MAX - 1];
        let processor = self.tokenizer.get_post_processor()?;
        let text = |id| -> Encoding { std::iter::once((id, String::new(), (0, 0), None, 0)).collect() };
        let joined = processor.process(text(TEXTS[0]), Some(text(TEXTS[1])), true).ok()?;
        let ids = joined.get_ids();
        let segments: Vec<u8> = joined.get_type_ids().iter().map(|&id| id as u8).collect();
        let [a, b] = TEXTS.map(|text| ids.iter().position(|&id| id == text));
        let (a, b) = (a?, b.filter(|&b| Some(b) > a)?);
        let ranges = [0..a, a + 1..b, b + 1..ids.len()];
        let parts = ranges.clone().map(|range| ids[range].to_vec());
        let of_parts = ranges.map(|range| segments[range].to_vec());
        Some((parts, (of_parts, [segments[a], segments[b]])))
    }

    /// `text` cut into pieces, and those into tokens.
    fn tokenized(&self, text: &str, special: Special) -> PreTokenizedString {
        let added = match special {
            Special::Parse => self.tokenizer.get_added_vocabulary(),
            Special::Literal => &self.literal,
        };
        let extract = || added.extract_and_normalize(self.tokenizer.get_normalizer(), text);
        let mut pieces: PreTokenizedString = extract();
        if let Some(pre_tokenizer) = self.tokenizer.get_pre_tokenizer()
            && pre_tokenizer.pre_tokenize(&mut pieces).is_err()
        {
            // An expression that gave up (backtracking is bounded): the text stays whole.
            pieces = extract();
        }
        let model = self.tokenizer.get_model();
        // Text that the model has no token for, and no unknown token either, is dropped.
        let tokenized = pieces.tokenize(|piece| {
            Ok(match special {
                Special::Parse => model.tokenize(piece.get()).unwrap_or_default(),
                Special::Literal => self.tokenize_literal(piece.get()),
            })
        });
        debug_assert!(tokenized.is_ok());
        pieces
    }

    /// The tokens of a piece of text without special ones. A model's own vocabulary may hold them too, and find them
    /// in plain text; then the text is cut behind their first character.
    fn tokenize_literal(&self, piece: &str) -> Vec<Token> {
        let model = self.tokenizer.get_model();
        let mut tokens = Vec::new();
        let mut open = vec![piece];
        while let Some(text) = open.pop() {
            let found = model.tokenize(text).unwrap_or_default();
            let Some(special) = found.iter().find(|token| self.special.binary_search(&token.id).is_ok())
            else {
                tokens.extend(found);
                continue;
            };
            let start = special.offsets.0.min(text.len());
            let second = text.char_indices().map(|(i, _)| i).find(|&i| i > start);
            let cut = second.or_else(|| text.char_indices().map(|(i, _)| i).rfind(|&i| i > 0));
            match cut {
                Some(cut) => open.extend([&text[cut..], &text[..cut]]),
                // One character that is a special token: it is unknown as text.
                None => {
                    tokens.extend(self.unknown.map(|id| Token::new(id, text.to_string(), (0, text.len()))))
                }
            }
        }
        tokens
    }

    /// The text of `ids` by the file's own decoder; control tokens are gone already.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        self.tokenizer.decode(ids, false).unwrap_or_default()
    }

    /// Writes `tokenizer.json`.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let refused = |error: tokenizers::Error| Error::TokenizerJson { reason: error.to_string() };
        let json = self.tokenizer.to_string(true).map_err(refused)?;
        std::fs::write(path, json).map_err(|source| Error::File { path: path.to_path_buf(), source })
    }

    /// The engine itself.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}
