//! The engine on a small real model: the same ids alone, in company and with any number of threads.

use rhetor_formats::Checkpoint;
use rhetor_generate::open::Opened;
use rhetor_generate::{Engine, EngineOptions, PrefixStoreOptions};
use rhetor_kernels::kv::KvType;
use rhetor_lm::{Completion, LanguageModel, Request, Sampling};
use rhetor_models::{LoadOptions, Model};
use rhetor_tokenizer::Tokenizer;
use std::ops::ControlFlow;
use std::path::Path;

fn engine(prefill_chunk: usize) -> Engine {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama-speaker");
    let checkpoint = Checkpoint::open(&path).unwrap();
    let model = Model::load(&checkpoint, LoadOptions::default()).unwrap();
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap();
    let options = EngineOptions { prefill_chunk: Some(prefill_chunk), ..EngineOptions::default() };
    Engine::new("llama-speaker", model, tokenizer, options).unwrap()
}

fn request(i: u64) -> Request {
    let mut request =
        Request::text(["the sun", "a cat sat on", "hello", "to be or not to be"][i as usize % 4]);
    request.max_tokens = Some(20 + i as usize);
    request.seed = i;
    if i % 2 == 1 {
        request.sampling = Sampling { temperature: 0.8, top_p: 0.95, ..Sampling::default() };
    }
    request
}

fn ids(engine: &Engine, i: u64) -> Vec<Vec<u32>> {
    let answers: Vec<Completion> = engine.generate(&request(i), &mut |_| ControlFlow::Continue(())).unwrap();
    answers.into_iter().map(|answer| answer.token_ids).collect()
}

#[test]
fn a_request_gives_the_same_ids_alone_among_eight_others_and_with_one_or_two_threads() {
    let reference = engine(512);
    let alone: Vec<Vec<Vec<u32>>> = (0..9).map(|i| ids(&reference, i)).collect();
    assert!(alone.iter().all(|answers| !answers[0].is_empty()));
    for n_threads in [1, 2] {
        rhetor_kernels::threads::set_threads(n_threads);
        let engine = engine(3);
        let together: Vec<Vec<Vec<u32>>> = std::thread::scope(|scope| {
            let engine = &engine;
            let callers: Vec<_> = (0..9).map(|i| scope.spawn(move || ids(engine, i))).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        assert_eq!(together, alone, "{n_threads} threads");
    }
}

#[test]
fn options_beyond_what_the_model_was_made_for_are_refused() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama-speaker");
    let checkpoint = Checkpoint::open(&path).unwrap();
    let make = |options: EngineOptions| {
        let model = Model::load(&checkpoint, LoadOptions::default()).unwrap();
        let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap();
        Engine::new("llama-speaker", model, tokenizer, options).map(|_| ()).unwrap_err().to_string()
    };
    let long = make(EngineOptions { context: Some(1 << 30), ..EngineOptions::default() });
    assert!(long.contains("1073741824"), "{long}");
    let small = make(EngineOptions { cache_tokens: Some(1), ..EngineOptions::default() });
    assert!(small.contains("the cache holds 1 tokens"), "{small}");
}

#[test]
fn keys_and_values_read_from_disk_are_those_that_were_computed_whatever_their_type() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama-speaker");
    let longer = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), longer.path().join(entry.file_name())).unwrap();
    }
    // The same numbers for a context that has room for a prompt worth a file.
    let config = std::fs::read_to_string(longer.path().join("config.json")).unwrap();
    let config = config.replace("\"max_position_embeddings\": 256", "\"max_position_embeddings\": 1024");
    std::fs::write(longer.path().join("config.json"), config).unwrap();
    for kv in KvType::ALL {
        let dir = tempfile::tempdir().unwrap();
        let path = longer.path();
        let make = || {
            let opened = Opened::read(path, &[], None).unwrap();
            let (max_bytes, model) = (1 << 30, String::new());
            let prefix_store = Some(PrefixStoreOptions { dir: dir.path().to_path_buf(), max_bytes, model });
            opened
                .speak("llama-speaker", EngineOptions { kv, prefix_store, ..EngineOptions::default() })
                .unwrap()
        };
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let (text, seed) = ("the sun was high and the cat sat on the mat ".repeat(8), 5);
        let asked = Request { max_tokens: Some(40), sampling, seed, ..Request::text(text) };
        let ask =
            |engine: Engine| engine.generate(&asked, &mut |_| ControlFlow::Continue(())).unwrap().remove(0);
        let (cold, warm) = (ask(make()), ask(make()));
        assert_eq!((&warm.token_ids, warm.logprob_sum), (&cold.token_ids, cold.logprob_sum), "{kv:?}");
        assert_eq!(cold.usage.cached_tokens, 0);
        assert_eq!(warm.usage.cached_tokens, (cold.usage.prompt_tokens - 1) / 32 * 32);
    }
}
