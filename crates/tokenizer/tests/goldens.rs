//! The small vocabularies of `fixtures/tokenizer`, each with what the program that defines it makes of nasty texts.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rhetor_tokenizer::{ControlTokens, Special, Tokenizer};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer")
}

fn read(file: &str) -> Tokenizer {
    // Each file alone in a directory, so that its neighbours do not matter.
    Tokenizer::from_file(&fixtures().join(file)).unwrap()
}

/// The texts of `NAME.expected.json` with their ids and what they decode to.
fn expected(name: &str) -> Vec<(String, Vec<u32>, String)> {
    let json = std::fs::read_to_string(fixtures().join(format!("{name}.expected.json"))).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let ids =
        |value: &Value| value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    json["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (text(&row["text"]), ids(&row["ids"]), text(&row["decoded"])))
        .collect()
}

const CASES: &[(&str, &str)] = &[
    ("byte_level_bpe.json", "byte_level_bpe"),
    ("word_piece.json", "word_piece"),
    ("unigram.json", "unigram"),
    ("vocab.json", "gpt2_files"),
    ("vocab.txt", "vocab_txt"),
    ("sp_bpe.model", "sp_bpe"),
    ("sp_unigram.model", "sp_unigram"),
    ("sp_unigram_bytes.model", "sp_unigram_bytes"),
];

#[test]
fn every_vocabulary_gives_the_ids_of_the_program_that_defines_it() {
    let mut failures = Vec::new();
    for (file, name) in CASES {
        let tokenizer = read(file);
        for (text, ids, decoded) in expected(name) {
            // A program's own encoder of SentencePiece and of the two files knows no control tokens in text.
            let got = match *file {
                "byte_level_bpe.json" | "unigram.json" => tokenizer.encode(&text, Special::Parse),
                "word_piece.json" => tokenizer.encode_with_specials(&text, Special::Parse),
                _ => tokenizer.encode(&text, Special::Literal),
            };
            if got != ids {
                failures.push(format!("{file}: {text:?}\n  expected {ids:?}\n  got      {got:?}"));
            }
            let got = tokenizer.decode(&ids, ControlTokens::Show);
            if got != decoded {
                failures
                    .push(format!("{file}: {ids:?} of {text:?}\n  expected {decoded:?}\n  got      {got:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn what_a_user_types_never_becomes_a_control_token() {
    for (file, name) in CASES {
        let tokenizer = read(file);
        let control: Vec<u32> = (0..tokenizer.n_tokens() as u32)
            .filter(|&id| tokenizer.is_special(id) && Some(id) != tokenizer.unknown())
            .collect();
        let every_one: String = control.iter().map(|&id| tokenizer.piece(id).unwrap()).collect();
        let texts = expected(name).into_iter().map(|row| row.0).chain([every_one]);
        for text in texts {
            let ids = tokenizer.encode(&text, Special::Literal);
            assert!(!ids.iter().any(|id| control.contains(id)), "{file}: {text:?} gave {ids:?}");
        }
        for id in control {
            let piece = tokenizer.piece(id).unwrap();
            assert!(tokenizer.encode(piece, Special::Parse).contains(&id), "{file}: {piece}");
        }
    }
}

#[test]
fn the_space_of_the_first_word_goes_only_at_the_beginning() {
    let tokenizer = read("sp_bpe.model");
    let ids = tokenizer.encode("the quick", Special::Literal);
    assert_eq!(tokenizer.decode(&ids, ControlTokens::Skip), "the quick");
    let mut stream = tokenizer.stream().continuing();
    let text: String = ids.iter().map(|&id| stream.push(id)).collect();
    assert_eq!(text + &stream.finish(), " the quick");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_stream_equals_decoding_at_once_for_any_ids(picks in prop::collection::vec(any::<u32>(), 0..40), show in any::<bool>()) {
        let control = if show { ControlTokens::Show } else { ControlTokens::Skip };
        for (file, _) in CASES {
            let tokenizer = read(file);
            // Some ids are beyond the vocabulary.
            let ids: Vec<u32> = picks.iter().map(|pick| pick % (tokenizer.n_tokens() as u32 + 3)).collect();
            let mut stream = tokenizer.stream().control_tokens(control);
            let mut text = String::new();
            for &id in &ids {
                text.push_str(&stream.push(id));
            }
            text.push_str(&stream.finish());
            prop_assert_eq!(text, tokenizer.decode(&ids, control), "{}", file);
        }
    }

    #[test]
    fn byte_level_text_comes_back_as_it_was(text in any::<String>()) {
        for file in ["byte_level_bpe.json", "vocab.json"] {
            let tokenizer = read(file);
            let ids = tokenizer.encode(&text, Special::Literal);
            prop_assert_eq!(&tokenizer.decode(&ids, ControlTokens::Show), &text, "{}", file);
            let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id).to_vec()).collect();
            prop_assert_eq!(bytes, text.as_bytes(), "{}", file);
        }
    }

    #[test]
    fn sentencepiece_with_byte_fallback_loses_nothing(text in any::<String>()) {
        // U+2581 itself is read as a space, as everywhere.
        let text = text.replace('\u{2581}', "");
        let tokenizer = read("sp_bpe.model");
        let ids = tokenizer.encode(&text, Special::Literal);
        prop_assert_eq!(tokenizer.decode(&ids, ControlTokens::Show), text);
    }
}
