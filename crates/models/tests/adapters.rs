//! Adapters that PEFT has made, under `fixtures/peft`: the same logits, and saved again, the same files.

use rhetor_formats::Checkpoint;
use rhetor_kernels::kv::KvType;
use rhetor_models::adapters::combine::{Combination, combine};
use rhetor_models::adapters::{Adapter, AdapterError, AdapterOptions, Names, Purpose, build, peft};
use rhetor_models::convert::{ConvertOptions, to_gguf};
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Active, Batch, KvCache, LoadError, LoadOptions, Model};
use rhetor_tensor::Parameter;
use std::path::{Path, PathBuf};

fn peft_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/peft").join(name)
}

fn base() -> Checkpoint {
    Checkpoint::open(&peft_dir("base")).unwrap()
}

fn load(base: &Checkpoint, adapters: &mut [Box<dyn Adapter>]) -> Model {
    Model::load_adapted(base, LoadOptions::default(), adapters).unwrap()
}

fn open(name: &str) -> Box<dyn Adapter> {
    let opened = peft::open(&peft_dir(name), Purpose::Inference).unwrap();
    assert_eq!((opened.base.as_deref(), opened.task.as_deref()), (Some("base"), Some("CAUSAL_LM")));
    assert_eq!(opened.warnings, Vec::<String>::new());
    opened.adapter
}

fn floats(file: &str, name: &str) -> Vec<f32> {
    let checkpoint = Checkpoint::open(&peft_dir(file)).unwrap();
    let entry = checkpoint.find(name).unwrap_or_else(|| panic!("`{name}` in {file}"));
    checkpoint.bytes(entry).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The two sequences whose logits are stored.
fn sequences() -> Vec<Vec<u32>> {
    let checkpoint = Checkpoint::open(&peft_dir("expected_logits.safetensors")).unwrap();
    let bytes = checkpoint.bytes(checkpoint.find("input_ids").unwrap());
    let ids: Vec<u32> = bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as u32).collect();
    ids.chunks(7).map(<[u32]>::to_vec).collect()
}

/// Logits of all tokens of both sequences.
fn logits(model: &Model) -> Vec<f32> {
    sequences().iter().flat_map(|ids| model.forward(&Batch::whole(ids), None).data().to_vec()).collect()
}

#[track_caller]
fn assert_close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}: numbers");
    let off = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{what}: off by at most {off:e}");
    assert!(off <= tolerance, "{what}: off by {off}");
}

const LORA: &[&str] = &["lora_qv", "lora_all_rs", "lora_rankpat", "lora_emb", "lora_head", "dora"];

const OTHERS: &[&str] = &["ia3", "prompt", "prefix", "prefix_mlp"];

#[test]
fn adapters_of_peft_give_the_logits_of_peft() {
    let base = base();
    let plain = floats("expected_logits.safetensors", "base");
    assert_close("base", &logits(&load(&base, &mut [])), &plain, 1e-5);
    for &name in LORA.iter().chain(OTHERS) {
        let model = load(&base, &mut [open(name)]);
        let mut expected = floats("expected_logits.safetensors", name);
        if name == "prompt" {
            // PEFT gives the logits of the virtual positions too: 5 before the 7 of each sequence.
            expected = expected.chunks(12 * 64).flat_map(|rows| rows[5 * 64..].to_vec()).collect();
        }
        assert_close(name, &logits(&model), &expected, 2e-5);
        assert!(expected.iter().zip(&plain).any(|(a, b)| (a - b).abs() > 0.1), "{name} does something");
    }
}

#[test]
fn an_adapter_that_is_saved_again_gives_the_same_bytes() {
    let base = base();
    for name in LORA.iter().chain(OTHERS) {
        let mut adapters = [open(name)];
        load(&base, &mut adapters);
        let dir = tempfile::tempdir().unwrap();
        peft::save(&*adapters[0], dir.path(), "base", Some("CAUSAL_LM")).unwrap();
        for file in [peft::CONFIG, peft::TENSORS] {
            let read = |dir: &Path| std::fs::read(dir.join(file)).unwrap();
            assert!(read(dir.path()) == read(&peft_dir(name)), "{file} of {name}");
        }
    }
}

#[test]
fn a_new_adapter_changes_nothing_before_it_is_trained() {
    let base = base();
    let plain = logits(&load(&base, &mut []));
    for name in ["full", "lora", "dora", "ia3", "longlora"] {
        let options = AdapterOptions { targets: Names::Default, seed: 7, ..AdapterOptions::default() };
        let mut adapters = [build(name, &options).unwrap()];
        let model = load(&base, &mut adapters);
        assert!(!model.parameters().is_empty(), "{name} trains something");
        assert_close(name, &logits(&model), &plain, 1e-5);
    }
    for name in ["houlsby", "pfeiffer"] {
        let model = load(&base, &mut [build(name, &AdapterOptions::default()).unwrap()]);
        assert_close(name, &logits(&model), &plain, 1e-2);
    }
}

