//! Encoder-decoders against their references, for every checkpoint under `fixtures/seq2seq`.
//!
//! Each case is run whole, with its source read to the cache and its tokens one by one and in chunks, and beside others;
//! losses and gradients are compared where the reference gives them.

use rhetor_formats::Checkpoint;
use rhetor_kernels::DType;
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_kernels::kv::{KvType, PAGE_LEN};
use rhetor_kernels::threads;
use rhetor_models::adapters::{self, AdapterOptions};
use rhetor_models::convert::{ConvertOptions, to_gguf, to_hugging_face};
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Active, Batch, Keep, KvCache, LoadOptions, Model, SequenceSpan, SourceTokens, Training};
use rhetor_tensor::ops::cross_entropy::{Targets, cross_entropy};
use rhetor_tensor::tape;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Cases that answer a source; the others only read.
const CASES: &[&str] = &["t5", "t5-v11", "t5-v11-untied", "transformer", "fid"];

/// A checkpoint and what the reference computes for its prompts.
struct Case {
    name: &'static str,
    model: Model,
    expected: Checkpoint,
    tolerance: f32,
    prompts: Vec<Prompt>,
}

/// A source, what was written so far, and the logits that follow each token: [S], [T] and [T, V].
struct Prompt {
    source: Vec<u32>,
    ids: Vec<u32>,
    logits: Vec<f32>,
}

#[test]
fn whole_prompts_have_the_logits_of_the_reference() {
    for case in cases() {
        for prompt in &case.prompts {
            let logits = whole(&case.model, &[prompt], None);
            compare(&case, "whole", &logits, &prompt.logits, case.tolerance);
        }
    }
}

#[test]
fn tokens_after_a_source_that_was_read_have_the_logits_of_the_whole() {
    for case in cases() {
        for prompt in &case.prompts {
            let all = whole(&case.model, &[prompt], None);
            let [one, seven, once] = [1, 7, prompt.ids.len()].map(|chunk| alone(&case.model, prompt, chunk));
            compare(&case, "one by one", &one, &all, 1e-5 * largest(&all).max(1.0));
            same_bits(&case, "in chunks of 7", &seven, &one);
            same_bits(&case, "at once", &once, &one);
        }
    }
}

#[test]
fn prompts_side_by_side_have_the_logits_they_have_alone() {
    for case in cases() {
        let prompts: Vec<&Prompt> = case.prompts.iter().chain(&case.prompts).rev().collect();
        let together = whole(&case.model, &prompts, None);
        let alone_each: Vec<f32> = prompts.iter().flat_map(|p| whole(&case.model, &[p], None)).collect();
        same_bits(&case, "side by side", &together, &alone_each);
        let mut cache = KvCache::new(case.model.config(), KvType::F32, 64);
        let mut free = (0..64).rev();
        let mut pages = |n: usize| -> Vec<u32> { free.by_ref().take(n.div_ceil(PAGE_LEN)).collect() };
        let (own, read): (Vec<_>, Vec<_>) =
            prompts.iter().map(|p| (pages(p.ids.len()), pages(p.source.len()))).unzip();
        let tables: Vec<&[u32]> = read.iter().map(Vec::as_slice).collect();
        let source = SourceTokens::of(prompts.iter().map(|prompt| &*prompt.source));
        case.model.read(&source, &tables, &Active::All, &mut cache);
        let span = |(i, prompt): (usize, &&Prompt)| SequenceSpan {
            pages: own[i].clone(),
            len: prompt.ids.len(),
            source_pages: read[i].clone(),
            source_len: prompt.source.len(),
            ..SequenceSpan::default()
        };
        let tokens: Vec<u32> = prompts.iter().flat_map(|prompt| prompt.ids.clone()).collect();
        let spans = prompts.iter().enumerate().map(span).collect();
        let batch = Batch { outputs: (0..tokens.len()).collect(), tokens, spans, ..Batch::default() };
        let together = case.model.forward(&batch, Some(&mut cache)).data().to_vec();
        let each: Vec<f32> = prompts.iter().flat_map(|p| alone(&case.model, p, p.ids.len())).collect();
        same_bits(&case, "side by side with a cache", &together, &each);
    }
}

