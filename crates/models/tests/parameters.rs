//! The number of parameters that a family's table gives, against what checkpoints hold and what is published.

use rhetor_formats::Checkpoint;
use rhetor_models::presets::PRESETS;
use rhetor_models::{FAMILIES, Family, LoadOptions, Model};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[test]
fn the_table_counts_what_is_loaded_from_every_fixture() {
    for folder in folders() {
        let checkpoint = open(&folder);
        let model = Model::load(&checkpoint, LoadOptions::default()).expect("the parity tests load it too");
        let counted = model.family().n_parameters(model.config());
        assert_eq!(counted, model.n_parameters() as u64, "{}", folder.display());
    }
}

#[test]
fn published_checkpoints_have_the_parameters_that_their_configurations_say() {
    let presets = PRESETS.iter().map(|preset| (preset.name, Value::Object(preset.config())));
    for (name, config) in configurations().into_iter().chain(presets) {
        let (counted, context_len) = counted(&config.to_string());
        let published = FAMILIES.iter().flat_map(|family| family.published).find(|known| known.name == name);
        let published = published.unwrap_or_else(|| panic!("{name} is in no family's list"));
        assert_eq!((counted, context_len), (published.n_parameters, published.context_len), "{name}");
    }
}

/// Configurations of published checkpoints.
fn configurations() -> Vec<(&'static str, Value)> {
    let gpt2 = |layers: u64, width: u64, heads: u64| {
        json!({"model_type": "gpt2", "vocab_size": 50257, "n_layer": layers, "n_embd": width, "n_head": heads,
               "n_positions": 1024})
    };
    let neox = |vocab: u64, layers: u64, width: u64, heads: u64| {
        json!({"model_type": "gpt_neox", "vocab_size": vocab, "num_hidden_layers": layers,
               "hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width,
               "max_position_embeddings": 2048})
    };
    // As the first files of Falcon write it.
    let falcon = |layers: u64, width: u64, heads: u64| {
        json!({"architectures": ["RWForCausalLM"], "vocab_size": 65024, "n_layer": layers,
               "hidden_size": width, "n_head": heads})
    };
    let new_falcon = |layers: u64, width: u64, heads: u64| {
        json!({"model_type": "falcon", "vocab_size": 65024, "num_hidden_layers": layers, "hidden_size": width,
               "num_attention_heads": heads, "num_kv_heads": 8, "new_decoder_architecture": true})
    };
    let phi = |layers: u64, width: u64| {
        json!({"model_type": "phi", "vocab_size": 51200, "num_hidden_layers": layers, "hidden_size": width,
               "num_attention_heads": 32, "intermediate_size": 4 * width, "max_position_embeddings": 2048})
    };
    let starcoder = |layers: u64, width: u64, heads: u64| {
        json!({"model_type": "gpt_bigcode", "vocab_size": 49152, "n_layer": layers, "n_embd": width,
               "n_head": heads, "n_positions": 8192})
    };
    let codegen = |layers: u64, width: u64, heads: u64, rotary: u64| {
        json!({"model_type": "codegen", "vocab_size": 51200, "n_layer": layers, "n_embd": width,
               "n_head": heads, "n_positions": 2048, "rotary_dim": rotary})
    };
    vec![
        ("gpt2", gpt2(12, 768, 12)),
        ("gpt2-medium", gpt2(24, 1024, 16)),
        ("gpt2-large", gpt2(36, 1280, 20)),
        ("gpt2-xl", gpt2(48, 1600, 25)),
        (
            "openai-gpt",
            with(
                gpt2(12, 768, 12),
                json!({"model_type": "openai-gpt", "vocab_size": 40478, "n_positions": 512}),
            ),
        ),
        ("pythia-14m", neox(50304, 6, 128, 4)),
        ("pythia-31m", neox(50304, 6, 256, 8)),
        ("pythia-70m", neox(50304, 6, 512, 8)),
        ("pythia-160m", neox(50304, 12, 768, 12)),
        ("pythia-410m", neox(50304, 24, 1024, 16)),
        ("pythia-1b", neox(50304, 16, 2048, 8)),
        ("pythia-1.4b", neox(50304, 24, 2048, 16)),
        ("pythia-2.8b", neox(50304, 32, 2560, 32)),
        ("pythia-6.9b", neox(50432, 32, 4096, 32)),
        ("pythia-12b", neox(50688, 36, 5120, 40)),
        ("gpt-neox-20b", neox(50432, 44, 6144, 64)),
        ("falcon-7b", falcon(32, 4544, 71)),
        ("falcon-40b", with(falcon(60, 8192, 128), json!({"n_head_kv": 8}))),
        ("falcon-180b", new_falcon(80, 14848, 232)),
        (
            "falcon-11b",
            with(
                new_falcon(60, 4096, 32),
                json!({"num_ln_in_parallel_attn": 1,
            "ffn_hidden_size": 16384, "tie_word_embeddings": false, "max_position_embeddings": 8192}),
            ),
        ),
        (
            "falcon-rw-1b",
            json!({"model_type": "falcon", "vocab_size": 50304, "num_hidden_layers": 24,
            "hidden_size": 2048, "num_attention_heads": 32, "alibi": true, "bias": true,
            "multi_query": false, "parallel_attn": false}),
        ),
        ("phi-1", phi(24, 2048)),
        ("phi-1.5", phi(24, 2048)),
        ("phi-2", with(phi(32, 2560), json!({"partial_rotary_factor": 0.4}))),
        ("santacoder", with(starcoder(24, 2048, 16), json!({"vocab_size": 49280, "n_positions": 2048}))),
        ("starcoderbase-1b", starcoder(24, 2048, 16)),
        ("starcoderbase-3b", starcoder(36, 2816, 22)),
        ("starcoderbase-7b", starcoder(42, 4096, 32)),
        ("starcoder", starcoder(40, 6144, 48)),
        ("codegen-350m", codegen(20, 1024, 16, 32)),
        ("codegen-2b", codegen(32, 2560, 32, 64)),
        ("codegen-6b", codegen(33, 4096, 16, 64)),
        ("codegen-16b", codegen(34, 6144, 24, 64)),
    ]
}

/// `config` with some keys more.
fn with(mut config: Value, more: Value) -> Value {
    let more = more.as_object().expect("keys and values").clone();
    config.as_object_mut().expect("keys and values").extend(more);
    config
}

/// The parameters of the model that a config.json describes, and its context.
fn counted(config: &str) -> (u64, usize) {
    let folder = tempfile::tempdir().expect("a folder for the configuration");
    std::fs::write(folder.path().join("config.json"), config).expect("the folder takes a file");
    let file = folder.path().join("model.safetensors");
    rhetor_formats::safetensors::write(&file, &[], &[], |_, _| Ok(())).expect("a file without tensors");
    let checkpoint = open(folder.path());
    let sizes = Model::config_of(&checkpoint).unwrap_or_else(|error| panic!("{config}: {error}"));
    (Family::of(&checkpoint).expect("the family is known").n_parameters(&sizes), sizes.context_len)
}

/// The checkpoints under `fixtures/models`.
fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models");
    let entries = std::fs::read_dir(root).expect("the fixtures are part of the repository");
    let folders = entries.map(|entry| entry.expect("the folder is readable").path());
    folders.filter(|folder| folder.join("config.json").exists()).collect()
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