/// Every method that has a file: trained (here: shaken), saved, and read again, it gives the same logits.
#[test]
fn what_is_saved_after_training_gives_the_same_logits_when_it_is_read() {
    let cases: &[(&str, &[(&str, f64)])] = &[
        ("full", &[]),
        ("lora", &[("rank", 3.0), ("rslora", 1.0), ("lora-bias", 1.0)]),
        ("dora", &[("rank", 3.0)]),
        ("ia3", &[]),
        ("prompt-tuning", &[("tokens", 4.0)]),
        ("prefix-tuning", &[("tokens", 4.0)]),
        ("prefix-tuning", &[("tokens", 4.0), ("mlp", 6.0)]),
        ("houlsby", &[("size", 3.0)]),
        ("pfeiffer", &[("size", 3.0)]),
        ("longlora", &[("target-context", 128.0)]),
    ];
    let gguf = tempfile::tempdir().unwrap();
    let as_gguf = gguf.path().join("base.gguf");
    let mix = Mix::from_name("f32").unwrap();
    let options = ConvertOptions { mix, importance: None, vocabulary: Vec::new() };
    to_gguf(&base(), &as_gguf, &options, &mut |_| ()).unwrap();
    for (method, values) in cases {
        for file in [peft_dir("base"), as_gguf.clone()] {
            let base = Checkpoint::open(&file).unwrap();
            let mut adapters = [build(method, &AdapterOptions::of(values)).unwrap()];
            let model = load(&base, &mut adapters);
            for (i, parameter) in model.parameters().iter().enumerate() {
                let shake = |(j, x): (usize, &mut f32)| *x += 0.02 * ((7 * i + 3 * j) % 11) as f32 - 0.1;
                parameter.write().iter_mut().enumerate().for_each(shake);
            }
            let trained = logits(&model);
            let dir = tempfile::tempdir().unwrap();
            peft::save(&*adapters[0], dir.path(), "base", Some("CAUSAL_LM")).unwrap();
            for purpose in [Purpose::Inference, Purpose::Training] {
                // On the Hugging Face base whatever it was trained on: files have one order of rows.
                let opened = peft::open(dir.path(), purpose).unwrap();
                assert_eq!(opened.warnings, Vec::<String>::new());
                let model = load(&Checkpoint::open(&peft_dir("base")).unwrap(), &mut [opened.adapter]);
                assert_close(method, &logits(&model), &trained, 1e-3);
                assert_eq!(model.parameters().iter().any(|p| p.is_trained()), purpose == Purpose::Training);
            }
        }
    }
}

#[test]
fn generation_with_a_cache_sees_the_virtual_positions_of_the_whole_pass() {
    for name in ["prompt", "prefix", "lora_qv"] {
        let model = load(&base(), &mut [open(name)]);
        let n_virtual = model.n_virtual(&Active::All);
        assert_eq!(n_virtual, if name == "lora_qv" { 0 } else { 5 });
        let ids = &sequences()[0];
        let whole = model.forward(&Batch::whole(ids), None);
        // Placeholders and tokens, in chunks that cut the virtual positions in two.
        let tokens: Vec<u32> = std::iter::repeat_n(63, n_virtual).chain(ids.iter().copied()).collect();
        let mut cache = KvCache::new(model.config(), KvType::F32, 2);
        let mut logits = Vec::new();
        for (i, chunk) in tokens.chunks(3).enumerate() {
            let mut batch = Batch::whole(chunk);
            batch.spans[0].start = 3 * i;
            batch.spans[0].pages = vec![1, 0];
            logits.extend_from_slice(model.forward(&batch, Some(&mut cache)).data());
        }
        assert_close(name, &logits[n_virtual * 64..], whole.data(), 5e-6);
    }
}

#[test]
fn a_seed_gives_the_same_first_values_and_another_seed_others() {
    let values = |seed| {
        let options = AdapterOptions { seed, targets: Names::AllLinear, ..AdapterOptions::default() };
        let mut adapters = [build("lora", &options).unwrap()];
        let model = load(&base(), &mut adapters);
        model.parameters().iter().map(|parameter| parameter.read().clone()).collect::<Vec<_>>()
    };
    assert_eq!(values(1), values(1));
    assert_ne!(values(1), values(2));
    assert_eq!(values(1).len(), 2 * 2 * 7);
    // Uniform with the bound 1 / √in.
    let largest = values(1)[0].iter().fold(0.0f32, |max, x| max.max(x.abs()));
    assert!(largest < 32f32.sqrt().recip() && largest > 0.9 * 32f32.sqrt().recip(), "{largest}");
}

#[test]
fn targets_that_meet_no_layer_are_an_error_with_the_layers_there_are() {
    let options = AdapterOptions {
        targets: Names::List(vec!["query_key_value".to_string()]),
        ..AdapterOptions::default()
    };
    let mut adapters = [build("lora", &options).unwrap()];
    let error = Model::load_adapted(&base(), LoadOptions::default(), &mut adapters).map(|_| ()).unwrap_err();
    assert!(matches!(error, LoadError::Adapter(AdapterError::NoTarget { .. })), "{error}");
    let text = error.to_string();
    assert!(text.contains("query_key_value") && text.contains("model.layers.0.self_attn.q_proj"), "{text}");
}

