//! T5: encoder-decoder; root-mean-square norms before each sublayer, learnt biases by distance, no biases of layers.
//!
//! Version 1.1 (and Flan, and CodeT5+) has a gated feed-forward layer and an output layer of its own; version 1.0 has the
//! table of embeddings again, with its inputs times 1/√D.
//! Source: T5, arXiv:1910.10683, section 2.1; version 1.1: arXiv:2002.05202, and the release notes of its code.

use rhetor_catalog::{About, Source};
use rhetor_kernels::activation::Activation;

use super::{BASE, Family, Licence, Published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::{EncoderDecoder, Entrance, NormPlace, Stack, StackOptions};
use crate::load::{LoadError, Weights};
use crate::model::Network;
use crate::names::{Spread, TensorName, name};
use rhetor_tensor::ops::head_norm::NormKind;

pub const T5: Family = Family {
    about: About {
        name: "t5",
        summary: "T5 and Flan-T5, encoder-decoders: text in, text out",
        source: Source::Paper {
            title: "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
            id: "arXiv:1910.10683",
            section: "§2.1",
        },
        options: &[],
    },
    gguf: "t5",
    model_type: "t5",
    architectures: &[
        ("T5ForConditionalGeneration", Task::Vocabulary),
        ("T5WithLMHeadModel", Task::Vocabulary),
    ],
    config,
    keys,
    tensors: TENSORS,
    other_names,
    build,
    published: PUBLISHED,
    ..BASE
};

const PUBLISHED: &[Published] = &[
    published("t5-small", 60_506_624),
    published("t5-base", 222_903_552),
    published("t5-large", 737_668_096),
    published("t5-3b", 2_851_598_336),
    published("t5-11b", 11_307_321_344),
    published("codet5p-220m", 222_882_048),
    published("codet5p-770m", 737_639_424),
];

const fn published(name: &'static str, n_parameters: u64) -> Published {
    Published { name, n_parameters, context_len: 512, licence: Licence::Open }
}

const QUERY: Spread = Spread::Over("D*d");
const IN: Spread = Spread::Over("D");
const OUT: Spread = Spread::Over("H*d");
const DOWN: Spread = Spread::Over("F");

/// A row of the encoder.
const fn enc(ours: &'static str, hugging_face: &'static str, shape: &'static str) -> TensorName {
    name(ours, hugging_face, shape).times("N")
}

/// A row of the decoder, which some models leave away.
const fn dec(ours: &'static str, hugging_face: &'static str, shape: &'static str) -> TensorName {
    name(ours, hugging_face, shape).times("decoder")
}

pub(super) const TENSORS: &[TensorName] = &[
    name("token_embd", "shared", "V D").spread(Spread::Over("1")),
    enc("enc.blk.0.attn_rel_b", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias", "buckets H")
        .spread(IN),
    enc("enc.blk.{i}.attn_norm", "encoder.block.{i}.layer.0.layer_norm", "D"),
    enc("enc.blk.{i}.attn_q", "encoder.block.{i}.layer.0.SelfAttention.q", "H*d D").spread(QUERY),
    enc("enc.blk.{i}.attn_k", "encoder.block.{i}.layer.0.SelfAttention.k", "H*d D").spread(IN),
    enc("enc.blk.{i}.attn_v", "encoder.block.{i}.layer.0.SelfAttention.v", "H*d D").spread(IN),
    enc("enc.blk.{i}.attn_o", "encoder.block.{i}.layer.0.SelfAttention.o", "D H*d").spread(OUT),
    enc("enc.blk.{i}.ffn_norm", "encoder.block.{i}.layer.1.layer_norm", "D"),
    enc("enc.blk.{i}.ffn_up", "encoder.block.{i}.layer.1.DenseReluDense.wi", "F D").when("plain").spread(IN),
    enc("enc.blk.{i}.ffn_gate", "encoder.block.{i}.layer.1.DenseReluDense.wi_0", "F D")
        .when("gated")
        .spread(IN),
    enc("enc.blk.{i}.ffn_up", "encoder.block.{i}.layer.1.DenseReluDense.wi_1", "F D")
        .when("gated")
        .spread(IN),
    enc("enc.blk.{i}.ffn_down", "encoder.block.{i}.layer.1.DenseReluDense.wo", "D F").spread(DOWN),
    enc("enc.output_norm", "encoder.final_layer_norm", "D"),
    dec("dec.blk.0.attn_rel_b", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias", "buckets H")
        .spread(IN),
    dec("dec.blk.{i}.attn_norm", "decoder.block.{i}.layer.0.layer_norm", "D"),
    dec("dec.blk.{i}.attn_q", "decoder.block.{i}.layer.0.SelfAttention.q", "H*d D").spread(QUERY),
    dec("dec.blk.{i}.attn_k", "decoder.block.{i}.layer.0.SelfAttention.k", "H*d D").spread(IN),
    dec("dec.blk.{i}.attn_v", "decoder.block.{i}.layer.0.SelfAttention.v", "H*d D").spread(IN),
    dec("dec.blk.{i}.attn_o", "decoder.block.{i}.layer.0.SelfAttention.o", "D H*d").spread(OUT),
    dec("dec.blk.{i}.cross_attn_norm", "decoder.block.{i}.layer.1.layer_norm", "D"),
    dec("dec.blk.{i}.cross_attn_q", "decoder.block.{i}.layer.1.EncDecAttention.q", "H*d D").spread(QUERY),
    dec("dec.blk.{i}.cross_attn_k", "decoder.block.{i}.layer.1.EncDecAttention.k", "H*d D").spread(IN),
    dec("dec.blk.{i}.cross_attn_v", "decoder.block.{i}.layer.1.EncDecAttention.v", "H*d D").spread(IN),
    dec("dec.blk.{i}.cross_attn_o", "decoder.block.{i}.layer.1.EncDecAttention.o", "D H*d").spread(OUT),
    dec("dec.blk.{i}.ffn_norm", "decoder.block.{i}.layer.2.layer_norm", "D"),
    dec("dec.blk.{i}.ffn_up", "decoder.block.{i}.layer.2.DenseReluDense.wi", "F D").when("plain").spread(IN),
    dec("dec.blk.{i}.ffn_gate", "decoder.block.{i}.layer.2.DenseReluDense.wi_0", "F D")
        .when("gated")
        .spread(IN),
    dec("dec.blk.{i}.ffn_up", "decoder.block.{i}.layer.2.DenseReluDense.wi_1", "F D")
        .when("gated")
        .spread(IN),
    dec("dec.blk.{i}.ffn_down", "decoder.block.{i}.layer.2.DenseReluDense.wo", "D F").spread(DOWN),
    dec("dec.output_norm", "decoder.final_layer_norm", "D"),
    name("output", "lm_head", "V D").spread(Spread::Over("1")).head(&[Task::Vocabulary]),
    // What only CodeT5+ has, and only where it embeds.
    name("embedding_output", "proj", "embed D").biased().when("embed"),
];

/// Old files hold the table of embeddings once more for each side, and some only so.
fn other_names(name: &str) -> Vec<String> {
    match name {
        "shared.weight" => ["encoder", "decoder"].map(|side| format!("{side}.embed_tokens.weight")).to_vec(),
        _ => Vec::new(),
    }
}

pub(super) fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let hidden_size = keys.size("embedding_length", "d_model")?;
    let n_encoder_layers = keys.size("block_count", "num_layers")?;
    let n_layers = keys.size_or("decoder_block_count", "num_decoder_layers", n_encoder_layers)?;
    let n_heads = keys.size("attention.head_count", "num_heads")?;
    let head_dim = keys.size("attention.key_length", "d_kv")?;
    let tied = keys.switch_or("tie_word_embeddings", true)?;
    let (is_gated, activation) = match keys.word_opt("", "feed_forward_proj")?.as_deref() {
        _ if keys.speaks_gguf() => {
            let is_gated = keys.flag_or("feed_forward_gated", "", keys.has("enc.blk.0.ffn_gate.weight"))?;
            (is_gated, if is_gated { Activation::GeluTanh } else { Activation::Relu })
        }
        None | Some("relu") => (false, Activation::Relu),
        Some("gated-gelu") => (true, Activation::GeluTanh),
        Some(other) => {
            return Err(keys.refuse("", "feed_forward_proj", other, "relu or gated-gelu"));
        }
    };
    let tied_scale = if keys.speaks_gguf() { !keys.has("output.weight") } else { tied };
    let is_scaled = keys.flag_or("decoder_output_scaled", "scale_decoder_outputs", tied_scale)?;
    let switch = |is_on: bool| f64::from(u8::from(is_on));
    Ok(ModelConfig {
        family: "t5",
        norm_kind: NormKind::Rms,
        vocab_size: keys.vocab_size()?,
        hidden_size,
        n_layers,
        n_encoder_layers,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        ffn_size: keys.size("feed_forward_length", "d_ff")?,
        context_len: keys.size_or("context_length", "n_positions", 512)?,
        norm_eps: keys.number_or("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", 1e-6)?,
        activation,
        decoder_start: Some(
            keys.size_opt("decoder_start_token_id", "decoder_start_token_id")?.unwrap_or(0) as u32
        ),
        tied,
        own: vec![
            (
                "buckets",
                keys.size_or("attention.relative_buckets_count", "relative_attention_num_buckets", 32)?
                    as f64,
            ),
            ("max distance", keys.size_or("", "relative_attention_max_distance", 128)? as f64),
            ("decoder", n_layers as f64),
            ("embed", 0.0),
            ("gated", switch(is_gated)),
            ("plain", switch(!is_gated)),
            ("scaled", switch(is_scaled)),
        ],
        ..ModelConfig::default()
    })
}

pub(super) fn keys(config: &ModelConfig) -> Vec<Key> {
    let is_gated = config.own_switch("gated");
    vec![
        Key::size("vocab_size", "vocab_size", config.vocab_size),
        Key::size("embedding_length", "d_model", config.hidden_size),
        Key::size("block_count", "num_layers", config.n_encoder_layers),
        Key::size("decoder_block_count", "num_decoder_layers", config.n_layers),
        Key::size("feed_forward_length", "d_ff", config.ffn_size),
        Key::size("attention.head_count", "num_heads", config.n_heads),
        Key::size("attention.key_length", "d_kv", config.head_dim),
        Key::size("attention.value_length", "", config.head_dim),
        Key::size("context_length", "n_positions", config.context_len),
        Key::size(
            "attention.relative_buckets_count",
            "relative_attention_num_buckets",
            config.own_size("buckets"),
        ),
        Key::size("", "relative_attention_max_distance", config.own_size("max distance")),
        Key::new("attention.layer_norm_epsilon", "", config.norm_eps),
        Key::new("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", config.norm_eps),
        Key::size(
            "decoder_start_token_id",
            "decoder_start_token_id",
            config.decoder_start.unwrap_or(0) as usize,
        ),
        Key::new("feed_forward_gated", "", is_gated),
        Key::new("", "feed_forward_proj", if is_gated { "gated-gelu" } else { "relu" }),
        Key::new("decoder_output_scaled", "scale_decoder_outputs", config.own_switch("scaled")),
        Key::new("", "is_encoder_decoder", true),
    ]
}

pub(super) fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    let config = weights.config;
    let token_embd = weights.embedding("token_embd")?;
    let mut stack = |side, n_blocks| {
        let max_distance = Some(config.own_size("max distance"));
        Stack::load(weights, StackOptions { side, n_blocks, norms: NormPlace::Before, max_distance })
    };
    let (encoder, decoder) = (stack("enc", config.n_encoder_layers)?, stack("dec", config.n_layers)?);
    let output = weights.output(&token_embd)?;
    let output_scale = match config.own_switch("scaled") {
        true => (config.hidden_size as f32).powf(-0.5),
        false => 1.0,
    };
    let entrance = Entrance { token_embd, scale: 1.0, has_waves: false };
    Ok(Box::new(EncoderDecoder { entrance, encoder, decoder, output_scale, output }))
}
