//! GPT-NeoX: decoder; attention and feed-forward layer side by side, each with a layer norm of its own, rotary positions
//! over the first quarter of each head, biases everywhere but in the output layer.
//!
//! Pythia's sizes from 14M to 12B, and GPT-NeoX-20B. Old files have an `attention.bias` that is a mask.
//! Source: GPT-NeoX-20B, arXiv:2204.06745, §2.1; Pythia, arXiv:2304.01373, §2.2.

use rhetor_catalog::{About, Source};
use rhetor_kernels::rope::RopeOrder;

use super::{BASE, Family, Licence, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;
use crate::names::{Stored, TensorName, name};
use crate::row_order;

pub const GPT_NEOX: Family = Family {
    about: About {
        name: "gpt_neox",
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
    let hidden_size = keys.size("embedding_length", "hidden_size")?;
    let n_heads = keys.size("attention.head_count", "num_attention_heads")?;
    let head_dim = keys.head_dim(hidden_size, n_heads, "attention.head_count", "num_attention_heads")?;
    let is_parallel = keys.flag_or("use_parallel_residual", "use_parallel_residual", true)?;
    Ok(ModelConfig {
        family: "gpt_neox",
        vocab_size: keys.vocab_size()?,
        hidden_size,
        n_layers: keys.size("block_count", "num_hidden_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        ffn_size: keys.size("feed_forward_length", "intermediate_size")?,
        context_len: keys.size("context_length", "max_position_embeddings")?,
        norm_eps: keys.number_or("attention.layer_norm_epsilon", "layer_norm_eps", 1e-5)?,
        activation: keys.activation("hidden_act", "gelu")?,
        attention_scale: (head_dim as f32).powf(-0.5),
        rope: Some(keys.partial_rope(head_dim, RopeOrder::Half, 10_000.0, 0.25)?),
        tied: keys.switch_or("tie_word_embeddings", false)?,
        own: vec![
            ("parallel", f64::from(u8::from(is_parallel))),
            ("attention_bias", keys.bias_or("blk.0.attn_qkv", "attention_bias", true)?),
        ],
        ..ModelConfig::default()
    })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    let rope = config.rope.as_ref().expect("the family has rotary positions");
    vec![
        Key::size("vocab_size", "vocab_size", config.vocab_size),
        Key::size("embedding_length", "hidden_size", config.hidden_size),
        Key::size("block_count", "num_hidden_layers", config.n_layers),
        Key::size("feed_forward_length", "intermediate_size", config.ffn_size),
        Key::size("attention.head_count", "num_attention_heads", config.n_heads),
        Key::size("context_length", "max_position_embeddings", config.context_len),
        Key::new("attention.layer_norm_epsilon", "layer_norm_eps", config.norm_eps),
        Key::new("use_parallel_residual", "use_parallel_residual", config.own_switch("parallel")),
        Key::new("", "attention_bias", config.own_switch("attention_bias")),
        Key::new("", "rotary_pct", rope.rotary_dim as f32 / config.head_dim as f32),
        Key::new("", "rotary_emb_base", rope.theta),
        Key::new("", "hidden_act", "gelu"),
    ]
}
