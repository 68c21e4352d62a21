//! StarCoder2: LLaMA's attention with layer norms, biases everywhere and a plain feed-forward layer.
//!
//! All of them see 4096 tokens back; GGUF files that do not say so run without a window.
//! Source: StarCoder 2 and The Stack v2, arXiv:2402.19173, §6.

use rhetor_catalog::{About, Source};
use rhetor_kernels::rope::RopeOrder;
use rhetor_tensor::ops::head_norm::NormKind;

use super::llama_kin::{self, ENDS, Kin, LAYER_NORMS};
use super::{BASE, Family, Licence, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;
use crate::names::{TensorName, name};

const KIN: Kin = Kin {
    family: "starcoder2",
    order: RopeOrder::Half,
    norm_kind: NormKind::Layer,
    activation: ("hidden_act", "gelu_pytorch_tanh"),
    tied: true,
    ..llama_kin::LLAMA
};

/// GGUF's key of ε, which Hugging Face calls otherwise than the kin do.
const EPS: &str = "attention.layer_norm_epsilon";

pub const STARCODER2: Family = Family {
    about: About {
        name: "starcoder2",
        summary: "StarCoder2 3B, 7B and 15B: grouped queries, a sliding window, a plain feed-forward layer",
        source: Source::Paper {
            title: "StarCoder 2 and The Stack v2",
            id: "arXiv:2402.19173",
            section: "§6",
        },
        options: &[],
    },
    gguf: "starcoder2",
    model_type: "starcoder2",
    architectures: &[
        ("Starcoder2ForCausalLM", Task::Vocabulary),
        ("Starcoder2ForSequenceClassification", Task::Sequence),
        ("Starcoder2ForTokenClassification", Task::Tokens),
    ],
    prefix: "model.",
    config,
    keys,
    tensors: &llama_kin::joined::<13>(&[ENDS, &LAYER_NORMS, BLOCK]),
    build: PreNormBlock::decoder,
    published: &[
        published("starcoder2-3b", 3_030_371_328, 16384, Licence::Restricted),
        published("starcoder2-7b", 7_173_923_840, 16384, Licence::Restricted),
        published("starcoder2-15b", 15_957_889_024, 16384, Licence::Restricted),
    ],
    ..BASE
};

const BLOCK: &[TensorName] = &[
    name("blk.{i}.attn_q", "layers.{i}.self_attn.q_proj", "H*d D").biased_if("linear_bias"),
    name("blk.{i}.attn_k", "layers.{i}.self_attn.k_proj", "K*d D").biased_if("linear_bias"),
    name("blk.{i}.attn_v", "layers.{i}.self_attn.v_proj", "K*d D").biased_if("linear_bias"),
    name("blk.{i}.attn_output", "layers.{i}.self_attn.o_proj", "D H*d").biased_if("linear_bias"),
    name("blk.{i}.ffn_up", "layers.{i}.mlp.c_fc", "F D").biased_if("linear_bias"),
    name("blk.{i}.ffn_down", "layers.{i}.mlp.c_proj", "D F").biased_if("linear_bias"),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let has_bias = keys.bias_or("blk.0.attn_q", "use_bias", true)?;
    Ok(ModelConfig {
        norm_eps: keys.number_or(EPS, "norm_epsilon", 1e-5)?,
        window: keys.window_opt()?,
        own: vec![("linear_bias", has_bias)],
        ..KIN.config(keys)?
    })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    let own = [
        Key::new(EPS, "norm_epsilon", config.norm_eps),
        Key::new("", "use_bias", config.own_switch("linear_bias")),
    ];
    KIN.keys(config).into_iter().filter(|key| key.gguf != EPS).chain(own).collect()
}