#[test]
fn a_row_has_the_same_bits_with_one_two_and_three_threads() {
    let before = threads::threads();
    for case in cases() {
        let prompt = &case.prompts[0];
        let runs = [1, 2, 3].map(|n| {
            threads::set_threads(n);
            (whole(&case.model, &[prompt], None), alone(&case.model, prompt, prompt.ids.len()))
        });
        for (n, run) in [(2, &runs[1]), (3, &runs[2])] {
            same_bits(&case, &format!("{n} threads"), &run.0, &runs[0].0);
            same_bits(&case, &format!("{n} threads with a cache"), &run.1, &runs[0].1);
        }
    }
    threads::set_threads(before);
}

#[test]
fn methods_that_an_encoder_decoder_cannot_have_are_refused_by_name() {
    for (method, is_refused) in [
        ("prefix-tuning", true),
        ("prompt-tuning", true),
        ("longlora", true),
        ("lora", false),
        ("ia3", false),
    ] {
        let adapter = adapters::build(method, &AdapterOptions::default());
        let adapter = adapter.unwrap_or_else(|error| panic!("{method}: {error}"));
        let checkpoint = open(&root().join("fixtures/seq2seq/t5"));
        let loaded = Model::load_adapted(&checkpoint, LoadOptions::default(), &mut [adapter]);
        match loaded {
            Err(error) => assert!(is_refused && error.to_string().contains("t5"), "{method}: {error}"),
            Ok(_) => assert!(!is_refused, "{method}"),
        }
    }
}

#[test]
fn an_encoder_alone_has_the_rows_of_the_reference_and_codet5p_of_length_one() {
    for name in ["t5-encoder", "codet5p-embedding"] {
        let case = case(name);
        for prompt in &case.prompts {
            let rows = case.model.forward(&Batch::whole(&prompt.source), None);
            compare(&case, "rows", rows.data(), &prompt.logits, case.tolerance);
            let length = rows.row(0).iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((length - 1.0).abs() < 1e-5 || name == "t5-encoder", "{length}");
        }
        assert!(!case.model.generates() && !case.model.config().has_encoder());
    }
    let folder = tempfile::tempdir().expect("a folder for the converted file");
    let options = ConvertOptions { mix: Mix::F32, importance: None, vocabulary: Vec::new() };
    let fixtures = root().join("fixtures/seq2seq");
    let file = folder.path().join("encoder.gguf");
    to_gguf(&open(&fixtures.join("t5-encoder")), &file, &options, &mut |_| ()).expect("GGUF knows it");
    let case = case("t5-encoder");
    let model = Model::load(&open(&file), LoadOptions::default()).expect("what was written loads");
    let rows = model.forward(&Batch::whole(&case.prompts[0].source), None);
    compare(&case, "rows, as GGUF", rows.data(), &case.prompts[0].logits, case.tolerance);
    let refused = to_gguf(&open(&fixtures.join("codet5p-embedding")), &file, &options, &mut |_| ());
    assert!(refused.is_err_and(|error| error.to_string().contains("cannot be said in GGUF")));
}

#[test]
fn passages_are_read_one_by_one_and_their_order_changes_nothing() {
    let case = case("fid");
    let passages: Vec<Vec<u32>> = (0..3).map(|i| ids(&case.expected, &format!("passages.{i}"))).collect();
    let expected = floats(&case.expected, "passages.logits");
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let source = SourceTokens {
            tokens: order.iter().flat_map(|&i| passages[i].clone()).collect(),
            passages: vec![order.map(|i| passages[i].len()).to_vec()],
        };
        let written = &case.prompts[0].ids;
        let batch = Batch { source: Some(Arc::new(source)), ..Batch::whole(written) };
        let logits = case.model.forward(&batch, None);
        compare(&case, "passages", logits.data(), &expected, 1e-5 * largest(&expected));
    }
    // With one passage it is T5.
    let t5 = self::case("t5");
    let [a, b] = [&case, &t5].map(|case| whole(&case.model, &[&t5.prompts[1]], None));
    same_bits(&case, "one passage against T5", &a, &b);
}

