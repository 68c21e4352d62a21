//! The Transformer of 2017: encoder-decoder; layer norms after each sublayer, sines as positions, biases everywhere.
//!
//! One table is the embeddings of both sides, times √D, and the output layer. Layers have biases as PyTorch's
//! `nn.Transformer` has them; unlike there, no norm stands after the last block. There are no files of others to read:
//! `config.json` says `transformer-2017`.
//! Source: Attention Is All You Need, arXiv:1706.03762, section 3.

use rhetor_catalog::{About, Source};

use super::{BASE, Family, Licence, Published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::{EncoderDecoder, Entrance, NormPlace, Stack, StackOptions};
use crate::load::{LoadError, Weights};
use crate::model::Network;
use crate::names::{Spread, TensorName, name};

pub const TRANSFORMER: Family = Family {
    about: About {
        name: "transformer",
        summary: "the Transformer of 2017, an encoder-decoder to be trained",
        source: Source::Paper { title: "Attention Is All You Need", id: "arXiv:1706.03762", section: "§3" },
        options: &[],
    },
    model_type: "transformer-2017",
    architectures: &[("Transformer2017", Task::Vocabulary)],
    config,
    keys,
    tensors: TENSORS,
    build,
    // Over a vocabulary of 37000, section 5.1.
    published: &[
        Published {
            name: "transformer-base",
            n_parameters: 63_082_496,
            context_len: 0,
            licence: Licence::Unpublished,
        },
        Published {
            name: "transformer-big",
            n_parameters: 214_245_376,
            context_len: 0,
            licence: Licence::Unpublished,
        },
    ],
    ..BASE
};

/// A row with a bias; N times for the encoder, L times for the decoder.
const fn row(ours: &'static str, file: &'static str, shape: &'static str, times: &'static str) -> TensorName {
    name(ours, file, shape).biased().times(times).spread(Spread::Xavier)
}

const TENSORS: &[TensorName] = &[
    name("token_embd", "shared", "V D").spread(Spread::Over("D")),
    row("enc.blk.{i}.attn_q", "encoder.layers.{i}.self_attn.q_proj", "D D", "N"),
    row("enc.blk.{i}.attn_k", "encoder.layers.{i}.self_attn.k_proj", "D D", "N"),
    row("enc.blk.{i}.attn_v", "encoder.layers.{i}.self_attn.v_proj", "D D", "N"),
    row("enc.blk.{i}.attn_o", "encoder.layers.{i}.self_attn.out_proj", "D D", "N"),
    row("enc.blk.{i}.attn_norm", "encoder.layers.{i}.norm1", "D", "N"),
    row("enc.blk.{i}.ffn_up", "encoder.layers.{i}.linear1", "F D", "N"),
    row("enc.blk.{i}.ffn_down", "encoder.layers.{i}.linear2", "D F", "N"),
    row("enc.blk.{i}.ffn_norm", "encoder.layers.{i}.norm2", "D", "N"),
    row("dec.blk.{i}.attn_q", "decoder.layers.{i}.self_attn.q_proj", "D D", "L"),
    row("dec.blk.{i}.attn_k", "decoder.layers.{i}.self_attn.k_proj", "D D", "L"),
    row("dec.blk.{i}.attn_v", "decoder.layers.{i}.self_attn.v_proj", "D D", "L"),
    row("dec.blk.{i}.attn_o", "decoder.layers.{i}.self_attn.out_proj", "D D", "L"),
    row("dec.blk.{i}.attn_norm", "decoder.layers.{i}.norm1", "D", "L"),
    row("dec.blk.{i}.cross_attn_q", "decoder.layers.{i}.multihead_attn.q_proj", "D D", "L"),
    row("dec.blk.{i}.cross_attn_k", "decoder.layers.{i}.multihead_attn.k_proj", "D D", "L"),
    row("dec.blk.{i}.cross_attn_v", "decoder.layers.{i}.multihead_attn.v_proj", "D D", "L"),
    row("dec.blk.{i}.cross_attn_o", "decoder.layers.{i}.multihead_attn.out_proj", "D D", "L"),
    row("dec.blk.{i}.cross_attn_norm", "decoder.layers.{i}.norm2", "D", "L"),
    row("dec.blk.{i}.ffn_up", "decoder.layers.{i}.linear1", "F D", "L"),
    row("dec.blk.{i}.ffn_down", "decoder.layers.{i}.linear2", "D F", "L"),
    row("dec.blk.{i}.ffn_norm", "decoder.layers.{i}.norm3", "D", "L"),
    name("output", "generator", "V D").head(&[Task::Vocabulary]),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let hidden_size = keys.size("", "d_model")?;
    let n_heads = keys.size("", "num_heads")?;
    if hidden_size % n_heads != 0 {
        return Err(keys.refuse("", "num_heads", n_heads, &format!("a divisor of the width {hidden_size}")));
    }
    let head_dim = hidden_size / n_heads;
    Ok(ModelConfig {
        family: "transformer",
        vocab_size: keys.vocab_size()?,
        hidden_size,
        n_layers: keys.size("", "num_decoder_layers")?,
        n_encoder_layers: keys.size("", "num_encoder_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        ffn_size: keys.size("", "d_ff")?,
        context_len: keys.size("", "max_position_embeddings")?,
        norm_eps: keys.number_or("", "layer_norm_eps", 1e-5)?,
        activation: keys.activation("activation_function", "relu")?,
        attention_scale: (head_dim as f32).powf(-0.5),
        decoder_start: Some(keys.size_opt("", "decoder_start_token_id")?.unwrap_or(0) as u32),
        tied: keys.switch_or("tie_word_embeddings", true)?,
        ..ModelConfig::default()
    })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    vec![
        Key::size("", "vocab_size", config.vocab_size),
        Key::size("", "d_model", config.hidden_size),
        Key::size("", "num_encoder_layers", config.n_encoder_layers),
        Key::size("", "num_decoder_layers", config.n_layers),
        Key::size("", "num_heads", config.n_heads),
        Key::size("", "d_ff", config.ffn_size),
        Key::size("", "max_position_embeddings", config.context_len),
        Key::new("", "layer_norm_eps", config.norm_eps),
        Key::size("", "decoder_start_token_id", config.decoder_start.unwrap_or(0) as usize),
    ]
}

fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    let token_embd = weights.embedding("token_embd")?;
    let of_side =
        |side, n_blocks| StackOptions { side, n_blocks, norms: NormPlace::After, max_distance: None };
    let encoder = Stack::load(weights, of_side("enc", weights.config.n_encoder_layers))?;
    let decoder = Stack::load(weights, of_side("dec", weights.config.n_layers))?;
    let output = weights.output(&token_embd)?;
    let scale = (weights.config.hidden_size as f32).sqrt();
    let entrance = Entrance { token_embd, scale, has_waves: true };
    Ok(Box::new(EncoderDecoder { entrance, encoder, decoder, output_scale: 1.0, output }))
}
