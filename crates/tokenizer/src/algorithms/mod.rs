//! How a stretch of text becomes ids, one file for each algorithm.

mod bpe;
mod merge;
mod sentencepiece_bpe;
mod unigram;
mod word_piece;

pub(crate) use bpe::{Bpe, BpeOptions};
pub(crate) use sentencepiece_bpe::SentencePieceBpe;
pub(crate) use unigram::Unigram;
pub(crate) use word_piece::{WordPiece, WordPieceOptions};

use crate::TokenId;
use crate::vocabulary::Vocabulary;

/// An algorithm with its tables.
#[derive(Debug, Clone)]
pub(crate) enum Algorithm {
    Bpe(Bpe),
    SentencePieceBpe(SentencePieceBpe),
    Unigram(Unigram),
    WordPiece(WordPiece),
}

impl Algorithm {
    /// Appends the ids of `text`, in which added tokens have no meaning.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<TokenId>) {
        match self {
            Algorithm::Bpe(bpe) => bpe.encode(vocabulary, text, out),
            Algorithm::SentencePieceBpe(bpe) => bpe.encode(vocabulary, text, out),
            Algorithm::Unigram(unigram) => unigram.encode(vocabulary, text, out),
            Algorithm::WordPiece(word_piece) => word_piece.encode(text, out),
        }
    }
}
