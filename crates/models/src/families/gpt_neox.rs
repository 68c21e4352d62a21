//! GPT-NeoX: decoder; attention and feed-forward layer side by side, each with a layer norm of its own, rotary positions
//! over the first quarter of each head, biases everywhere but in the output layer.
//!
//! Pythia's sizes from 14M to 12B, and GPT-NeoX-20B. Old files have an `attention.bias` that is a mask.
//! Source: GPT-NeoX-20B, arXiv:2204.06745, §2.1; Pythia, arXiv:2304.01373, §2.2.

use rhetor_catalog::{About, Source};
use rhetor_kernels::rope::RopeOrder;
use rhetor_tensor::ops::head_norm::NormKind;

use super::llama_kin::{self, Kin};
use super::{BASE, Family, Licence, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;
use crate::names::{Stored, TensorName, name};
use crate::row_order;

const KIN: Kin = Kin {
    family: "gpt-neox",
    order: RopeOrder::Half,
    rotary: 0.25,
    norm_kind: NormKind::Layer,
    norm_eps: 1e-5,
    activation: ("hidden_act", "gelu"),
    ..llama_kin::LLAMA
};

pub const GPT_NEOX: Family = Family {
    about: About {
        name: "gpt-neox",
        summary: "GPT-NeoX with its parallel residual: Pythia from 14M to 12B",
        source: Source::Paper {
            title: "Pythia: A Suite for Analyzing Large Language Models Across Training and Scaling",
            id: "arXiv:2304.01373",
            section: "§2.2",
        },
        options: &[],
    },
    gguf: "gptneox",
    model_type: "gpt_neox",
    architectures: &[
        ("GPTNeoXForCausalLM", Task::Vocabulary),
        ("GPTNeoXForSequenceClassification", Task::Sequence),
        ("GPTNeoXForTokenClassification", Task::Tokens),
        ("GPTNeoXForQuestionAnswering", Task::Span),
    ],
    prefix: "gpt_neox.",
    config,
    keys,
    tensors: TENSORS,
    build: PreNormBlock::decoder,
    published: &[
        published("pythia-14m", 14_067_712, 2048, Licence::Open),
        published("pythia-31m", 30_494_720, 2048, Licence::Open),
        published("pythia-70m", 70_426_624, 2048, Licence::Open),
        published("pythia-160m", 162_322_944, 2048, Licence::Open),
        published("pythia-410m", 405_334_016, 2048, Licence::Open),
        published("pythia-1b", 1_011_781_632, 2048, Licence::Open),
        published("pythia-1.4b", 1_414_647_808, 2048, Licence::Open),
        published("pythia-2.8b", 2_775_208_960, 2048, Licence::Open),
        published("pythia-6.9b", 6_857_302_016, 2048, Licence::Open),
        published("pythia-12b", 11_846_072_320, 2048, Licence::Open),
        published("gpt-neox-20b", 20_554_567_680, 2048, Licence::Open),
    ],
    ..BASE
};

const TENSORS: &[TensorName] = &[
    name("token_embd", "embed_in", "V D"),
    name("blk.{i}.attn_norm", "layers.{i}.input_layernorm", "D").biased(),
    name("blk.{i}.attn_qkv", "layers.{i}.attention.query_key_value", "3*D D")
        .stored(Stored::Rows(row_order::groups))
        .biased_if("attention_bias"),
    name("blk.{i}.attn_output", "layers.{i}.attention.dense", "D D").biased_if("attention_bias").residual(),
    name("blk.{i}.ffn_norm", "layers.{i}.post_attention_layernorm", "D").biased(),
    name("blk.{i}.ffn_up", "layers.{i}.mlp.dense_h_to_4h", "F D").biased(),
    name("blk.{i}.ffn_down", "layers.{i}.mlp.dense_4h_to_h", "D F").biased().residual(),
    name("output_norm", "final_layer_norm", "D").biased(),
    name("output", "embed_out", "V D").head(&[Task::Vocabulary]),
    name("cls.output", "score", "C D").head(&[Task::Sequence]),
    name("cls.output", "classifier", "C D").biased().head(&[Task::Tokens]),
    name("cls.output", "qa_outputs", "C D").biased().head(&[Task::Span]),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let kin = KIN.config(keys)?;
    keys.check_heads(&kin)?;
    let parallel = keys.flag_or("use_parallel_residual", "use_parallel_residual", true)?;
    let own = vec![
        ("parallel", f64::from(u8::from(parallel))),
        ("attention_bias", keys.bias_or("blk.0.attn_qkv", "attention_bias", true)?),
    ];
    Ok(ModelConfig { own, ..kin })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    let rope = config.rope.as_ref().expect("the family has rotary positions");
    let own = [
        Key::new("use_parallel_residual", "use_parallel_residual", config.own_switch("parallel")),
        Key::new("", "attention_bias", config.own_switch("attention_bias")),
        // What transformers calls the rotary part and its base in this family.
        Key::new("", "rotary_pct", rope.rotary_dim as f32 / config.head_dim as f32),
        Key::new("", "rotary_emb_base", rope.theta),
    ];
    KIN.keys(config).into_iter().chain(own).collect()
}