#[test]
fn losses_and_gradients_equal_those_of_the_reference() {
    for name in ["t5", "transformer"] {
        for keep in [Keep::All, Keep::Blocks] {
            let folder = root().join("fixtures/seq2seq").join(name);
            let checkpoint = open(&folder);
            let full = adapters::build("full", &AdapterOptions::default()).expect("full takes no options");
            let model = Model::load_adapted(&checkpoint, LoadOptions::default(), &mut [full]);
            let case = Case { model: model.expect("every tensor can be trained"), ..case(name) };
            let prompts: Vec<&Prompt> = case.prompts.iter().collect();
            let targets: Vec<u32> =
                prompts.iter().flat_map(|p| p.ids[1..].iter().copied().chain([1])).collect();
            let scale = 1.0 / targets.len() as f32;
            let targets = Targets { tokens: &targets, weights: None, scale };
            let training = Some(Training { seed: 1, keep });
            let loss = |smoothing| {
                tape::record(|| {
                    let logits = forward(&case.model, &prompts, training);
                    let options = CrossEntropy { smoothing, ..CrossEntropy::default() };
                    cross_entropy(logits, targets, options).total
                })
            };
            for (key, smoothing) in [("loss", 0.0), ("smoothed", 0.1)] {
                let expected = floats(&case.expected, key);
                compare(&case, key, loss(smoothing).0.data(), &expected, 1e-5);
            }
            let (total, tape) = loss(0.1);
            tape.backward(&total);
            let mut n_compared = 0;
            for parameter in case.model.parameters() {
                let key = format!("grad.{}", parameter.name());
                if case.expected.find(&key).is_some() {
                    let expected = floats(&case.expected, &key);
                    compare(
                        &case,
                        &key,
                        &parameter.gradient(),
                        &expected,
                        1e-4 * largest(&expected).max(0.1),
                    );
                    n_compared += 1;
                }
            }
            assert!(n_compared >= 8, "{name}: {n_compared} gradients only");
        }
    }
}

#[test]
fn t5_keeps_its_logits_through_gguf_and_back() {
    let folder = tempfile::tempdir().expect("a folder for the converted files");
    for name in ["t5", "t5-v11", "t5-v11-untied"] {
        let before = case(name);
        let (file, back) = (folder.path().join(format!("{name}.gguf")), folder.path().join(name));
        let options = |mix| ConvertOptions { mix, importance: None, vocabulary: Vec::new() };
        let source = open(&root().join("fixtures/seq2seq").join(name));
        to_gguf(&source, &file, &options(Mix::F32), &mut |_| ()).expect("T5 has names in GGUF");
        let load =
            |path: &Path| Model::load(&open(path), LoadOptions::default()).expect("what was written loads");
        let case = Case { model: load(&file), ..before };
        for prompt in &case.prompts {
            let logits = whole(&case.model, &[prompt], None);
            compare(&case, "as GGUF", &logits, &prompt.logits, case.tolerance);
        }
        to_hugging_face(&open(&file), &back, DType::F32, &mut |_| ()).expect("and back");
        let case = Case { model: load(&back), ..case };
        for prompt in &case.prompts {
            let logits = whole(&case.model, &[prompt], None);
            compare(&case, "and back", &logits, &prompt.logits, case.tolerance);
        }
    }
}

