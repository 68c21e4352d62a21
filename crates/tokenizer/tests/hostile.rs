//! Broken vocabularies: an error that names what is wrong, or a tokenizer that works; never a panic.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rhetor_formats::{Array, Checkpoint, Metadata, Strings, gguf};
use rhetor_tokenizer::{ControlTokens, Error, Special, Tokenizer};
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer")
}

/// Uses everything that a tokenizer can do.
fn exercise(tokenizer: &Tokenizer) {
    for text in ["", "Hello, y'all! 123\n\n  x <s>[CLS]<tool>", "繁體 👨‍👩‍👧 e\u{301}\u{0}\u{FFFD}"] {
        for special in [Special::Parse, Special::Literal] {
            let ids = tokenizer.encode_with_specials(text, special);
            tokenizer.decode(&ids, ControlTokens::Show);
        }
    }
    tokenizer.decode(&[0, 1, u32::MAX, 7], ControlTokens::Skip);
    tokenizer.stops().iter().for_each(|&id| assert!(tokenizer.piece(id).is_some()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn vocabulary_files_with_changed_bytes_do_not_panic(
        which in 0usize..6,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let name = ["byte_level_bpe.json", "word_piece.json", "unigram.json", "sp_bpe.model", "sp_unigram_bytes.model",
            "vocab.txt"][which];
        let mut bytes = std::fs::read(fixtures().join(name)).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(tokenizer) = Tokenizer::from_file(&path) {
            exercise(&tokenizer);
        }
    }

    #[test]
    fn a_tokenizer_json_with_parts_exchanged_does_not_panic(
        which in 0usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
    ) {
        let name = ["byte_level_bpe.json", "word_piece.json", "unigram.json"][which];
        let mut json: Value = serde_json::from_slice(&std::fs::read(fixtures().join(name)).unwrap()).unwrap();
        let values = [
            Value::Null, json!(true), json!(0), json!(-1), json!(4294967295u32), json!(1e300), json!(""), json!("x"),
            json!("<unk>"), json!([]), json!({}), json!([["a", -1.0]]), json!({"type": "Fuse"}), json!({"type": "CTC"}),
            json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}), json!({"a": 0, "b": 1000000}),
        ];
        for (place, value) in changes {
            let pointers = pointers(&json);
            let pointer = &pointers[place.index(pointers.len())];
            if let Some(at) = json.pointer_mut(pointer) {
                *at = values[value.index(values.len())].clone();
            }
        }
        if let Ok(tokenizer) = Tokenizer::from_json_bytes(json.to_string().as_bytes()) {
            exercise(&tokenizer);
        }
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let directory = tempfile::tempdir().unwrap();
        for name in ["tokenizer.json", "tokenizer.model", "vocab.txt", "tok512.bin"] {
            let path = directory.path().join(name);
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(tokenizer) = Tokenizer::from_file(&path) {
                exercise(&tokenizer);
            }
        }
    }
}

/// Places in the document, the vocabulary's many entries left out.
fn pointers(json: &Value) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut at = 0;
    while at < found.len() {
        let pointer = found[at].clone();
        match json.pointer(&pointer) {
            Some(Value::Object(object)) => {
                let keys = object.keys().take(16).map(|key| key.replace('~', "~0").replace('/', "~1"));
                found.extend(keys.map(|key| format!("{pointer}/{key}")));
            }
            Some(Value::Array(array)) => found.extend((0..array.len().min(4)).map(|i| format!("{pointer}/{i}"))),
            _ => {}
        }
        at += 1;
    }
    found
}

/// A GGUF file without tensors that holds `set`'s keys.
fn gguf_file(directory: &Path, set: impl Fn(&mut Metadata)) -> Result<Tokenizer, Error> {
    let path = directory.join("vocabulary.gguf");
    let mut metadata = Metadata::new(&path);
    metadata.set("general.architecture", "llama");
    metadata.set("tokenizer.ggml.model", "gpt2");
    metadata.set("tokenizer.ggml.pre", "gpt-2");
    metadata.set("tokenizer.ggml.tokens", strings(&["a", "b", "ab", "<s>"]));
    metadata.set("tokenizer.ggml.token_type", Array::I32(vec![1, 1, 1, 3]));
    metadata.set("tokenizer.ggml.merges", strings(&["a b"]));
    set(&mut metadata);
    gguf::write(&path, &metadata, &[], |_, _| Ok(())).unwrap();
    Tokenizer::from_checkpoint(&Checkpoint::open(&path).unwrap())
}

