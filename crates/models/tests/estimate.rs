//! What is said of a model before it is loaded, against what is known of published ones and what is allocated here.

use rhetor_formats::{Checkpoint, safetensors};
use rhetor_kernels::kv::{KvType, PAGE_LEN};
use rhetor_models::convert::{ConvertOptions, to_gguf};
use rhetor_models::estimate::{Estimate, Machine, TrainingBytes, Wall};
use rhetor_models::presets::{self, PRESETS};
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Family, KvCache, Model, ModelConfig};
use std::path::{Path, PathBuf};

/// The family and sizes of a preset.
fn preset(name: &str) -> (&'static Family, ModelConfig) {
    let config = presets::find(name).expect("the preset is in the table").text();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    safetensors::write(&folder.path().join("model.safetensors"), &[], &[], |_, _| Ok(())).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    (Family::of(&checkpoint).unwrap(), Model::config_of(&checkpoint).unwrap())
}

/// The decoders under `fixtures/models`.
fn decoders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models");
    let folders = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    folders.filter(|folder| folder.join("expected.json").exists()).collect()
}

#[test]
fn presets_have_the_parameters_that_are_published() {
    let mut n_known = 0;
    for name in PRESETS.iter().map(|preset| &preset.name) {
        let (family, config) = preset(name);
        let Some(published) = family.published.iter().find(|known| known.name == *name) else {
            assert!(family.published.is_empty(), "{name} is not in the list of {}", family.about.name);
            continue;
        };
        assert_eq!(Estimate { family, config: &config }.n_parameters(), published.n_parameters, "{name}");
        n_known += 1;
    }
    assert!(n_known >= 29, "{n_known} of {} presets are published", PRESETS.len());
}

#[test]
fn llama_7b_weighs_what_is_known() {
    let (family, config) = preset("llama-7b");
    let estimate = Estimate { family, config: &config };
    assert_eq!(estimate.weight_bytes(Mix::F16), 13_476_831_232);
    assert_eq!(estimate.weight_bytes(Mix::F32), 2 * 13_476_831_232);
    // The file of llama.cpp's quantizer has 4,080.7 MB (3,891.2 MiB of tensors) as Q4_K_M.
    let q4 = estimate.weight_bytes(Mix::Q4KM);
    assert!((4.07e9..4.09e9).contains(&(q4 as f64)), "{q4}");
    let n = estimate.n_parameters();
    let expected = TrainingBytes { weights: 4 * n, gradients: 4 * n, optimizer: 8 * n };
    assert_eq!(estimate.full_training(), expected);
    // Rank 16 at four matrices of 4096 by 4096 in each of 32 layers.
    assert_eq!(estimate.n_lora(16), 32 * 4 * 16 * 2 * 4096);
    let lora = estimate.lora_training(16, 1000);
    assert_eq!((lora.weights, lora.gradients), (1000 + 4 * 16_777_216, 4 * 16_777_216));
    assert_eq!(estimate.n_active(), n);
}

#[test]
fn keys_and_values_of_llama_2_7b_at_4096_tokens_take_2_gib() {
    let (family, config) = preset("llama-2-7b");
    let estimate = Estimate { family, config: &config };
    assert_eq!(estimate.kv_bytes(KvType::F16, 4096), 2_147_483_648);
    assert_eq!(estimate.kv_bytes(KvType::F32, 4096), 2 * 2_147_483_648);
    // A byte for each number and four for each 32.
    assert_eq!(estimate.kv_bytes(KvType::Q8, 4096), 2_147_483_648 / 2 / 8 * 9);
    let (family, config) = preset("mistral-7b");
    let estimate = Estimate { family, config: &config };
    let at = |n| estimate.kv_bytes(KvType::F16, n);
    assert_eq!((at(4096), at(8192)), (536_870_912, 2 * 536_870_912));
    assert_eq!(estimate.windowed_kv_bytes(KvType::F16, 8192), 536_870_912);
}

#[test]
fn predicted_keys_and_values_are_those_that_are_allocated() {
    for folder in decoders() {
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let (family, config) = (Family::of(&checkpoint).unwrap(), Model::config_of(&checkpoint).unwrap());
        // Blocks begin at multiples of 64 bytes, which odd heads in 8 bits do not fill.
        if config.has_encoder() || config.head_dim % 2 == 1 {
            continue;
        }
        let estimate = Estimate { family, config: &config };
        for kind in KvType::ALL {
            for n_pages in [1, 3] {
                let cache = KvCache::new(&config, kind, n_pages);
                let predicted = estimate.kv_bytes(kind, (n_pages - 1) * PAGE_LEN + 1);
                assert_eq!(predicted, cache.n_bytes() as u64, "{} {}", folder.display(), kind.name());
            }
        }
    }
}

