//! StableLM: LLaMA's projections with layer norms, and rotary positions on a quarter of each head.
//!
//! StableLM 2 1.6B adds biases to queries, keys and values. StableLM 2 12B, with a norm for every single head, is refused.
//! Sources: StableLM-3B-4E1T (Stability AI, 2023); Stable LM 2 1.6B, arXiv:2402.17834, §2.

use rhetor_catalog::{About, Source};
use rhetor_kernels::rope::RopeOrder;
use rhetor_tensor::ops::head_norm::NormKind;

use super::llama_kin::{self, ATTENTION, ATTENTION_OUTPUT, ENDS, FEED_FORWARD, Kin, LAYER_NORMS};
use super::{BASE, Family, Licence, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;
use crate::names::TensorName;

const KIN: Kin = Kin {
    family: "stablelm",
    order: RopeOrder::Half,
    rotary: 0.25,
    norm_kind: NormKind::Layer,
    norm_eps: 1e-5,
    ..llama_kin::LLAMA
};

pub const STABLELM: Family = Family {
    about: About {
        name: "stablelm",
        summary: "StableLM 3B and StableLM 2: layer norms, partly rotary heads",
        source: Source::Paper {
            title: "Stable LM 2 1.6B Technical Report",
            id: "arXiv:2402.17834",
            section: "§2",
        },
        options: &[],
    },
    gguf: "stablelm",
    model_type: "stablelm",
    architectures: &[
        ("StableLmForCausalLM", Task::Vocabulary),
        ("StableLmForSequenceClassification", Task::Sequence),
        ("StableLmForTokenClassification", Task::Tokens),
    ],
    prefix: "model.",
    config,
    keys,
    tensors: &llama_kin::joined::<14>(&[ENDS, NORMS, QKV, FEED_FORWARD]),
    build: PreNormBlock::decoder,
    published: &[
        published("stablelm-3b-4e1t", 2_795_443_200, 4096, Licence::Open),
        published("stablelm-2-1.6b", 1_644_515_328, 4096, Licence::Restricted),
    ],
    ..BASE
};

const NORMS: &[TensorName] = &[LAYER_NORMS[0], LAYER_NORMS[1].when("sequential"), LAYER_NORMS[2]];

const QKV: &[TensorName] = &[
    ATTENTION[0].biased_if("qkv_bias"),
    ATTENTION[1].biased_if("qkv_bias"),
    ATTENTION[2].biased_if("qkv_bias"),
    ATTENTION_OUTPUT,
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    if keys.switch_or("qk_layernorm", false)? {
        return Err(keys.refuse("", "qk_layernorm", true, "false"));
    }
    let mut config = KIN.config(keys)?;
    // Converted files of the first StableLM call it parallel; that they have a second norm tells the truth.
    let parallel = "use_parallel_residual";
    let is_sequential =
        keys.has_tensor("blk.0.ffn_norm.weight") || !keys.flag_or(parallel, parallel, false)?;
    config.own = vec![
        ("sequential", f64::from(u8::from(is_sequential))),
        ("qkv_bias", keys.bias_or("blk.0.attn_q", "use_qkv_bias", false)?),
    ];
    Ok(config)
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    let mut keys = KIN.keys(config);
    let is_parallel = !config.own_switch("sequential");
    keys.push(Key::new("use_parallel_residual", "use_parallel_residual", is_parallel));
    keys.push(Key::new("", "use_qkv_bias", config.own_switch("qkv_bias")));
    keys
}
