//! Phi-3 and Phi-4: LLaMA's block with queries, keys and values in one matrix, and gate and up in another.
//!
//! Positions beyond 4096 need factors for each pair of dimensions (LongRoPE): such files are refused.
//! Source: Phi-3 Technical Report, arXiv:2404.14219, §2.

use rhetor_catalog::{About, Source};
use rhetor_kernels::rope::RopeOrder;

use super::llama_kin::{self, ATTENTION_OUTPUT, ENDS, Kin};
use super::{BASE, Family, Licence, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;
use crate::names::{TensorName, name};

const KIN: Kin = Kin { family: "phi3", order: RopeOrder::Half, norm_eps: 1e-5, ..llama_kin::LLAMA };

pub const PHI3: Family = Family {
    about: About {
        name: "phi3",
        summary: "Phi-3 and Phi-4: LLaMA's block with fused projections",
        source: Source::Paper {
            title: "Phi-3 Technical Report: A Highly Capable Language Model Locally on Your Phone",
            id: "arXiv:2404.14219",
            section: "§2",
        },
        options: &[],
    },
    gguf: "phi3",
    model_type: "phi3",
    architectures: &[
        ("Phi3ForCausalLM", Task::Vocabulary),
        ("Phi3ForSequenceClassification", Task::Sequence),
        ("Phi3ForTokenClassification", Task::Tokens),
    ],
    prefix: "model.",
    config,
    keys,
    tensors: &llama_kin::joined::<11>(&[ENDS, REST]),
    build: PreNormBlock::decoder,
    published: &[
        published("phi-3-mini-4k", 3_821_079_552, 4096, Licence::Open),
        published("phi-3-medium-4k", 13_960_238_080, 4096, Licence::Open),
        published("phi-4", 14_659_507_200, 16_384, Licence::Open),
    ],
    ..BASE
};

const REST: &[TensorName] = &[
    name("blk.{i}.attn_norm", "layers.{i}.input_layernorm", "D"),
    name("blk.{i}.attn_qkv", "layers.{i}.self_attn.qkv_proj", "qkv D"),
    ATTENTION_OUTPUT,
    name("blk.{i}.ffn_norm", "layers.{i}.post_attention_layernorm", "D"),
    name("blk.{i}.ffn_up", "layers.{i}.mlp.gate_up_proj", "2*F D"),
    name("blk.{i}.ffn_down", "layers.{i}.mlp.down_proj", "D F"),
    name("output_norm", "norm", "D"),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let config = KIN.config(keys)?;
    let qkv = (config.n_heads + 2 * config.n_kv_heads).saturating_mul(config.head_dim);
    Ok(ModelConfig { window: keys.window_opt()?, own: vec![("qkv", qkv as f64)], ..config })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    let mut keys = KIN.keys(config);
    if config.window.is_none() {
        // By this llama.cpp tells Phi-4 from files that are older than the key.
        keys.push(Key::size("attention.sliding_window", "", 0));
    }
    keys
}
