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

/// Where a stretch of text stands; SentencePiece puts a space before the first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// The text begins here, or a control token came before.
    Start,
    /// A user-defined token came before.
    UserDefined,
}

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
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, after: After, out: &mut Vec<TokenId>) {
        match self {
            Algorithm::Bpe(bpe) => bpe.encode(vocabulary, text, out),
            Algorithm::SentencePieceBpe(bpe) => bpe.encode(vocabulary, text, after, out),
            Algorithm::Unigram(unigram) => unigram.encode(vocabulary, text, after, out),
            Algorithm::WordPiece(word_piece) => word_piece.encode(text, out),
        }
    }
}
