//! Drafters on small real models: the draft model's guesses are what they should be, and change no answer.

use rhetor_formats::Checkpoint;
use rhetor_generate::{DRAFT_TOKENS, DRAFTERS, DrafterOptions, Engine, EngineOptions, Error};
use rhetor_lm::{Completion, LanguageModel, Request, Sampling};
use rhetor_models::{LoadOptions, Model, init};
use rhetor_tokenizer::Tokenizer;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn speaker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama-speaker")
}

/// An engine on the speaking fixture.
fn engine(cache_tokens: Option<usize>, drafter: Option<DrafterOptions>) -> Result<Engine, Error> {
    let checkpoint = Checkpoint::open(&speaker()).unwrap();
    let model = Model::load(&checkpoint, LoadOptions::default()).unwrap();
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap();
    Engine::new(
        "speaker",
        model,
        tokenizer,
        EngineOptions { cache_tokens, drafter, ..EngineOptions::default() },
    )
}

fn refused(drafter: DrafterOptions) -> String {
    engine(None, Some(drafter)).err().expect("it is refused").to_string()
}

/// A drafter that guesses in every step.
fn drafter(method: &str, checkpoint: Option<&Path>) -> DrafterOptions {
    let checkpoint = checkpoint.map(Path::to_path_buf);
    DrafterOptions { checkpoint, is_adaptive: false, ..DrafterOptions::new(method) }
}

fn ask(engine: &Engine, request: &Request) -> Vec<Completion> {
    engine.generate(request, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn request(i: u64) -> Request {
    let texts = ["the sun", "a cat sat on", "hello", "to be or not to be that is the question of our time"];
    let mut request = Request::text(texts[i as usize % 4].repeat(1 + i as usize % 3));
    (request.max_tokens, request.seed, request.n) = (Some(30 + i as usize), i, 1 + i as usize % 2);
    request.sampling.logit_bias = vec![(1, f32::NEG_INFINITY)];
    if i % 3 == 2 {
        request.sampling = Sampling { temperature: 0.8, top_p: 0.95, ..request.sampling };
    }
    request
}

fn ids(engine: &Engine, i: u64) -> Vec<Vec<u32>> {
    ask(engine, &request(i)).into_iter().map(|answer| answer.token_ids).collect()
}

/// A model of the same shape and vocabulary with other weights.
fn stranger(folder: &Path) {
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(speaker().join(file), folder.join(file)).unwrap();
    }
    init::write(folder, 7).unwrap();
}

#[test]
fn a_draft_model_that_is_the_model_is_always_right() {
    let engine = engine(None, Some(drafter("draft-model", Some(&speaker())))).unwrap();
    for i in [0, 1, 3] {
        for answer in ask(&engine, &request(i)) {
            let usage = answer.usage;
            assert!(usage.drafted_tokens > 20 && usage.accepted_tokens == usage.drafted_tokens, "{usage:?}");
        }
    }
}

#[test]
fn a_draft_model_good_or_bad_changes_no_answer_alone_among_others_and_in_a_small_cache() {
    let plain = engine(Some(2048), None).unwrap();
    let expected: Vec<Vec<Vec<u32>>> = (0..9).map(|i| ids(&plain, i)).collect();
    let folder = tempfile::tempdir().unwrap();
    stranger(folder.path());
    for (path, cache_tokens) in [(speaker(), 2048), (speaker(), 256), (folder.path().to_path_buf(), 256)] {
        let engine = engine(Some(cache_tokens), Some(drafter("draft-model", Some(&path)))).unwrap();
        let together: Vec<Vec<Vec<u32>>> = std::thread::scope(|scope| {
            let engine = &engine;
            let callers: Vec<_> = (0..9).map(|i| scope.spawn(move || ids(engine, i))).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        assert_eq!(together, expected, "{} with {cache_tokens} tokens", path.display());
        assert_eq!((0..9).map(|i| ids(&engine, i)).collect::<Vec<_>>(), expected, "one after the other");
        let stats = engine.stats();
        assert!(stats.tokens_drafted > 100 && stats.tokens_accepted <= stats.tokens_drafted, "{stats:?}");
    }
}

#[test]
fn an_adaptive_drafter_changes_no_answer_either() {
    let plain = engine(None, None).unwrap();
    for method in ["prompt-lookup", "draft-model"] {
        let checkpoint = (method == "draft-model").then(speaker);
        let options = DrafterOptions { checkpoint, n_tokens: Some(4), ..DrafterOptions::new(method) };
        let engine = engine(None, Some(options)).unwrap();
        for i in 0..6 {
            assert_eq!(ids(&engine, i), ids(&plain, i), "{method}");
        }
    }
}

#[test]
fn a_drafter_that_cannot_guess_for_the_model_is_refused_by_name() {
    let unknown = refused(DrafterOptions::new("medusa"));
    assert!(unknown.contains("`medusa`") && unknown.contains("prompt-lookup, draft-model"), "{unknown}");
    assert!(refused(DrafterOptions::new("draft-model")).contains("needs a draft model"));
    assert!(refused(drafter("prompt-lookup", Some(&speaker()))).contains("reads no checkpoint"));
    assert!(refused(DrafterOptions::new("eagle")).contains("needs a draft head"));
    let head = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/eagle/eagle2");
    assert!(refused(drafter("eagle", Some(&head))).contains("the target's width"));
    let far = refused(DrafterOptions { n_tokens: Some(17), ..DrafterOptions::new("prompt-lookup") });
    assert!(far.contains("draft-tokens = 17 is outside 1 to 16"), "{far}");
    let missing = refused(drafter("draft-model", Some(Path::new("nowhere"))));
    assert!(missing.contains("nowhere"), "{missing}");

    // Another vocabulary: with both sizes, or with the first token that is another.
    let folder = tempfile::tempdir().unwrap();
    stranger(folder.path());
    let file = folder.path().join("tokenizer.json");
    let json = std::fs::read_to_string(&file).unwrap();
    let swapped = json.replacen("\"a\":", "\"@@\":", 1).replacen("\"b\":", "\"a\":", 1);
    assert_ne!(swapped, json);
    std::fs::write(&file, swapped.replacen("\"@@\":", "\"b\":", 1)).unwrap();
    let other = refused(drafter("draft-model", Some(folder.path())));
    assert!(other.contains("is `b` in one and `a` in the other"), "{other}");
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(small.join(file), folder.path().join(file)).unwrap();
    }
    let mut short: serde_json::Value = serde_json::from_str(&json).unwrap();
    let vocab = short["model"]["vocab"].as_object_mut().unwrap();
    let n_before = vocab.len();
    vocab.retain(|piece, _| piece != "z");
    assert_eq!(vocab.len(), n_before - 1);
    short["model"]["merges"] = serde_json::json!([]);
    std::fs::write(&file, short.to_string()).unwrap();
    let other = refused(drafter("draft-model", Some(folder.path())));
    assert!(other.contains("has a vocabulary of") && other.contains("258"), "{other}");
}

#[test]
fn every_drafter_introduces_itself() {
    for method in DRAFTERS {
        assert!(!method.about.summary.is_empty() && !method.about.summary.ends_with('.'));
        assert_eq!(method.about.options, [DRAFT_TOKENS]);
    }
    let names: std::collections::BTreeSet<&str> = DRAFTERS.iter().map(|method| method.about.name).collect();
    assert_eq!(names.len(), DRAFTERS.len(), "{names:?}");
}
