//! Tokenizers for tests, and examples as people read them.

use crate::{IGNORE, Sequence};
use rhetor_tokenizer::train::{Kind, TrainOptions, train};
use rhetor_tokenizer::{ControlTokens, Tokenizer};
use std::path::Path;
use std::sync::OnceLock;

/// Every character of ASCII is a token; control tokens of every family come first.
pub(crate) fn characters() -> Tokenizer {
    static MADE: OnceLock<Tokenizer> = OnceLock::new();
    MADE.get_or_init(make_characters).clone()
}

fn make_characters() -> Tokenizer {
    let named = "<unk> <s> </s> <|im_start|> <|im_end|> <pad> <fim_prefix> <fim_middle> <fim_suffix> <fim_pad> \
                 <|endoftext|> <sep> <eom>";
    let mut specials: Vec<String> = named.split(' ').map(str::to_string).collect();
    specials.extend((1..=4).map(|i| format!("<mask_{i}>")));
    specials.extend((0..100).map(|i| format!("<extra_id_{i}>")));
    let options = TrainOptions { kind: Kind::Characters, vocab_size: 400, specials, min_frequency: 1 };
    let text: String = (' '..='~').chain(['\n']).collect();
    train(&options, [text].iter()).unwrap()
}

/// BERT's kind: a vocabulary of 400 word pieces.
pub(crate) fn word_pieces() -> Tokenizer {
    fixture("vocab.txt")
}

/// GPT-2's kind: 400 tokens and `<|endoftext|>`.
pub(crate) fn byte_level() -> Tokenizer {
    fixture("byte_level_bpe.json")
}

/// SentencePiece's kind, with a space put before the text.
pub(crate) fn sentence_piece() -> Tokenizer {
    fixture("sp_bpe.model")
}

fn fixture(name: &str) -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer").join(name);
    Tokenizer::from_file(&path).unwrap()
}

/// The text of a sequence, what is trained in brackets; white space of the text is kept.
pub(crate) fn bracketed(tokenizer: &Tokenizer, sequence: &Sequence) -> String {
    let mut ids = sequence.tokens.clone();
    ids.extend(sequence.targets.last().filter(|&&last| last != IGNORE));
    let mut runs: Vec<(bool, Vec<u32>)> = Vec::new();
    for (i, &id) in ids.iter().enumerate() {
        let is_trained = i > 0 && sequence.targets[i - 1] != IGNORE;
        assert!(!is_trained || sequence.targets[i - 1] == id, "a target is the next token");
        match runs.last_mut() {
            Some((trained, run)) if *trained == is_trained => run.push(id),
            _ => runs.push((is_trained, vec![id])),
        }
    }
    let text = |run: &[u32]| {
        let mut bytes = Vec::new();
        run.iter().for_each(|&id| bytes.extend_from_slice(tokenizer.token_bytes(id)));
        match bytes.is_empty() {
            true => tokenizer.decode(run, ControlTokens::Show),
            false => String::from_utf8_lossy(&bytes).into_owned(),
        }
    };
    let shown =
        runs.iter().map(|(trained, run)| if *trained { format!("[{}]", text(run)) } else { text(run) });
    shown.collect()
}
