//! Schemas of many kinds, written out by a model that knows nothing: whatever it says, another program accepts.

use super::Grammars;
use crate::engine::{Engine, EngineOptions, Parts};
use crate::fake::Fake;
use rhetor_lm::{Constraint, Error, FinishReason, LanguageModel, Request, Sampling};
use rhetor_tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::ops::ControlFlow;

/// Tokens of several characters, as vocabularies have them: across the joints of JSON, with spaces, with halves of signs.
const PIECES: &[&str] = &[
    "{\"",
    "\":",
    "\",",
    "\"}",
    "\"]",
    "},",
    "],",
    "[]",
    "{}",
    "[{\"",
    "\":\"",
    "\", \"",
    ": ",
    ", ",
    "true",
    "null",
    "tr",
    " \"",
    "\n  ",
    "\n\n",
    "00",
    "12",
    "19",
    "20",
    "2024",
    "ab",
    "cat",
    "dog",
    "http",
    "://",
    ".com",
    "é",
    "日",
    "本語",
    "😀",
    "\\n",
    "\\\"",
    "\\u00",
    "name",
    "\"name\":",
    " ",
    "  ",
    "-1",
    "0.",
    ".5",
    "e5",
    "false",
    "}}",
    "]}",
    "al",
];

/// A byte-level vocabulary: three control tokens, the 256 bytes and the pieces.
fn bytes_and_pieces() -> Tokenizer {
    // As in GPT-2: bytes without a printable sign of their own are written as the signs from U+0100 on.
    let is_own = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..);
    let others: Vec<u8> = (0..=255).filter(|&byte| !is_own(byte)).collect();
    let sign = |byte: u8| match others.iter().position(|&other| other == byte) {
        Some(n) => char::from_u32(256 + n as u32).unwrap(),
        None => char::from(byte),
    };
    let mut vocab = serde_json::Map::new();
    let controls = ["<s>", "</s>", "<|x|>"].map(str::to_string);
    let words = PIECES.iter().map(|piece| piece.bytes().map(sign).collect::<String>());
    for word in controls.into_iter().chain((0..=255).map(|byte| sign(byte).to_string())).chain(words) {
        let id = vocab.len();
        vocab.entry(word).or_insert(id.into());
    }
    let added = |(id, content): (usize, &str)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let added: Vec<Value> = ["<s>", "</s>", "<|x|>"].into_iter().enumerate().map(added).collect();
    let coder =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "added_tokens": added,
        "pre_tokenizer": coder, "post_processor": null, "decoder": coder,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": []},
    });
    Tokenizer::from_json_bytes(tokenizer.to_string().as_bytes()).unwrap()
}

fn engine() -> Engine {
    let tokenizer = bytes_and_pieces();
    let runner = Box::new(Fake::new(200, tokenizer.n_tokens()));
    let (name, adapters) = ("fake".to_string(), Vec::new());
    let options = EngineOptions::default();
    let parts = Parts {
        name,
        runner,
        tokenizer,
        context: 1500,
        options,
        config: None,
        adapters,
        sight: None,
        speculator: None,
    };
    Engine::from_parts(parts).unwrap()
}

fn cases() -> Vec<Value> {
    serde_json::from_str(include_str!("../../tests/schemas.json")).unwrap()
}

#[test]
fn every_completed_answer_satisfies_its_schema() {
    let engine = engine();
    let id = |piece: &str| engine.tokenizer().id(piece).unwrap();
    // Chance alone would write strings and lists without end.
    let closes = ["\"", "}", "]", "\"}", "\"]", "},", "}}"].map(|piece| (id(piece), 4.0));
    let (mut n_schemas, mut n_completed, mut n_cut, mut n_huge, mut failures) = (0, 0, 0, 0, Vec::new());
    for case in cases().iter().filter(|case| case.get("refused").is_none()) {
        let schema = &case["schema"];
        let validator =
            jsonschema::options().should_validate_formats(true).build(schema).unwrap_or_else(|error| {
                panic!("{case}: {error}");
            });
        let mut request = Request::text(case["name"].as_str().unwrap());
        (request.n, request.max_tokens) = (6, Some(700));
        request.constraint = Some(Constraint::JsonSchema(schema.to_string()));
        request.sampling = Sampling { temperature: 1.0, logit_bias: closes.to_vec(), ..Sampling::default() };
        let answers = match engine.generate(&request, &mut |_| ControlFlow::Continue(())) {
            Ok(answers) => answers,
            Err(error) => {
                failures.push(format!("{case}: {error}"));
                continue;
            }
        };
        n_schemas += 1;
        for answer in answers {
            if answer.finish_reason != FinishReason::Stop {
                n_cut += 1;
                continue;
            }
            n_completed += 1;
            match serde_json::from_str(&answer.text) {
                Ok(value) if validator.is_valid(&value) => {}
                Ok(_) => failures.push(format!("{case}\n   is not satisfied by {}", answer.text)),
                // 1e999 is a number of JSON, and satisfies a schema without a bound, but is no float.
                Err(error) if error.to_string().starts_with("number out of range") => n_huge += 1,
                Err(error) => failures.push(format!("{case}\n   {error}: {}", answer.text)),
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
    assert!(
        n_schemas >= 200 && n_completed > 5 * n_schemas && n_huge < 30,
        "{n_schemas} schemas, {n_completed} answers completed, {n_cut} cut off, {n_huge} with too large a number"
    );
}

#[test]
fn schemas_that_are_not_supported_are_refused_by_name() {
    let grammars = Grammars::new(&bytes_and_pieces()).unwrap();
    let (mut n, mut failures) = (0, Vec::new());
    for case in cases().iter().filter(|case| case.get("refused").is_some()) {
        let constraint = Constraint::JsonSchema(case["schema"].to_string());
        match grammars.compile(&constraint) {
            Err(Error::Constraint { reason, .. }) if reason.contains(case["refused"].as_str().unwrap()) => {
                n += 1
            }
            other => failures.push(format!("{case}: {:?}", other.map(|_| ()))),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(n, 31);
}
