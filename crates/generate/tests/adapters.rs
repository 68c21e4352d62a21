//! Several adapters on one engine: each request is answered as if its adapters were the only ones.

use rhetor_formats::Checkpoint;
use rhetor_generate::{Engine, EngineOptions, Error};
use rhetor_lm::{Completion, Error as LmError, LanguageModel, Request};
use rhetor_models::adapters::{Adapter, Purpose, peft};
use rhetor_models::{LoadOptions, Model};
use rhetor_tokenizer::Tokenizer;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/peft").join(name)
}

/// A tokenizer of 62 tokens: letters and digits, one each.
fn letters() -> Tokenizer {
    let letters = ('a'..='z').chain('A'..='Z').chain('0'..='9').enumerate();
    let vocab: serde_json::Map<String, serde_json::Value> =
        letters.map(|(id, letter)| (letter.to_string(), id.into())).collect();
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": []},
    });
    Tokenizer::from_json_bytes(json.to_string().as_bytes()).unwrap()
}

fn engine(names: &[&str]) -> Result<Engine, Error> {
    let open = |name: &&str| peft::open(&fixture(name), Purpose::Inference).unwrap().adapter;
    let mut adapters: Vec<Box<dyn Adapter>> = names.iter().map(open).collect();
    let base = Checkpoint::open(&fixture("base")).unwrap();
    let model = Model::load_adapted(&base, LoadOptions::default(), &mut adapters).unwrap();
    let options = EngineOptions {
        cache_tokens: Some(256),
        prefill_chunk: Some(16),
        adapters: names.iter().map(|name| name.to_string()).collect(),
        ..EngineOptions::default()
    };
    Engine::new("tiny", model, letters(), options)
}

/// Longer than a page, so that it is found again in the cache.
const PROMPT: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN";

fn request(adapters: Option<&[&str]>) -> Request {
    Request {
        max_tokens: Some(12),
        adapters: adapters.map(|names| names.iter().map(|name| name.to_string()).collect()),
        ..Request::text(PROMPT)
    }
}

fn ask(engine: &Engine, request: &Request) -> Completion {
    engine.generate(request, &mut |_| ControlFlow::Continue(())).unwrap().remove(0)
}

#[test]
fn adapters_served_together_answer_as_they_do_alone() {
    let names = ["lora_qv", "ia3", "prompt"];
    let together = engine(&names).unwrap();
    let alone = |name: &str| ask(&engine(&[name]).unwrap(), &request(None));
    let plain = ask(&engine(&[]).unwrap(), &request(None));
    let mut expected: Vec<(Vec<&str>, Completion)> =
        names.iter().map(|name| (vec![*name], alone(name))).collect();
    expected.push((Vec::new(), plain));
    // In threads, again and again: steps with different adapters alternate, and the cache is full of their pages.
    std::thread::scope(|scope| {
        for round in 0..3 {
            for (names, expected) in &expected {
                let together = &together;
                scope.spawn(move || {
                    let got = ask(together, &request(Some(names)));
                    assert_eq!(got.token_ids, expected.token_ids, "{names:?} in round {round}");
                    assert_eq!(got.logprob_sum, expected.logprob_sum, "{names:?} in round {round}");
                    assert_eq!(got.usage.prompt_tokens, PROMPT.len());
                });
            }
        }
    });
    let sums: Vec<f64> = expected.iter().map(|(_, completion)| completion.logprob_sum).collect();
    assert!(sums.iter().enumerate().all(|(i, sum)| !sums[..i].contains(sum)), "they differ: {sums:?}");
    // The same prompt with the same adapter comes from the cache, virtual positions and all; with another it does not.
    let again = ask(&together, &request(Some(&["prompt"])));
    assert!(again.usage.cached_tokens > 0 && again.usage.cached_tokens < PROMPT.len(), "{:?}", again.usage);
    let stacked = ask(&together, &request(Some(&["ia3", "lora_qv"])));
    assert_eq!(stacked.usage.cached_tokens, 0);
    let both = ask(&engine(&["lora_qv", "ia3"]).unwrap(), &request(None));
    assert_eq!((stacked.token_ids, stacked.logprob_sum), (both.token_ids, both.logprob_sum));
}

#[test]
fn a_prompt_before_the_text_takes_part_of_the_context_and_changes_scores() {
    let (adapted, plain) = (engine(&["prefix"]).unwrap(), engine(&[]).unwrap());
    let fill = Request { max_tokens: None, ..request(None) };
    let n_tokens = |engine: &Engine| ask(engine, &fill).usage.completion_tokens;
    assert_eq!((n_tokens(&plain), n_tokens(&adapted)), (64 - PROMPT.len(), 64 - PROMPT.len() - 5));
    let scores = |engine: &Engine| engine.score("abc", "defg").unwrap();
    assert_eq!(scores(&adapted).tokens.len(), 4);
    assert_ne!(scores(&adapted).tokens[0].logprob, scores(&plain).tokens[0].logprob);
}

#[test]
fn adapters_that_cannot_be_switched_or_stacked_are_refused() {
    assert!(matches!(engine(&["prompt", "prefix"]), Err(Error::Adapters(_))));
    let fixed = engine(&["lora_head", "ia3"]).unwrap();
    let refused = |engine: &Engine, adapters: &[&str]| match engine
        .generate(&request(Some(adapters)), &mut |_| ControlFlow::Continue(()))
    {
        Err(LmError::InvalidOption { option: "adapters", reason }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(refused(&fixed, &["ia3"]).contains("replaces"));
    assert!(refused(&fixed, &["nobody"]).contains("lora_head, ia3"));
    let head_alone = ask(&engine(&["lora_head"]).unwrap(), &request(None));
    assert_eq!(ask(&fixed, &request(Some(&["lora_head"]))).token_ids, head_alone.token_ids);
}
