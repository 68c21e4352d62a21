//! Falcon: decoder; few keys for many queries, attention and feed-forward layer side by side, no biases.
//!
//! Three layouts share the name. Falcon-7B has one key for all queries and one norm for both layers; the new decoder
//! architecture (40B, 180B) has groups of heads and a norm for each layer, or one for both (11B); the RW models have a key
//! for each query, one layer after the other, biases, and ALiBi instead of rotary positions.
//!
//! ALiBi's slopes and its products of slope and position are rounded to bf16, and divided by √d together with the scores, as
//! the models were trained and transformers computes them. So keys far into a text share their biases with their
//! neighbours: from position 256 on a bf16 has no room for each whole number.
//! Source: The Falcon Series of Open Language Models, arXiv:2311.16867, §4; RefinedWeb, arXiv:2306.01116, §4.1.

use rhetor_catalog::{About, Source};
use rhetor_kernels::half;
use rhetor_kernels::rope::RopeOrder;

use super::{BASE, Family, Licence, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::{PreNormBlock, alibi_slopes};
use crate::load::LoadError;
use crate::names::{Stored, TensorName, name};
use crate::row_order;

pub const FALCON: Family = Family {
    about: About {
        name: "falcon",
        summary: "Falcon 7B, 11B, 40B and 180B, and the RefinedWeb models with ALiBi",
        source: Source::Paper {
            title: "The Falcon Series of Open Language Models",
            id: "arXiv:2311.16867",
            section: "§4",
        },
        options: &[],
    },
    gguf: "falcon",
    model_type: "falcon",
    architectures: &[
        ("FalconForCausalLM", Task::Vocabulary),
        ("RWForCausalLM", Task::Vocabulary),
        ("FalconForSequenceClassification", Task::Sequence),
        ("FalconForTokenClassification", Task::Tokens),
        ("FalconForQuestionAnswering", Task::Span),
    ],
    prefix: "transformer.",
    config,
    keys,
    tensors: TENSORS,
    build: PreNormBlock::decoder,
    published: &[
        published("falcon-rw-1b", 1_311_625_216, 2048, Licence::Open),
        published("falcon-7b", 6_921_720_704, 2048, Licence::Open),
        published("falcon-11b", 11_102_822_400, 8192, Licence::Restricted),
        published("falcon-40b", 41_303_293_952, 2048, Licence::Open),
        published("falcon-180b", 178_557_088_768, 2048, Licence::Restricted),
    ],
    ..BASE
};

const TENSORS: &[TensorName] = &[
    name("token_embd", "word_embeddings", "V D"),
    name("blk.{i}.attn_norm", "h.{i}.input_layernorm", "D").biased().when("input_norms"),
    name("blk.{i}.attn_norm", "h.{i}.ln_mlp", "D").biased().when("mlp_norms"),
    name("blk.{i}.attn_norm_2", "h.{i}.ln_attn", "D").biased().when("mlp_norms"),
    name("blk.{i}.attn_qkv", "h.{i}.self_attention.query_key_value", "qkv D")
        .stored(Stored::Rows(row_order::groups))
        .biased_if("linear_bias"),
    name("blk.{i}.attn_output", "h.{i}.self_attention.dense", "D D").biased_if("linear_bias").residual(),
    name("blk.{i}.ffn_norm", "h.{i}.post_attention_layernorm", "D").biased().when("post_norms"),
    name("blk.{i}.ffn_up", "h.{i}.mlp.dense_h_to_4h", "F D").biased_if("linear_bias"),
    name("blk.{i}.ffn_down", "h.{i}.mlp.dense_4h_to_h", "D F").biased_if("linear_bias").residual(),
    name("output_norm", "ln_f", "D").biased(),
    name("output", "lm_head", "V D").head(&[Task::Vocabulary]),
    name("cls.output", "score", "C D").head(&[Task::Sequence]),
    name("cls.output", "classifier", "C D").biased().head(&[Task::Tokens]),
    name("cls.output", "qa_outputs", "C D").biased().head(&[Task::Span]),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    // The first files, whose `model_type` is RefinedWeb, have other names for three sizes.
    let size = |gguf: &str, name: &str, old: &str| match keys.size_opt(gguf, name)? {
        None if !keys.speaks_gguf() => keys.size(gguf, old),
        _ => keys.size(gguf, name),
    };
    let hidden_size = keys.size("embedding_length", "hidden_size")?;
    let n_layers = size("block_count", "num_hidden_layers", "n_layer")?;
    let n_heads = size("attention.head_count", "num_attention_heads", "n_head")?;
    let head_dim = keys.head_dim(hidden_size, n_heads, "attention.head_count", "num_attention_heads")?;
    let old_kv_heads = keys.size_opt("attention.head_count_kv", "n_head_kv")?;
    let n_kv_heads =
        keys.size_or("attention.head_count_kv", "num_kv_heads", old_kv_heads.unwrap_or(n_heads))?;
    let is_new = keys.flag_or("", "new_decoder_architecture", old_kv_heads.is_some())?;
    let is_parallel = keys.flag_or("", "parallel_attn", true)?;
    let n_norms = match keys.speaks_gguf() {
        true => 1 + usize::from(keys.has_tensor("blk.0.attn_norm_2.weight")),
        false => keys.size_or("", "num_ln_in_parallel_attn", if is_new { 2 } else { 1 })?,
    };
    if n_norms > if is_new || keys.speaks_gguf() { 2 } else { 1 } {
        return Err(keys.refuse("", "num_ln_in_parallel_attn", n_norms, "1, or 2 in the new architecture"));
    }
    if is_new && !is_parallel {
        return Err(keys.refuse("", "parallel_attn", false, "true in the new architecture"));
    }
    let n_kv_heads = match keys.speaks_gguf() || is_new {
        true => n_kv_heads,
        false if keys.flag_or("", "multi_query", true)? => 1,
        false => n_heads,
    };
    let has_alibi = keys.flag_or("", "alibi", false)?;
    let rope = (!has_alibi).then(|| keys.rope(head_dim, RopeOrder::Half, 10_000.0)).transpose()?;
    let attention_scale = (head_dim as f32).powf(-0.5);
    let switch = |is_on: bool| f64::from(u8::from(is_on));
    Ok(ModelConfig {
        family: "falcon",
        vocab_size: keys.vocab_size()?,
        hidden_size,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim,
        ffn_size: keys.size_or("feed_forward_length", "ffn_hidden_size", 4 * hidden_size)?,
        context_len: keys.size_or("context_length", "max_position_embeddings", 2048)?,
        norm_eps: keys.number_or("attention.layer_norm_epsilon", "layer_norm_epsilon", 1e-5)?,
        activation: keys.activation("activation", "gelu")?,
        attention_scale,
        alibi_slopes: if has_alibi { rounded_slopes(n_heads) } else { Vec::new() },
        alibi_bf16: has_alibi.then_some(attention_scale),
        rope,
        tied: keys.switch_or("tie_word_embeddings", true)?,
        own: vec![
            ("alibi", switch(has_alibi)),
            ("parallel", switch(is_parallel)),
            ("qkv", ((n_heads + 2 * n_kv_heads) * head_dim) as f64),
            ("input_norms", switch(n_norms == 1)),
            ("mlp_norms", switch(n_norms == 2)),
            ("post_norms", switch(!is_parallel)),
            ("linear_bias", keys.bias_or("blk.0.attn_qkv", "bias", false)?),
        ],
        ..ModelConfig::default()
    })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    let (is_parallel, has_two_norms) = (config.own_switch("parallel"), config.own_switch("mlp_norms"));
    let is_new = is_parallel && (config.n_kv_heads > 1 || has_two_norms);
    let mut keys = vec![
        Key::size("vocab_size", "vocab_size", config.vocab_size),
        Key::size("embedding_length", "hidden_size", config.hidden_size),
        Key::size("block_count", "num_hidden_layers", config.n_layers),
        Key::size("feed_forward_length", "ffn_hidden_size", config.ffn_size),
        Key::size("attention.head_count", "num_attention_heads", config.n_heads),
        Key::size("attention.head_count_kv", "num_kv_heads", config.n_kv_heads),
        Key::size("context_length", "max_position_embeddings", config.context_len),
        Key::new("attention.layer_norm_epsilon", "layer_norm_epsilon", config.norm_eps),
        // The order of rows that llama.cpp's converter gives them.
        Key::new("tensor_data_layout", "", "jploski"),
        Key::new("", "activation", "gelu"),
        Key::new("", "new_decoder_architecture", is_new),
        Key::new("", "multi_query", config.n_kv_heads == 1),
        Key::new("", "parallel_attn", is_parallel),
        Key::new("", "alibi", config.own_switch("alibi")),
        Key::new("", "bias", config.own_switch("linear_bias")),
    ];
    if is_new {
        keys.push(Key::size("", "num_ln_in_parallel_attn", 1 + usize::from(has_two_norms)));
    }
    keys
}

/// The slopes of ALiBi in bf16. `[H]`
fn rounded_slopes(n_heads: usize) -> Vec<f32> {
    alibi_slopes(n_heads).into_iter().map(|slope| half::bf16_to_f32(half::f32_to_bf16(slope))).collect()
}
