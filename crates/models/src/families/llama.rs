//! LLaMA: decoder; root-mean-square norms before each sublayer, rotary positions, gated feed-forward (SwiGLU), no biases.
//!
//! One architecture, many checkpoints: LLaMA 1, 2 and 3, OpenLLaMA, TinyLlama, SmolLM2, Vicuna, Code Llama, SOLAR, Orca 2.
//! Source: LLaMA, arXiv:2302.13971, §2.2; grouped-query attention from LLaMA 2, arXiv:2307.09288, §2.2.

use rhetor_catalog::{About, Source};

use super::{BASE, Family, Licence, llama_kin, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;
use crate::names::{Stored, TensorName, name};

pub const LLAMA: Family = Family {
    about: About {
        name: "llama",
        summary: "LLaMA and all that share its block: SmolLM2, TinyLlama, Vicuna, Code Llama, SOLAR, Orca 2",
        source: Source::Paper {
            title: "LLaMA: Open and Efficient Foundation Language Models",
            id: "arXiv:2302.13971",
            section: "§2.2",
        },
        options: &[],
    },
    gguf: "llama",
    model_type: "llama",
    architectures: &[
        ("LlamaForCausalLM", Task::Vocabulary),
        ("LLaMAForCausalLM", Task::Vocabulary),
        ("LlamaForSequenceClassification", Task::Sequence),
        ("LlamaForTokenClassification", Task::Tokens),
        ("LlamaModel", Task::Hidden),
    ],
    prefix: "model.",
    config,
    keys,
    tensors: TENSORS,
    build: PreNormBlock::decoder,
    published: &[
        published("llama-7b", 6_738_415_616, 2048, Licence::Research),
        published("llama-13b", 13_015_864_320, 2048, Licence::Research),
        published("llama-33b", 32_528_943_616, 2048, Licence::Research),
        published("llama-65b", 65_285_660_672, 2048, Licence::Research),
        published("llama-2-7b", 6_738_415_616, 4096, Licence::Restricted),
        published("llama-2-13b", 13_015_864_320, 4096, Licence::Restricted),
        published("llama-2-70b", 68_976_648_192, 4096, Licence::Restricted),
        published("llama-3-8b", 8_030_261_248, 8192, Licence::Restricted),
        published("llama-3-70b", 70_553_706_496, 8192, Licence::Restricted),
        published("llama-3.2-1b", 1_235_814_400, 131_072, Licence::Restricted),
        published("llama-3.2-3b", 3_212_749_824, 131_072, Licence::Restricted),
        published("open-llama-3b", 3_426_473_600, 2048, Licence::Open),
        published("open-llama-7b", 6_738_415_616, 2048, Licence::Open),
        published("open-llama-13b", 13_015_864_320, 2048, Licence::Open),
        published("vicuna-7b-v1.5", 6_738_415_616, 4096, Licence::Restricted),
        published("vicuna-13b-v1.5", 13_015_864_320, 4096, Licence::Restricted),
        published("orca-2-7b", 6_738_440_192, 4096, Licence::Research),
        published("orca-2-13b", 13_015_895_040, 4096, Licence::Research),
        published("code-llama-7b", 6_738_546_688, 16_384, Licence::Restricted),
        published("code-llama-34b", 33_743_970_304, 16_384, Licence::Restricted),
        published("solar-10.7b", 10_731_524_096, 4096, Licence::Open),
        published("tinyllama-1.1b", 1_100_048_384, 2048, Licence::Open),
        published("smollm2-135m", 134_515_008, 8192, Licence::Open),
        published("smollm2-360m", 361_821_120, 8192, Licence::Open),
        published("smollm2-1.7b", 1_711_376_384, 8192, Licence::Open),
    ],
    ..BASE
};

pub(super) const TENSORS: &[TensorName] = &[
    name("token_embd", "embed_tokens", "V D"),
    name("rope_freqs", "rope_freqs", "r/2"),
    name("blk.{i}.attn_norm", "layers.{i}.input_layernorm", "D"),
    name("blk.{i}.attn_q", "layers.{i}.self_attn.q_proj", "H*d D")
        .stored(Stored::HeadRows)
        .biased_if("attention_bias"),
    name("blk.{i}.attn_k", "layers.{i}.self_attn.k_proj", "K*d D")
        .stored(Stored::HeadRows)
        .biased_if("attention_bias"),
    name("blk.{i}.attn_v", "layers.{i}.self_attn.v_proj", "K*d D").biased_if("attention_bias"),
    name("blk.{i}.attn_output", "layers.{i}.self_attn.o_proj", "D H*d").biased_if("attention_bias"),
    name("blk.{i}.ffn_norm", "layers.{i}.post_attention_layernorm", "D"),
    name("blk.{i}.ffn_gate", "layers.{i}.mlp.gate_proj", "F D").biased_if("mlp_bias"),
    name("blk.{i}.ffn_up", "layers.{i}.mlp.up_proj", "F D").biased_if("mlp_bias"),
    name("blk.{i}.ffn_down", "layers.{i}.mlp.down_proj", "D F").biased_if("mlp_bias"),
    name("output_norm", "norm", "D"),
    name("output", "lm_head", "V D").head(&[Task::Vocabulary]),
    name("cls.output", "score", "C D").head(&[Task::Sequence]),
    name("cls.output", "score", "C D").biased().head(&[Task::Tokens]),
];

pub(super) fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let own = vec![
        ("attention_bias", keys.bias_or("blk.0.attn_q", "attention_bias", false)?),
        ("mlp_bias", keys.bias_or("blk.0.ffn_up", "mlp_bias", false)?),
    ];
    Ok(ModelConfig { own, ..llama_kin::LLAMA.config(keys)? })
}

pub(super) fn keys(config: &ModelConfig) -> Vec<Key> {
    let mut keys = llama_kin::LLAMA.keys(config);
    keys.extend([
        Key::new("", "attention_bias", config.own_switch("attention_bias")),
        Key::new("", "mlp_bias", config.own_switch("mlp_bias")),
    ]);
    keys
}
