//! Mistral: LLaMA's block with grouped-query attention over a sliding window; Zephyr is a checkpoint of it.
//!
//! A key j is visible to query i iff j ≤ i and j > i − W (W keys, the query's own included), as transformers has it.
//! Source: Mistral 7B, arXiv:2310.06825, §2. GGUF files call it `llama`.

use rhetor_catalog::{About, Source};

use super::{BASE, Family, Licence, llama, published};
use crate::config::{Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;

pub const MISTRAL: Family = Family {
    about: About {
        name: "mistral",
        summary: "Mistral 7B and Zephyr: LLaMA's block with a sliding window",
        source: Source::Paper { title: "Mistral 7B", id: "arXiv:2310.06825", section: "§2" },
        options: &[],
    },
    gguf: "llama",
    model_type: "mistral",
    architectures: &[
        ("MistralForCausalLM", Task::Vocabulary),
        ("MistralForSequenceClassification", Task::Sequence),
        ("MistralForTokenClassification", Task::Tokens),
    ],
    prefix: "model.",
    config,
    keys: llama::keys,
    tensors: llama::TENSORS,
    build: PreNormBlock::decoder,
    is_told_by: |keys| Ok(keys.window_opt()?.is_some()),
    published: &[
        published("mistral-7b", 7_241_732_096, 32_768, Licence::Open),
        published("zephyr-7b-beta", 7_241_732_096, 32_768, Licence::Open),
    ],
    ..BASE
};

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let llama = llama::config(keys)?;
    let n_kv_heads = match keys.speaks_gguf() {
        true => llama.n_kv_heads,
        false => keys.size_or("attention.head_count_kv", "num_key_value_heads", 8)?,
    };
    Ok(ModelConfig { family: "mistral", n_kv_heads, window: keys.window_opt()?, ..llama })
}
