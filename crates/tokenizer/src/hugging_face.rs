//! `tokenizer.json` by the crate `tokenizers`, which defines what the file means.
//!
//! Its steps are called one by one, because the same model must read text both with control tokens and without: only
//! the small table of added tokens exists twice. Truncation and padding that the file asks for are a caller's
//! matter and are left out; dropout would make ids random and is refused.

use std::path::Path;

use tokenizers::tokenizer::{Encoding, Model, OffsetReferential, OffsetType, PostProcessor, PreTokenizer};
use tokenizers::{AddedVocabulary, PreTokenizedString, Tokenizer};

use crate::{Error, Special, TokenId};

/// The engine with its two tables of added tokens.
pub(crate) struct HuggingFace {
    tokenizer: Tokenizer,
    /// Finds no special tokens.
    literal: AddedVocabulary,
}

impl HuggingFace {
    /// Takes over a tokenizer; its truncation and padding are switched off.
    pub fn new(mut tokenizer: Tokenizer) -> Result<HuggingFace, Error> {
        let refused = |error: tokenizers::Error| Error::TokenizerJson { reason: error.to_string() };
        tokenizer.with_truncation(None).map_err(refused)?;
        tokenizer.with_padding(None);
        tokenizer.set_encode_special_tokens(false);
        let mut literal = tokenizer.get_added_vocabulary().clone();
        literal.set_encode_special_tokens(true);
        Ok(HuggingFace { tokenizer, literal })
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
        let added = match special {
            Special::Parse => self.tokenizer.get_added_vocabulary(),
            Special::Literal => &self.literal,
        };
        let extract = || added.extract_and_normalize(self.tokenizer.get_normalizer(), text);
        let mut pieces: PreTokenizedString = extract();
        if let Some(pre_tokenizer) = self.tokenizer.get_pre_tokenizer() {
            if pre_tokenizer.pre_tokenize(&mut pieces).is_err() {
                // An expression that gave up (backtracking is bounded): the text stays whole.
                pieces = extract();
            }
        }
        let model = self.tokenizer.get_model();
        // Text that the model has no token for, and no unknown token either, is dropped.
        let tokenized = pieces.tokenize(|piece| Ok(model.tokenize(piece.get()).unwrap_or_default()));
        debug_assert!(tokenized.is_ok());
        for (_, _, tokens) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            out.extend(tokens.iter().flatten().map(|token| token.id));
        }
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
