//! Text to token ids and back.
//!
//! A [`Tokenizer`] is read from whatever a model comes with: the vocabulary inside a GGUF file, `tokenizer.json`,
//! SentencePiece's `tokenizer.model`, GPT-2's `vocab.json` and `merges.txt`, BERT's `vocab.txt`, llama2.c's
//! `tok512.bin`. It gives the same ids as the program that the model was trained with.
//!
//! It holds no model and knows no chat. Text becomes ids once, and ids become text once:
//! [`Tokenizer::encode`], [`Tokenizer::decode`], [`Tokenizer::stream`]. New ones are made by [`train`].
#![forbid(unsafe_code)]

mod added_tokens;
mod algorithms;
mod byte_level;
mod charsmap;
pub mod convert;
mod detokenizer;
mod error;
mod hugging_face;
mod pre_tokenize;
mod read;
mod scanners;
mod spans;
mod tokenizer;
pub mod train;
mod unicode_class;
mod vocabulary;

pub use detokenizer::Detokenizer;
pub use error::Error;
pub use spans::{Pair, TokenSpan};
pub use tokenizer::{ControlTokens, Special, Tokenizer};

/// The number of a token in its vocabulary.
pub type TokenId = u32;