#[test]
fn what_has_no_effect_on_a_method_is_refused() {
    let options =
        AdapterOptions { modules_to_save: vec!["lm_head".to_string()], ..AdapterOptions::default() };
    assert!(matches!(build("bitfit", &options), Err(AdapterError::Refused { what: "modules-to-save", .. })));
    assert!(matches!(build("lora", &AdapterOptions::of(&[("rnak", 4.0)])), Err(AdapterError::Option(_))));
    let unknown = build("lorra", &AdapterOptions::default()).map(|_| ()).unwrap_err().to_string();
    assert!(unknown.contains("lora"), "{unknown}");
}

#[test]
fn combinations_are_those_of_peft() {
    let (first, second) = (peft_dir("lora_qv"), peft_dir("combo_src/b"));
    let sources: [(&Path, f64); 2] = [(&first, 0.7), (&second, 0.4)];
    let cases = [
        ("linear", Combination::Linear, 4),
        ("cat", Combination::Cat, 8),
        ("ties", Combination::Ties { density: 0.5 }, 4),
        ("magnitude_prune", Combination::MagnitudePrune { density: 0.5 }, 4),
    ];
    let result = |how| {
        let dir = tempfile::tempdir().unwrap();
        combine(&sources, how, dir.path()).unwrap();
        let stored = Checkpoint::open(&dir.path().join(peft::TENSORS)).unwrap();
        let q = |end: &str| {
            let name = format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{end}.weight");
            let bytes = stored.bytes(stored.find(&name).unwrap());
            bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect::<Vec<f32>>()
        };
        let adapter = peft::open(dir.path(), Purpose::Inference).unwrap().adapter;
        (q("A"), q("B"), logits(&load(&base(), &mut [adapter])))
    };
    let expected = |what: String| floats("combo_expected.safetensors", &what);
    for (name, how, rank) in cases {
        let (a, b, logits) = result(how);
        assert_eq!(a.len(), rank * 32);
        assert_close(name, &a, &expected(format!("l0.q.A_{name}")), 1e-6);
        assert_close(name, &b, &expected(format!("l0.q.B_{name}")), 1e-6);
        assert_close(name, &logits, &expected(format!("logits_{name}")), 2e-5);
    }
    // The best approximation of full rank is the sum itself.
    let (_, _, logits) = result(Combination::Svd { rank: 8 });
    assert_close("svd", &logits, &expected("logits_cat".to_string()), 2e-5);
    let (a, _, _) = result(Combination::Svd { rank: 3 });
    assert_eq!(a.len(), 3 * 32);
    let other = peft_dir("lora_rankpat");
    let error =
        combine(&[(&first, 1.0), (&peft_dir("ia3"), 1.0)], Combination::Cat, &other.join("x")).unwrap_err();
    assert!(error.to_string().contains("LORA"), "{error}");
}

#[test]
fn the_head_of_a_task_trains_beside_the_adapter_and_is_saved_with_it() {
    let heads = [
        ("bert-sequence", "classifier"),
        ("bert-tokens", "classifier"),
        ("bert-span", "qa_outputs"),
        ("gpt2-sequence", "score"),
        ("llama-sequence", "score"),
    ];
    for (case, head) in heads {
        let path = peft_dir("../heads").join(case);
        let base = Checkpoint::open(&path).unwrap();
        for method in ["lora", "dora", "ia3", "prompt-tuning", "prefix-tuning"] {
            let mut adapters = [build(method, &AdapterOptions::default()).unwrap()];
            let model = load(&base, &mut adapters);
            let names: Vec<&str> = model.parameters().iter().map(Parameter::name).collect();
            assert!(names.contains(&format!("{head}.weight").as_str()), "{case} {method}: {names:?}");
            for (i, parameter) in model.parameters().iter().enumerate() {
                let shake = |(j, x): (usize, &mut f32)| *x += 0.01 * ((7 * i + 3 * j) % 11) as f32;
                parameter.write().iter_mut().enumerate().for_each(shake);
            }
            let ids = [3, 9, 27, 11];
            let mut batch = Batch::whole(&ids);
            batch.spans[0].prefix_len = if case.starts_with("bert") { ids.len() } else { 0 };
            let trained = model.forward(&batch, None);
            let dir = tempfile::tempdir().unwrap();
            peft::save(&*adapters[0], dir.path(), "base", Some("SEQ_CLS")).unwrap();
            let config = std::fs::read_to_string(dir.path().join(peft::CONFIG)).unwrap();
            assert!(config.contains(&format!("\"{head}\"")), "{config}");
            let opened = peft::open(dir.path(), Purpose::Inference).unwrap();
            let model = load(&base, &mut [opened.adapter]);
            assert!(model.adapters()[0].is_fixed);
            let what = format!("{case} {method}");
            assert_close(&what, model.forward(&batch, None).data(), trained.data(), 1e-5);
        }
    }
}
