//! The number of parameters that a family's table gives, against what checkpoints hold and what is published.

use rhetor_formats::Checkpoint;
use rhetor_models::{LoadOptions, Model};
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

/// A config.json by itself, and the parameters of the model that it describes.
fn counted(config: &str) -> u64 {
    let folder = tempfile::tempdir().expect("a folder for the configuration");
    std::fs::write(folder.path().join("config.json"), config).expect("the folder takes a file");
    let file = folder.path().join("model.safetensors");
    rhetor_formats::safetensors::write(&file, &[], &[], |_, _| Ok(())).expect("a file without tensors");
    let checkpoint = open(folder.path());
    let config = Model::config_of(&checkpoint).unwrap_or_else(|error| panic!("{config}: {error}"));
    rhetor_models::Family::of(&checkpoint).expect("the family is known").n_parameters(&config)
}

#[test]
fn published_checkpoints_have_the_parameters_that_their_configurations_say() {
    for (config, expected) in CONFIGS {
        assert_eq!(counted(config), *expected, "{config}");
    }
}

/// Configurations of published checkpoints, and how many parameters transformers counts for them.
const CONFIGS: &[(&str, u64)] = &[
    (
        r#"{"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32,
            "num_attention_heads": 32, "intermediate_size": 11008, "max_position_embeddings": 4096}"#,
        6_738_415_616,
    ),
    (
        r#"{"model_type": "llama", "vocab_size": 32000, "hidden_size": 8192, "num_hidden_layers": 80,
            "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672,
            "max_position_embeddings": 4096}"#,
        68_976_648_192,
    ),
    (
        r#"{"model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
            "max_position_embeddings": 32768, "sliding_window": 4096}"#,
        7_241_732_096,
    ),
    (
        r#"{"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12,
            "n_positions": 1024}"#,
        124_439_808,
    ),
    (
        r#"{"model_type": "gpt2", "vocab_size": 50257, "n_embd": 1024, "n_layer": 24, "n_head": 16,
            "n_positions": 1024}"#,
        354_823_168,
    ),
    (
        r#"{"model_type": "gpt2", "vocab_size": 50257, "n_embd": 1280, "n_layer": 36, "n_head": 20,
            "n_positions": 1024}"#,
        774_030_080,
    ),
    (
        r#"{"model_type": "gpt2", "vocab_size": 50257, "n_embd": 1600, "n_layer": 48, "n_head": 25,
            "n_positions": 1024}"#,
        1_557_611_200,
    ),
    (
        r#"{"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "image_size": 224, "patch_size": 14}"#,
        303_179_776,
    ),
    (
        r#"{"model_type": "clip_vision_model", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
            "num_attention_heads": 12, "image_size": 224, "patch_size": 32}"#,
        87_456_000,
    ),
    // transformers counts the 384 numbers that hide patches in training, and the biases of EVA-CLIP's keys, too.
    (
        r#"{"model_type": "dinov2", "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6,
            "image_size": 518, "patch_size": 14}"#,
        22_056_576 - 384,
    ),
    (
        r#"{"model_type": "minigpt4", "vision": {"model_type": "blip_2_vision_model", "hidden_size": 1408,
            "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16, "image_size": 448,
            "patch_size": 14}, "language_model": {"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096,
            "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008,
            "max_position_embeddings": 4096}}"#,
        985_952_256 - 39 * 1408 + 768 * 1408 + (4 * 1408 + 1) * 4096 + 6_738_415_616,
    ),
];
