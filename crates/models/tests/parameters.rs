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
    let presets = PRESETS.iter().map(|preset| (&*preset.name, Value::Object(preset.config.clone())));
    for (name, config) in configurations().into_iter().chain(presets) {
        let (counted, context_len) = counted(&config.to_string());
        let published = FAMILIES.iter().flat_map(|family| family.published).find(|known| known.name == name);
        let published = published.unwrap_or_else(|| panic!("{name} is in no family's list"));
        assert_eq!((counted, context_len), (published.n_parameters, published.context_len), "{name}");
    }
}

/// Configurations of published checkpoints.
fn configurations() -> Vec<(&'static str, Value)> {
    let llama = |layers: u64, width: u64, heads: u64, keys: u64, ffn: u64, context: u64| {
        json!({"model_type": "llama", "vocab_size": 32000, "num_hidden_layers": layers, "hidden_size": width,
               "num_attention_heads": heads, "num_key_value_heads": keys, "intermediate_size": ffn,
               "max_position_embeddings": context})
    };
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
    let tower = |model_type: &str, layers: u64, width: u64, heads: u64, side: u64, patch: u64| {
        json!({"model_type": model_type, "num_hidden_layers": layers, "hidden_size": width,
               "num_attention_heads": heads, "intermediate_size": 4 * width, "image_size": side,
               "patch_size": patch})
    };
    let eva = |side: u64| {
        with(tower("blip_2_vision_model", 39, 1408, 16, side, 14), json!({"intermediate_size": 6144}))
    };
    let v2 = json!({"model_type": "minigpt4", "vision": eva(448),
                    "language_model": {"model_type": "llama", "vocab_size": 32000,
                    "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
                    "intermediate_size": 11008, "max_position_embeddings": 4096}});
    let kin = |model_type: &str, vocab: u64, sizes: [u64; 6]| {
        let [layers, width, heads, keys, ffn, context] = sizes;
        with(
            llama(layers, width, heads, keys, ffn, context),
            json!({"model_type": model_type, "vocab_size": vocab}),
        )
    };
    let tied = |config: Value| with(config, json!({"tie_word_embeddings": true}));
    let gemma = |model_type: &str, head_dim: u64, vocab: u64, sizes: [u64; 6]| {
        with(kin(model_type, vocab, sizes), json!({"head_dim": head_dim}))
    };
    vec![
        ("clip-vit-base-patch32", tower("clip_vision_model", 12, 768, 12, 224, 32)),
        ("clip-vit-base-patch16", tower("clip_vision_model", 12, 768, 12, 224, 16)),
        ("clip-vit-large-patch14", tower("clip_vision_model", 24, 1024, 16, 224, 14)),
        ("dinov2-small", tower("dinov2", 12, 384, 6, 518, 14)),
        ("dinov2-base", tower("dinov2", 12, 768, 12, 518, 14)),
        ("dinov2-large", tower("dinov2", 24, 1024, 16, 518, 14)),
        ("eva-clip-g", eva(224)),
        ("minigpt-v2", v2),
        ("llama-7b", llama(32, 4096, 32, 32, 11008, 2048)),
        ("llama-13b", llama(40, 5120, 40, 40, 13824, 2048)),
        ("llama-33b", llama(60, 6656, 52, 52, 17920, 2048)),
        ("llama-65b", llama(80, 8192, 64, 64, 22016, 2048)),
        ("llama-2-7b", llama(32, 4096, 32, 32, 11008, 4096)),
        ("llama-2-13b", llama(40, 5120, 40, 40, 13824, 4096)),
        ("llama-2-70b", llama(80, 8192, 64, 8, 28672, 4096)),
        ("open-llama-3b", llama(26, 3200, 32, 32, 8640, 2048)),
        ("solar-10.7b", llama(48, 4096, 32, 8, 14336, 4096)),
        ("llama-3-8b", kin("llama", 128256, [32, 4096, 32, 8, 14336, 8192])),
        ("llama-3-70b", kin("llama", 128256, [80, 8192, 64, 8, 28672, 8192])),
        ("llama-3.2-1b", tied(kin("llama", 128256, [16, 2048, 32, 8, 8192, 131072]))),
        ("llama-3.2-3b", tied(kin("llama", 128256, [28, 3072, 24, 8, 8192, 131072]))),
        ("orca-2-7b", kin("llama", 32003, [32, 4096, 32, 32, 11008, 4096])),
        ("orca-2-13b", kin("llama", 32003, [40, 5120, 40, 40, 13824, 4096])),
        ("code-llama-7b", kin("llama", 32016, [32, 4096, 32, 32, 11008, 16384])),
        ("code-llama-34b", kin("llama", 32000, [48, 8192, 64, 8, 22016, 16384])),
        ("tinyllama-1.1b", kin("llama", 32000, [22, 2048, 32, 4, 5632, 2048])),
        ("smollm2-135m", tied(kin("llama", 49152, [30, 576, 9, 3, 1536, 8192]))),
        ("smollm2-360m", tied(kin("llama", 49152, [32, 960, 15, 5, 2560, 8192]))),
        ("smollm2-1.7b", tied(kin("llama", 49152, [24, 2048, 32, 32, 8192, 8192]))),
        ("decicoder-1b", kin("deci", 49152, [20, 2048, 32, 4, 5888, 2048])),
        ("qwen2-0.5b", tied(kin("qwen2", 151936, [24, 896, 14, 2, 4864, 131072]))),
        ("qwen2-1.5b", tied(kin("qwen2", 151936, [28, 1536, 12, 2, 8960, 131072]))),
        ("qwen2.5-3b", tied(kin("qwen2", 151936, [36, 2048, 16, 2, 11008, 32768]))),
        ("qwen2-7b", kin("qwen2", 152064, [28, 3584, 28, 4, 18944, 131072])),
        ("qwen2.5-14b", kin("qwen2", 152064, [48, 5120, 40, 8, 13824, 131072])),
        ("qwen2.5-32b", kin("qwen2", 152064, [64, 5120, 40, 8, 27648, 131072])),
        ("qwen2-72b", kin("qwen2", 152064, [80, 8192, 64, 8, 29568, 131072])),
        ("qwen3-0.6b", tied(kin("qwen3", 151936, [28, 1024, 16, 8, 3072, 40960]))),
        ("qwen3-1.7b", tied(kin("qwen3", 151936, [28, 2048, 16, 8, 6144, 40960]))),
        ("qwen3-4b", tied(kin("qwen3", 151936, [36, 2560, 32, 8, 9728, 40960]))),
        ("qwen3-8b", kin("qwen3", 151936, [36, 4096, 32, 8, 12288, 40960])),
        ("qwen3-14b", kin("qwen3", 151936, [40, 5120, 40, 8, 17408, 40960])),
        ("qwen3-32b", kin("qwen3", 151936, [64, 5120, 64, 8, 25600, 40960])),
        ("gemma-2b", gemma("gemma", 256, 256000, [18, 2048, 8, 1, 16384, 8192])),
        ("gemma-7b", gemma("gemma", 256, 256000, [28, 3072, 16, 16, 24576, 8192])),
        ("gemma-2-2b", gemma("gemma2", 256, 256000, [26, 2304, 8, 4, 9216, 8192])),
        ("gemma-2-9b", gemma("gemma2", 256, 256000, [42, 3584, 16, 8, 14336, 8192])),
        ("gemma-2-27b", gemma("gemma2", 128, 256000, [46, 4608, 32, 16, 36864, 8192])),
        ("gemma-3-270m", gemma("gemma3_text", 256, 262144, [18, 640, 4, 1, 2048, 32768])),
        ("gemma-3-1b", gemma("gemma3_text", 256, 262144, [26, 1152, 4, 1, 6912, 32768])),
        ("phi-3-mini-4k", kin("phi3", 32064, [32, 3072, 32, 32, 8192, 4096])),
        ("phi-3-medium-4k", kin("phi3", 32064, [40, 5120, 40, 10, 17920, 4096])),
        ("phi-4", kin("phi3", 100352, [40, 5120, 40, 10, 17920, 16384])),
        ("stablelm-3b-4e1t", kin("stablelm", 50304, [32, 2560, 32, 32, 6912, 4096])),
        (
            "stablelm-2-1.6b",
            with(kin("stablelm", 100352, [24, 2048, 32, 32, 5632, 4096]), json!({"use_qkv_bias": true})),
        ),
        ("starcoder2-3b", kin("starcoder2", 49152, [30, 3072, 24, 2, 12288, 16384])),
        ("starcoder2-7b", kin("starcoder2", 49152, [32, 4608, 36, 4, 18432, 16384])),
        (
            "mistral-7b",
            with(
                llama(32, 4096, 32, 8, 14336, 32768),
                json!({"model_type": "mistral", "sliding_window": 4096}),
            ),
        ),
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