#[test]
fn a_new_t5_begins_as_its_paper_says_and_keeps_its_logits_in_eight_bits() {
    let folder = tempfile::tempdir().expect("a folder for the new model");
    let config = serde_json::json!({
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": 99, "d_model": 64,
        "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 8, "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": false, "decoder_start_token_id": 0,
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("it can be written");
    rhetor_models::init::write(folder.path(), 7).expect("the config is whole");
    let new = open(folder.path());
    // Each with what its standard deviation is, times the square root.
    for (end, over) in
        [("shared", 1), ("SelfAttention.q", 64 * 16), ("k", 64), ("o", 128), ("wi_0", 64), ("wo", 128)]
    {
        let name = match end {
            "shared" => "shared.weight".to_string(),
            "wi_0" | "wo" => format!("decoder.block.1.layer.2.DenseReluDense.{end}.weight"),
            end => format!(
                "decoder.block.1.layer.0.SelfAttention.{}.weight",
                end.trim_start_matches("SelfAttention.")
            ),
        };
        let values = floats(&new, &name);
        let mean_square = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
        let ratio = mean_square * over as f32;
        assert!((ratio - 1.0).abs() < 0.1, "{name}: {ratio}");
    }
    let file = folder.path().join("eight.gguf");
    let options = ConvertOptions { mix: Mix::Q8_0, importance: None, vocabulary: Vec::new() };
    to_gguf(&new, &file, &options, &mut |_| ()).expect("T5 has names in GGUF");
    let prompt = &case("t5").prompts[1];
    let [full, eight] = [&new, &open(&file)].map(|checkpoint| {
        let model = Model::load(checkpoint, LoadOptions::default()).expect("what was written loads");
        whole(&model, &[prompt], None)
    });
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    let off = norm(&mut full.iter().zip(&eight).map(|(a, b)| a - b)) / norm(&mut full.iter().copied());
    println!("Q8_0: relative error {off:.1e}");
    // Normal weights and rows err by 0.7 % a product in blocks of 32, and nine products stand behind one another.
    assert!(off > 1e-5 && off < 0.03, "{off}");
}

#[test]
fn published_sizes_are_those_that_configurations_give() {
    let t5 = |d, layers, heads, d_kv, d_ff| {
        serde_json::json!({"model_type": "t5", "vocab_size": 32128, "d_model": d, "num_layers": layers,
            "num_heads": heads, "d_kv": d_kv, "d_ff": d_ff})
    };
    let transformer = |d, heads, d_ff| {
        serde_json::json!({"model_type": "transformer-2017", "vocab_size": 37000, "d_model": d, "num_heads": heads,
            "num_encoder_layers": 6, "num_decoder_layers": 6, "d_ff": d_ff, "max_position_embeddings": 512})
    };
    let of_vocabulary = |mut config: serde_json::Value, n: u32| {
        config["vocab_size"] = n.into();
        config
    };
    let mut embedding = of_vocabulary(t5(768, 12, 12, 64, 3072), 32103);
    embedding["model_type"] = "codet5p_embedding".into();
    embedding["architectures"] = serde_json::json!(["CodeT5pEmbeddingModel"]);
    embedding["embed_dim"] = 256.into();
    let sizes = [
        ("t5-small", t5(512, 6, 8, 64, 2048)),
        ("t5-base", t5(768, 12, 12, 64, 3072)),
        ("t5-large", t5(1024, 24, 16, 64, 4096)),
        ("t5-3b", t5(1024, 24, 32, 128, 16384)),
        ("t5-11b", t5(1024, 24, 128, 128, 65536)),
        ("codet5p-220m", of_vocabulary(t5(768, 12, 12, 64, 3072), 32100)),
        ("codet5p-770m", of_vocabulary(t5(1024, 24, 16, 64, 4096), 32100)),
        ("codet5p-110m-embedding", embedding),
        ("transformer-base", transformer(512, 8, 2048)),
        ("transformer-big", transformer(1024, 16, 4096)),
    ];
    let folder = tempfile::tempdir().expect("a folder for configurations");
    let weights = folder.path().join("model.safetensors");
    rhetor_formats::safetensors::write(&weights, &[], &[], |_, _| Ok(())).expect("a file without tensors");
    for (name, config) in sizes {
        std::fs::write(folder.path().join("config.json"), config.to_string()).expect("it can be written");
        let checkpoint = open(folder.path());
        let family = rhetor_models::Family::of(&checkpoint).expect("the family is known");
        let config = Model::config_of(&checkpoint).expect("the config is whole");
        let published = family.published.iter().find(|known| known.name == name).expect("it is in the table");
        assert_eq!(published.n_parameters, family.n_parameters(&config), "{name}");
    }
}

fn cases() -> impl Iterator<Item = Case> {
    CASES.iter().map(|name| case(name))
}

fn case(name: &'static str) -> Case {
    let folder = root().join("fixtures/seq2seq").join(name);
    let about = std::fs::read_to_string(folder.join("expected.json")).expect("the golden is there");
    let about: serde_json::Value = serde_json::from_str(&about).expect("the golden is JSON");
    let expected = open(&folder.join("expected.safetensors"));
    let prompts = 0..about["prompts"].as_u64().expect("the number of prompts is recorded");
    let prompts = prompts.map(|i| Prompt {
        source: ids(&expected, &format!("source.{i}")),
        ids: ids(&expected, &format!("input_ids.{i}")),
        logits: floats(&expected, &format!("logits.{i}")),
    });
    let prompts = prompts.collect();
    let tolerance = about["tolerance"].as_f64().expect("the tolerance is recorded") as f32;
    let model = Model::load(&open(&folder), LoadOptions::default());
    Case {
        name,
        model: model.unwrap_or_else(|error| panic!("{name}: {error}")),
        expected,
        tolerance,
        prompts,
    }
}

/// Without a cache. → [ΣT, V]
fn forward(model: &Model, prompts: &[&Prompt], training: Option<Training>) -> rhetor_tensor::Tensor {
    let tokens: Vec<u32> = prompts.iter().flat_map(|prompt| prompt.ids.clone()).collect();
    let span = |prompt: &&Prompt| SequenceSpan { len: prompt.ids.len(), ..SequenceSpan::default() };
    let batch = Batch {
        spans: prompts.iter().map(span).collect(),
        outputs: (0..tokens.len()).collect(),
        tokens,
        source: Some(Arc::new(SourceTokens::of(prompts.iter().map(|prompt| &*prompt.source)))),
        training,
        ..Batch::default()
    };
    model.forward(&batch, None)
}

fn whole(model: &Model, prompts: &[&Prompt], training: Option<Training>) -> Vec<f32> {
    forward(model, prompts, training).data().to_vec()
}

/// With a cache of its own, in chunks. → [T, V]
fn alone(model: &Model, prompt: &Prompt, chunk: usize) -> Vec<f32> {
    let (n_own, n_source) = (prompt.ids.len().div_ceil(PAGE_LEN), prompt.source.len().div_ceil(PAGE_LEN));
    let mut cache = KvCache::new(model.config(), KvType::F32, n_own + n_source);
    let pages: Vec<u32> = (0..(n_own + n_source) as u32).collect();
    let (own, read) = pages.split_at(n_own);
    model.read(&SourceTokens::of([&*prompt.source]), &[read], &Active::All, &mut cache);
    let mut logits = Vec::new();
    for (i, part) in prompt.ids.chunks(chunk).enumerate() {
        let span = SequenceSpan {
            pages: own.to_vec(),
            start: i * chunk,
            len: part.len(),
            source_pages: read.to_vec(),
            source_len: prompt.source.len(),
            ..SequenceSpan::default()
        };
        let outputs = (0..part.len()).collect();
        let batch = Batch { tokens: part.to_vec(), spans: vec![span], outputs, ..Batch::default() };
        logits.extend_from_slice(model.forward(&batch, Some(&mut cache)).data());
    }
    logits
}

fn compare(case: &Case, how: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{} {how}: number of values", case.name);
    let differences = got.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let (at, off) = differences.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are values");
    println!("{:16} {how:30} largest difference {off:.1e}, allowed {tolerance:.1e}", case.name);
    assert!(off <= tolerance, "{} {how}: value {at} differs by {off}, allowed are {tolerance}", case.name);
}

fn same_bits(case: &Case, how: &str, a: &[f32], b: &[f32]) {
    let at = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits());
    assert!(at.is_none() && a.len() == b.len(), "{} {how}: value {at:?} has other bits", case.name);
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max, x| x.abs().max(max))
}

fn bytes<'c>(expected: &'c Checkpoint, tensor: &str) -> &'c [u8] {
    expected.bytes(expected.find(tensor).unwrap_or_else(|| panic!("{tensor} is not in the golden")))
}

fn ids(expected: &Checkpoint, tensor: &str) -> Vec<u32> {
    let ids = bytes(expected, tensor).chunks_exact(8);
    ids.map(|id| u64::from_le_bytes(id.try_into().expect("8 bytes")) as u32).collect()
}

fn floats(expected: &Checkpoint, tensor: &str) -> Vec<f32> {
    let values = bytes(expected, tensor).chunks_exact(4);
    values.map(|value| f32::from_le_bytes(value.try_into().expect("4 bytes"))).collect()
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
