//! DeciLM and DeciCoder: LLaMA's block, with as many key and value heads in each layer as a search has found for it.
//!
//! Source: "DeciLM: NAS-generated LLM with variable GQA", Deci, 2023. GGUF's `deci` also holds models whose layers lack
//! attention or differ in more; those are refused.

use rhetor_catalog::{About, Source};

use super::{BASE, Family, Licence, llama, llama_kin, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;

/// Hugging Face's key of K in each layer.
const KV_HEADS: &str = "num_key_value_heads_per_layer";

pub const DECILM: Family = Family {
    about: About {
        name: "decilm",
        summary: "DeciLM and DeciCoder: LLaMA's block with key and value heads by layer",
        source: Source::Project("DeciLM, Deci 2023: variable grouped-query attention"),
        options: &[],
    },
    gguf: "deci",
    model_type: "deci",
    architectures: &[("DeciLMForCausalLM", Task::Vocabulary), ("DeciCoderForCausalLM", Task::Vocabulary)],
    prefix: "model.",
    config,
    keys,
    tensors: llama::TENSORS,
    build: PreNormBlock::decoder,
    published: &[
        published("decicoder-1b", 1_113_671_680, 2048, Licence::Open),
        published("decilm-7b", 7_043_551_232, 8192, Licence::Open),
    ],
    ..BASE
};

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let blocks = "block_configs.0.ffn.ffn_mult";
    if keys.says(blocks) {
        return Err(keys.refuse("", blocks, "there", "layers that differ in key and value heads alone"));
    }
    let config = ModelConfig { family: "decilm", ..llama::config(keys)? };
    if !keys.says(KV_HEADS) {
        return Ok(config);
    }
    let layer_kv_heads = llama_kin::layer_kv_heads(keys, KV_HEADS, config.n_layers, config.n_heads)?;
    let n_kv_heads = layer_kv_heads.iter().copied().max().unwrap_or(config.n_kv_heads);
    Ok(ModelConfig { n_kv_heads, layer_kv_heads, ..config })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    let mut keys = llama::keys(config);
    if !config.layer_kv_heads.is_empty() {
        keys.push(Key::sizes("attention.head_count_kv", KV_HEADS, &config.layer_kv_heads));
    }
    keys
}
