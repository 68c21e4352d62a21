//! Adapters merged into their bases: the same logits without them.

use rhetor_formats::Checkpoint;
use rhetor_kernels::DType;
use rhetor_models::adapters::merge::{self, MergeError};
use rhetor_models::adapters::{Adapter, AdapterError, AdapterOptions, Init, Names, Purpose, build, peft};
use rhetor_models::convert::{ConvertOptions, to_gguf};
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Batch, LoadOptions, Model};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn load(path: &Path, adapters: &mut [Box<dyn Adapter>]) -> Model {
    Model::load_adapted(&Checkpoint::open(path).unwrap(), LoadOptions::default(), adapters).unwrap()
}

fn logits(model: &Model) -> Vec<f32> {
    model.forward(&Batch::whole(&[3, 9, 27, 11, 60]), None).data().to_vec()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A new adapter that changes the model.
fn random(method: &str, options: AdapterOptions) -> Box<dyn Adapter> {
    build(method, &AdapterOptions { init: Init::Random, seed: 3, ..options }).unwrap()
}

#[test]
fn adapters_of_peft_merge_into_a_hugging_face_directory() {
    for name in ["lora_qv", "lora_all_rs", "lora_rankpat", "lora_emb", "lora_head", "dora", "ia3"] {
        let base = Checkpoint::open(&fixture("peft/base")).unwrap();
        let mut adapters = [peft::open(&fixture("peft").join(name), Purpose::Inference).unwrap().adapter];
        let adapted = logits(&load(&fixture("peft/base"), &mut adapters));
        let dir = tempfile::tempdir().unwrap();
        let merged = merge::to_hugging_face(&base, &mut adapters, dir.path(), DType::F32).unwrap();
        assert!(merged.n_changed > 0 && merged.error_max == 0.0, "{merged:?}");
        let alone = load(dir.path(), &mut []);
        let off = difference(&logits(&alone), &adapted);
        assert!(off < 1e-5, "{name}: off by {off}");
        assert!(dir.path().join("generation_config.json").is_file());
        // In half precision the error is reported.
        let merged = merge::to_hugging_face(&base, &mut adapters, dir.path(), DType::BF16).unwrap();
        assert!(merged.error_max > 0.0 && merged.error_max < 1e-2, "{merged:?}");
        let off = difference(&logits(&load(dir.path(), &mut [])), &adapted);
        assert!(off < 0.2, "{name} in bf16: off by {off}");
    }
}

#[test]
fn a_tied_output_layer_stays_what_it_was_or_becomes_a_tensor_of_its_own() {
    let cases = [
        (
            "lora",
            AdapterOptions {
                targets: Names::List(vec!["wte".to_string(), "c_attn".to_string()]),
                ..Default::default()
            },
        ),
        ("lora", AdapterOptions { targets: Names::List(vec!["lm_head".to_string()]), ..Default::default() }),
        ("lora", AdapterOptions { modules_to_save: vec!["wte".to_string()], ..Default::default() }),
        ("lora", AdapterOptions { modules_to_save: vec!["lm_head".to_string()], ..Default::default() }),
        (
            "lora",
            AdapterOptions {
                bias: rhetor_models::adapters::Bias::All,
                ..AdapterOptions::of(&[("lora-bias", 1.0)])
            },
        ),
        ("dora", AdapterOptions::default()),
        ("longlora", AdapterOptions::of(&[("group-ratio", 0.5)])),
    ];
    for (i, (method, options)) in cases.into_iter().enumerate() {
        let base = Checkpoint::open(&fixture("models/gpt2")).unwrap();
        let mut adapters = [random(method, options)];
        let model = load(&fixture("models/gpt2"), &mut adapters);
        for parameter in model.parameters() {
            parameter.write().iter_mut().enumerate().for_each(|(j, x)| *x += 0.01 * (j % 5) as f32);
        }
        let adapted = logits(&model);
        let dir = tempfile::tempdir().unwrap();
        merge::to_hugging_face(&base, &mut adapters, dir.path(), DType::F32).unwrap();
        let off = difference(&logits(&load(dir.path(), &mut [])), &adapted);
        assert!(off < 1e-4, "case {i} ({method}): off by {off}");
        // The same through the adapter's own file.
        let saved = tempfile::tempdir().unwrap();
        peft::save(&*adapters[0], saved.path(), "gpt2", None).unwrap();
        let opened = peft::open(saved.path(), Purpose::Inference).unwrap();
        let off = difference(&logits(&load(&fixture("models/gpt2"), &mut [opened.adapter])), &adapted);
        assert!(off < 1e-4, "case {i} ({method}), saved: off by {off}");
    }
}

#[test]
fn a_quantized_base_is_decoded_changed_and_quantized_again() {
    let dir = tempfile::tempdir().unwrap();
    let quantized = dir.path().join("base.gguf");
    let options =
        ConvertOptions { mix: Mix::from_name("q8_0").unwrap(), importance: None, vocabulary: Vec::new() };
    to_gguf(&Checkpoint::open(&fixture("peft/base")).unwrap(), &quantized, &options, &mut |_| ()).unwrap();
    let base = Checkpoint::open(&quantized).unwrap();
    let plain = logits(&load(&quantized, &mut []));
    let mut adapters = [peft::open(&fixture("peft/lora_all_rs"), Purpose::Inference).unwrap().adapter];
    let adapted = logits(&load(&quantized, &mut adapters));
    let merged_file = dir.path().join("merged.gguf");
    let merged = merge::to_gguf(&base, &mut adapters, &merged_file).unwrap();
    assert_eq!(merged.n_changed, 14);
    assert!(merged.error_max > 0.0 && merged.error_max < 0.02, "{merged:?}");
    let after = logits(&load(&merged_file, &mut []));
    let (off, moved) = (difference(&after, &adapted), difference(&plain, &adapted));
    assert!(off < 0.1 * moved, "off by {off}; the adapter moves logits by {moved}");
}

#[test]
fn a_stretched_context_is_written_into_the_merged_configuration() {
    let base = Checkpoint::open(&fixture("peft/base")).unwrap();
    let mut adapters = [random("longlora", AdapterOptions::of(&[("target-context", 200.0)]))];
    let adapted = logits(&load(&fixture("peft/base"), &mut adapters));
    let dir = tempfile::tempdir().unwrap();
    merge::to_hugging_face(&base, &mut adapters, dir.path(), DType::F32).unwrap();
    let model = load(dir.path(), &mut []);
    assert_eq!(model.config().context_len, 256);
    assert!(difference(&logits(&model), &adapted) < 1e-4);
}

#[test]
fn what_was_merged_can_be_taken_out_again() {
    for (name, layer) in
        [("lora_qv", "model.layers.1.self_attn.v_proj"), ("ia3", "model.layers.0.mlp.down_proj")]
    {
        let mut adapters = [peft::open(&fixture("peft").join(name), Purpose::Inference).unwrap().adapter];
        load(&fixture("peft/base"), &mut adapters);
        let before: Vec<f32> = (0..32 * 48).map(|i| (i % 17) as f32 / 17.0).collect();
        let before = if name == "ia3" { before } else { before[..16 * 32].to_vec() };
        let mut weight = before.clone();
        adapters[0].attached(layer).unwrap().merge(&mut weight);
        assert!(difference(&weight, &before) > 1e-2);
        merge::unmerge(&*adapters[0], layer, &mut weight).unwrap();
        assert!(difference(&weight, &before) < 1e-6);
    }
}

#[test]
fn methods_that_no_weight_can_hold_are_refused() {
    let base = Checkpoint::open(&fixture("peft/base")).unwrap();
    for method in ["prompt-tuning", "prefix-tuning", "houlsby"] {
        let mut adapters = [build(method, &AdapterOptions::default()).unwrap()];
        load(&fixture("peft/base"), &mut adapters);
        let dir = tempfile::tempdir().unwrap();
        let error = merge::to_hugging_face(&base, &mut adapters, dir.path(), DType::F32).unwrap_err();
        assert!(matches!(error, MergeError::Adapter(AdapterError::NotMergeable { .. })), "{error}");
    }
}
