//! The engine on small random T5 models: what transformers generates for them, greedily and with four beams.

use rhetor_formats::Checkpoint;
use rhetor_generate::{Engine, EngineOptions};
use rhetor_kernels::kv::KvType;
use rhetor_lm::{LanguageModel, Prompt, Request};
use rhetor_models::{LoadOptions, Model};
use rhetor_tokenizer::{ControlTokens, Tokenizer};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

struct Case {
    engine: Engine,
    expected: Checkpoint,
    end: u32,
}

/// The model of a folder, with a vocabulary in which token 7 is written `<7>`, and whose text ends with `end`.
fn case(name: &str) -> Case {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/seq2seq").join(name);
    let json = |file: PathBuf| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    };
    let end = json(folder.join("expected.json"))["end"].as_u64().unwrap() as u32;
    let pieces = |of: &dyn Fn(u32, String) -> serde_json::Value| -> Vec<serde_json::Value> {
        (0..99).map(|id| of(id, format!("<{id}>"))).collect()
    };
    let added = pieces(&|id, content| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    });
    let vocab: serde_json::Map<String, serde_json::Value> =
        (0..99).map(|id: u32| (format!("<{id}>"), id.into())).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "added_tokens": added,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": []},
    });
    let beside = tempfile::tempdir().unwrap();
    std::fs::write(beside.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let settings = serde_json::json!({"eos_token": format!("<{end}>")});
    std::fs::write(beside.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    let tokenizer = Tokenizer::from_file(beside.path()).unwrap();
    assert_eq!(tokenizer.stops(), [end]);
    let model = Model::load(&Checkpoint::open(&folder).unwrap(), LoadOptions::default()).unwrap();
    let options = EngineOptions { kv: KvType::F32, ..EngineOptions::default() };
    let engine = Engine::new(name, model, tokenizer, options).unwrap();
    let expected = Checkpoint::open(&folder.join("expected.safetensors")).unwrap();
    Case { engine, expected, end }
}

impl Case {
    fn ids(&self, tensor: String) -> Vec<u32> {
        let ids = self.expected.bytes(self.expected.find(&tensor).unwrap()).chunks_exact(8);
        ids.map(|id| u64::from_le_bytes(id.try_into().unwrap()) as u32).collect()
    }

    fn request(&self, i: usize, beams: usize) -> Request {
        let text = self.engine.tokenizer().decode(&self.ids(format!("prompt.{i}")), ControlTokens::Show);
        let prompt = Prompt::Text { text, parse_special: true };
        Request { max_tokens: Some(24), beams, ..Request::new(prompt) }
    }

    fn answer(&self, i: usize, beams: usize) -> Vec<u32> {
        let request = self.request(i, beams);
        assert_eq!(self.engine.encode(&request.prompt).unwrap(), self.ids(format!("prompt.{i}")));
        self.engine.generate(&request, &mut |_| ControlFlow::Continue(())).unwrap().remove(0).token_ids
    }
}

#[test]
fn answers_are_those_of_transformers_greedy_and_with_four_beams() {
    for name in ["t5", "t5-v11-untied"] {
        let case = case(name);
        let mut n_ended = 0;
        for i in 0..10 {
            for (kind, beams) in [("greedy", 1), ("beam", 4)] {
                let answer = case.answer(i, beams);
                assert_eq!(answer, case.ids(format!("{kind}.{i}")), "{name}, {kind} {i}");
                n_ended += usize::from(answer.last() == Some(&case.end));
            }
        }
        assert!(n_ended >= 3, "{name}: {n_ended} answers end by themselves");
    }
}

#[test]
fn answers_in_company_are_those_alone_with_one_and_two_threads() {
    let alone = case("t5-v11-untied");
    let alone: Vec<Vec<u32>> = (0..20).map(|i| alone.answer(i / 2, 1 + 3 * (i % 2))).collect();
    for n_threads in [1, 2] {
        rhetor_kernels::threads::set_threads(n_threads);
        let case = case("t5-v11-untied");
        let together: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let case = &case;
            let ask = |i: usize| scope.spawn(move || case.answer(i / 2, 1 + 3 * (i % 2)));
            let callers: Vec<_> = (0..20).map(ask).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        assert_eq!(together, alone, "{n_threads} threads");
    }
}

#[test]
fn the_score_of_an_answer_is_what_it_was_chosen_with() {
    let case = case("t5");
    for i in 0..5 {
        let request = Request { logprobs: Some(0), ..case.request(i, 1) };
        let said = case.engine.generate(&request, &mut |_| ControlFlow::Continue(())).unwrap().remove(0);
        let prompt = case.ids(format!("prompt.{i}"));
        let all = [&prompt[..], &said.token_ids].concat();
        let scores = case.engine.score_ids(&all, prompt.len()).unwrap();
        let sum: f64 = scores.iter().map(|score| f64::from(score.logprob)).sum();
        assert!((sum - said.logprob_sum).abs() < 1e-3, "{sum} {}", said.logprob_sum);
        assert!(scores.iter().all(|score| score.is_greedy));
    }
}