#[test]
fn predicted_weights_are_those_of_the_file() {
    let out = tempfile::tempdir().unwrap();
    for folder in decoders() {
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let (family, config) = (Family::of(&checkpoint).unwrap(), Model::config_of(&checkpoint).unwrap());
        // Biases that only some models of a family have are in the file and not in the table.
        if folder.ends_with("llama-biases") {
            continue;
        }
        for mix in [Mix::Q8_0, Mix::Q4KM] {
            let file = out.path().join("model.gguf");
            let options = ConvertOptions { mix, importance: None, vocabulary: Vec::new() };
            if to_gguf(&checkpoint, &file, &options, &mut |_| ()).is_err() {
                continue;
            }
            let written = Checkpoint::open(&file).unwrap();
            let tensors = written.tensors().iter().filter(|tensor| tensor.name != "rope_freqs.weight");
            let bytes: u64 = tensors.map(|tensor| tensor.n_bytes as u64).sum();
            let predicted = Estimate { family, config: &config }.weight_bytes(mix);
            assert_eq!(predicted, bytes, "{} as {}", folder.display(), mix.name());
        }
    }
}

#[test]
fn of_experts_only_those_that_are_chosen_are_read() {
    let (family, config) = preset("Mixtral-8x7B-v0.1");
    let estimate = Estimate { family, config: &config };
    assert_eq!(estimate.n_parameters(), 46_702_792_704);
    // Six of eight experts of 3 · 4096 · 14336 in 32 layers stay out: about 12.9 thousand million are active.
    assert_eq!(estimate.n_active(), 46_702_792_704 - 6 * 3 * 4096 * 14336 * 32);
    let weights = estimate.weight_bytes(Mix::F16);
    let read = |batch| {
        let step = estimate.decode(weights, KvType::F16, 32, batch);
        step.bytes - batch as f64 * estimate.kv_bytes(KvType::F16, 32) as f64
    };
    assert!((read(1) / (2.0 * estimate.n_active() as f64) - 1.0).abs() < 1e-6, "one token reads two experts");
    // Two tokens read 8 · (1 − (3/4)²) = 3.5 experts of a layer.
    let two = read(1) + 1.5 * 2.0 * 3.0 * 4096.0 * 14336.0 * 32.0;
    assert!((read(2) / two - 1.0).abs() < 1e-6, "{} for {two}", read(2));
    assert!((read(64) / weights as f64 - 1.0).abs() < 1e-6);
}

#[test]
fn activations_and_operations_are_those_of_the_formulas() {
    let (family, config) = preset("llama-7b");
    let estimate = Estimate { family, config: &config };
    // 2048 · 1 · 4096 · (34 + 5 · 32 · 2048 / 4096) · 32
    assert_eq!(estimate.activations_16_bit(2048, 1, false), 2048.0 * 4096.0 * 114.0 * 32.0);
    assert_eq!(estimate.activations_16_bit(2048, 2, true), 2.0 * 2048.0 * 2.0 * 4096.0 * 32.0);
    let n = estimate.n_parameters() as f64;
    assert_eq!(estimate.forward_flops(0), 2.0 * n + 4.0 * 4096.0 * 32.0);
    assert_eq!(estimate.training_flops(2048), 6.0 * n + 3.0 * 4.0 * 4096.0 * 32.0 * 1025.0);
    let (family, config) = preset("mistral-7b");
    let estimate = Estimate { family, config: &config };
    assert_eq!(estimate.forward_flops(5000), estimate.forward_flops(4095), "a window ends");
}

#[test]
fn one_token_waits_for_memory_and_a_prompt_for_operations() {
    let (family, config) = preset("llama-7b");
    let estimate = Estimate { family, config: &config };
    let machine = Machine { bandwidth: 50e9, flops: 1e12 };
    let weights = estimate.weight_bytes(Mix::F16);
    let decode = estimate.decode(weights, KvType::F16, 1024, 1);
    let kv = estimate.kv_bytes(KvType::F16, 1024);
    assert_eq!(decode.bytes, (weights + kv) as f64);
    assert_eq!(
        (decode.wall(&machine), decode.seconds(&machine)),
        (Wall::Memory, (weights + kv) as f64 / 50e9)
    );
    assert!(decode.intensity() < 1.1);
    let prefill = estimate.prefill(weights, KvType::F16, 1024);
    assert_eq!(prefill.wall(&machine), Wall::Compute);
    assert!(prefill.flops >= 2.0 * 1024.0 * estimate.n_parameters() as f64);
    // A batch reads the weights once.
    let batch = estimate.decode(weights, KvType::F16, 1024, 8);
    assert_eq!(batch.bytes, (weights + 8 * kv) as f64);
    assert_eq!(batch.flops, 8.0 * decode.flops);
}