fn strings(list: &[&str]) -> Strings {
    let mut strings = Strings::with_capacity(list.len());
    list.iter().for_each(|string| strings.push(string));
    strings
}

#[test]
fn what_is_wrong_with_a_gguf_vocabulary_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let good = gguf_file(directory.path(), |_| {}).unwrap();
    assert_eq!(good.encode("ab<s>abc", Special::Parse), [2, 3, 2]);
    let check = |key: &str, expected: &str, set: &dyn Fn(&mut Metadata)| {
        let error = gguf_file(directory.path(), set).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(expected), "{error}");
    };
    check("pre-tokenizer `gpt-9`", "unknown", &|m| m.set("tokenizer.ggml.pre", "gpt-9"));
    check("`rwkv`", "supported are gpt2", &|m| m.set("tokenizer.ggml.model", "rwkv"));
    check("tokenizer.ggml.tokens", "array of strings", &|m| drop(m.remove("tokenizer.ggml.tokens")));
    check("tokenizer.ggml.merges", "array of strings", &|m| drop(m.remove("tokenizer.ggml.merges")));
    check("merge 0", "two parts", &|m| m.set("tokenizer.ggml.merges", strings(&["ab"])));
    check("token_type", "4 values", &|m| m.set("tokenizer.ggml.token_type", Array::I32(vec![1])));
    check("token_type[1]", "got 9", &|m| m.set("tokenizer.ggml.token_type", Array::I32(vec![1, 9, 1, 1])));
    check("scores[2]", "NaN", &|m| m.set("tokenizer.ggml.scores", Array::F32(vec![0.0, 0.0, f32::NAN, 0.0])));
    check("bos_token_id", "below 4, got 99", &|m| m.set("tokenizer.ggml.bos_token_id", 99u32));
    check("bos_token_id", "wants it added", &|m| m.set("tokenizer.ggml.add_bos_token", true));
    check("precompiled_charsmap", "at least 4 bytes", &|m| {
        m.set("tokenizer.ggml.model", "t5");
        m.set("tokenizer.ggml.precompiled_charsmap", Array::U8(vec![1, 2]));
    });
}

#[test]
fn what_is_wrong_with_other_files_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let check = |name: &str, bytes: &[u8], expected: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = Tokenizer::from_file(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    };
    check("tokenizer.json", b"{}", "tokenizer.json: ");
    check("vocab.txt", b"a\nb\n", "expected lines [UNK], [CLS] and [SEP]");
    check("vocab.txt", b"a\xFF", "byte 1: expected UTF-8");
    check("tokenizer.model", b"", "at least one piece");
    check("tokenizer.model", b"\x0A\xFF", "a whole field");
    check("tok512.bin", b"\x01\0\0\0\0\0", "expected a score and a length");
    check("tok512.bin", b"\x01\0\0\0\0\0\0\0\xFF\xFF\xFF\xFFab", "a length that ends within the file");
    check("merges.txt", b"a b", "no vocabulary");
    check("vocab.json", br#"{"a": 0, "b": 2}"#, "the ids 0 to 1, each once");
    let dropout = std::fs::read_to_string(fixtures().join("byte_level_bpe.json")).unwrap();
    let dropout = dropout.replace(r#""dropout":null"#, r#""dropout":0.5"#);
    check("tokenizer.json", dropout.as_bytes(), "model.dropout: expected none");
    let far = br#"{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0,"b":4000000000},"unk_token":"a"}}"#;
    check("tokenizer.json", far, "without large gaps");
    let unknown = br#"{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"z"}}"#;
    check("tokenizer.json", unknown, "model.unk_token: expected a token of the vocabulary");
    let missing = Tokenizer::from_file(&directory.path().join("nowhere.model")).unwrap_err();
    assert!(matches!(missing, Error::File { .. }), "{missing}");
    let saved = Tokenizer::from_file(&fixtures().join("sp_bpe.model")).unwrap().save_json(directory.path());
    assert!(matches!(saved, Err(Error::CannotSave { .. })));
}
