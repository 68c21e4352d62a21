//! RETRO: a decoder that reads what was retrieved for each chunk of its text, through chunked cross-attention.
//!
//! Neighbours are the passages of `Batch::source`: for each whole chunk of a sequence equally many, an empty one for none.
//! Without a source the same weights are a plain decoder. An encoder of a few layers reads each passage and sees the
//! decoder's rows of its chunk, as they are before the first cross-attention; so neighbours are encoded anew for each text, and
//! decoding with a cache, where a chunk is complete only after its rows are gone, is not here: it scores and trains.
//! RETRO-fit (section 4.3) is training with the encoder's and the cross-attention's tensors alone.
//!
//! Source: Improving Language Models by Retrieving from Trillions of Tokens, arXiv:2112.04426, section 2. Names, and what the
//! paper leaves open, are retro-pytorch's (0.3.9): normalisation by root mean square, learnt positions, a null key, eight heads
//! whatever its `heads` says. `config.json` has the arguments of its class.

use rhetor_catalog::{About, Source as From};
use rhetor_kernels::activation::Activation;
use rhetor_kernels::rope::{RopeOptions, RopeOrder, RopeScaling};
use rhetor_tensor::{Tensor, ops};

use super::{BASE, Family};
use crate::config::{Keys, ModelConfig};
use crate::head::Task;
use crate::kv_cache::KvCache;
use crate::layers::{
    Attention, Chunks, Embedding, FeedForward, Linear, Pass, Placed, RmsNorm, RotaryCross, Source,
    SourceTokens,
};
use crate::load::{LoadError, Weights};
use crate::model::Network;
use crate::names::{TensorName, name};

pub const RETRO: Family = Family {
    about: About {
        name: "retro",
        summary: "RETRO: a decoder that reads neighbours of each chunk of its text; it scores and trains, it does not generate",
        source: From::Paper {
            title: "Improving Language Models by Retrieving from Trillions of Tokens",
            id: "arXiv:2112.04426",
            section: "section 2",
        },
        options: &[],
    },
    model_type: "retro",
    architectures: &[("RETRO", Task::Vocabulary)],
    config,
    tensors: TENSORS,
    build,
    ..BASE
};

const TENSORS: &[TensorName] = &[
    name("token_embd", "token_emb", "V enc"),
    name("position_embd", "pos_emb", "P enc"),
    name("embd_to_decoder", "to_decoder_model_dim", "D enc").biased().when("projects"),
    name("blk.{i}.attn_norm", "decoder.layers.{i}.0.norm.gamma|", "D"),
    name("blk.{i}.attn_q", "decoder.layers.{i}.0.fn.to_q", "H*d D"),
    name("blk.{i}.attn_k", "decoder.layers.{i}.0.fn.to_k", "H*d D"),
    name("blk.{i}.attn_v", "decoder.layers.{i}.0.fn.to_v", "H*d D"),
    name("blk.{i}.attn_output", "decoder.layers.{i}.0.fn.to_out", "D H*d").biased(),
    name("blk.{i}.cross_norm", "decoder.layers.{i}.1.norm.gamma|", "D").in_layers(reads),
    name("blk.{i}.cross_q", "decoder.layers.{i}.1.fn.cross_attn.to_q", "H*d D").in_layers(reads),
    name("blk.{i}.cross_k", "decoder.layers.{i}.1.fn.cross_attn.to_k", "H*d D").in_layers(reads),
    name("blk.{i}.cross_v", "decoder.layers.{i}.1.fn.cross_attn.to_v", "H*d D").in_layers(reads),
    name("blk.{i}.cross_output", "decoder.layers.{i}.1.fn.cross_attn.to_out", "D H*d")
        .biased()
        .in_layers(reads),
    name("blk.{i}.null_k", "decoder.layers.{i}.1.fn.cross_attn.null_k|", "H*d").in_layers(reads),
    name("blk.{i}.null_v", "decoder.layers.{i}.1.fn.cross_attn.null_v|", "H*d").in_layers(reads),
    name("blk.{i}.ffn_norm", "decoder.layers.{i}.2.norm.gamma|", "D"),
    name("blk.{i}.ffn_up", "decoder.layers.{i}.2.fn.ff.0", "F D").biased(),
    name("blk.{i}.ffn_down", "decoder.layers.{i}.2.fn.ff.3", "D F").biased(),
    name("output_norm", "decoder.norm_out.gamma|", "D"),
    name("enc.blk.{i}.attn_norm", "encoder.layers.{i}.0.norm.gamma|", "enc").times("enc_layers"),
    name("enc.blk.{i}.attn_q", "encoder.layers.{i}.0.fn.to_q", "H*d enc").times("enc_layers"),
    name("enc.blk.{i}.attn_k", "encoder.layers.{i}.0.fn.to_k", "H*d enc").times("enc_layers"),
    name("enc.blk.{i}.attn_v", "encoder.layers.{i}.0.fn.to_v", "H*d enc").times("enc_layers"),
    name("enc.blk.{i}.attn_output", "encoder.layers.{i}.0.fn.to_out", "enc H*d").biased().times("enc_layers"),
    name("enc.blk.{i}.cross_norm", "encoder.layers.{i}.1.norm.gamma|", "enc").times("enc_layers"),
    name("enc.blk.{i}.cross_q", "encoder.layers.{i}.1.fn.to_q", "H*d enc").times("enc_layers"),
    name("enc.blk.{i}.cross_k", "encoder.layers.{i}.1.fn.to_k", "H*d D").times("enc_layers"),
    name("enc.blk.{i}.cross_v", "encoder.layers.{i}.1.fn.to_v", "H*d D").times("enc_layers"),
    name("enc.blk.{i}.cross_output", "encoder.layers.{i}.1.fn.to_out", "enc H*d")
        .biased()
        .times("enc_layers"),
    name("enc.blk.{i}.ffn_norm", "encoder.layers.{i}.2.norm.gamma|", "enc").times("enc_layers"),
    name("enc.blk.{i}.ffn_up", "encoder.layers.{i}.2.fn.ff.0", "4*enc enc").biased().times("enc_layers"),
    name("enc.blk.{i}.ffn_down", "encoder.layers.{i}.2.fn.ff.3", "enc 4*enc").biased().times("enc_layers"),
    name("enc.output_norm", "encoder.norm_out.gamma|", "enc"),
    name("enc.output", "encoder.project_out", "D enc").biased(),
    name("output", "to_logits", "V D").biased().head(&[Task::Vocabulary]),
];

/// Whether layer `i` of the decoder reads neighbours: bit i of a number.
fn reads(config: &ModelConfig, i: usize) -> bool {
    (config.own("cross_layers") as u64 >> i) & 1 == 1
}

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let size = |key, default| keys.size_or("", key, default);
    for key in ["use_deepnet", "gated_rmsnorm"] {
        if keys.switch_or(key, false)? {
            return Err(keys.refuse("", key, true, "false"));
        }
    }
    if keys.numbers_opt("enc_cross_attn_layers")?.is_some() {
        return Err(keys.refuse("", "enc_cross_attn_layers", "a list", "none: every layer of the encoder"));
    }
    let n_layers = size("dec_depth", 12)?;
    let mut cross_layers = 0u64;
    for number in keys.numbers_opt("dec_cross_attn_layers")?.unwrap_or_else(|| vec![1.0, 3.0, 6.0, 9.0]) {
        if number.fract() != 0.0 || !(1.0..=n_layers.min(52) as f32).contains(&number) {
            let expected = format!("layers from 1 to {}", n_layers.min(52));
            return Err(keys.refuse("", "dec_cross_attn_layers", number, &expected));
        }
        cross_layers |= 1 << (number as u64 - 1);
    }
    let (hidden_size, enc_dim, head_dim) =
        (size("dec_dim", 768)?, size("enc_dim", 896)?, size("dim_head", 64)?);
    if head_dim < 32 {
        return Err(keys.refuse("", "dim_head", head_dim, "at least 32, of which 32 are turned"));
    }
    let (context_len, chunk) = (size("max_seq_len", 2048)?, size("chunk_size", 64)?);
    let rope = RopeOptions {
        theta: 10_000.0,
        rotary_dim: 32,
        order: RopeOrder::Half,
        // Positions of passages may reach beyond those of a short text.
        context: context_len.max(chunk.saturating_mul(4)),
        scaling: RopeScaling::None,
    };
    Ok(ModelConfig {
        family: "retro",
        vocab_size: keys.size("", "num_tokens")?,
        hidden_size,
        n_layers,
        n_heads: 8,
        n_kv_heads: 8,
        head_dim,
        ffn_size: 4 * hidden_size,
        context_len,
        position_len: context_len,
        // Of the mean square, where retro-pytorch has its root.
        norm_eps: 1e-16,
        activation: Activation::Gelu,
        attention_scale: (head_dim as f32).powf(-0.5),
        rope: Some(rope),
        own: vec![
            ("enc", enc_dim as f64),
            ("enc_layers", size("enc_depth", 2)? as f64),
            ("chunk", chunk as f64),
            ("cross_layers", cross_layers as f64),
            ("projects", f64::from(u8::from(enc_dim != hidden_size))),
        ],
        ..ModelConfig::default()
    })
}

struct Retro {
    token_embd: Embedding,
    position_embd: Embedding,
    /// [D, enc], if the encoder is of another width.
    to_decoder: Option<Linear>,
    layers: Vec<Layer>,
    encoder: Encoder,
    output_norm: RmsNorm,
    output: Linear,
    /// m
    chunk_len: usize,
}

/// A layer of the decoder or of the encoder.
struct Layer {
    attn_norm: RmsNorm,
    attn: Attention,
    cross: Option<(RmsNorm, RotaryCross)>,
    ffn_norm: RmsNorm,
    ffn: FeedForward,
}

struct Encoder {
    layers: Vec<Layer>,
    output_norm: RmsNorm,
    /// [D, enc]
    output: Linear,
}

fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    let config = weights.config;
    let (token_embd, position_embd) = (weights.embedding("token_embd")?, weights.embedding("position_embd")?);
    let projects = config.own_switch("projects");
    let to_decoder = projects.then(|| weights.linear(&["embd_to_decoder"], 0)).transpose()?;
    let layers = (0..config.n_layers).map(|i| Layer::load(weights, "", i, reads(config, i)));
    let layers = layers.collect::<Result<_, LoadError>>()?;
    let n_encoder = config.own_size("enc_layers");
    let encoder = Encoder {
        layers: (0..n_encoder)
            .map(|i| Layer::load(weights, "enc.", i, true))
            .collect::<Result<_, LoadError>>()?,
        output_norm: weights.rms_norm("enc.output_norm", 0)?,
        output: weights.linear(&["enc.output"], 0)?,
    };
    let output_norm = weights.rms_norm("output_norm", 0)?;
    let output = weights.output(&token_embd)?;
    let chunk_len = config.own_size("chunk");
    Ok(Box::new(Retro {
        token_embd,
        position_embd,
        to_decoder,
        layers,
        encoder,
        output_norm,
        output,
        chunk_len,
    }))
}

impl Layer {
    /// `side`: `enc.` or nothing.
    fn load(weights: &mut Weights, side: &str, i: usize, has_cross: bool) -> Result<Layer, LoadError> {
        let ours = |part: &str| format!("{side}blk.{{i}}.{part}");
        let [q, k, v, output] = ["attn_q", "attn_k", "attn_v", "attn_output"].map(ours);
        let attn_norm = weights.rms_norm(&ours("attn_norm"), i)?;
        let attn = weights.attention(&[&q, &k, &v], &output, i)?;
        let cross = if has_cross {
            let [q, k, v, output] = ["cross_q", "cross_k", "cross_v", "cross_output"].map(ours);
            let norm = weights.rms_norm(&ours("cross_norm"), i)?;
            let attention = weights.cross_attention(&q, &[&k, &v], &output, i)?;
            let null = match side.is_empty() {
                true => Some((
                    weights.required_vector("blk.{i}.null_k", i, ".weight")?,
                    weights.required_vector("blk.{i}.null_v", i, ".weight")?,
                )),
                false => None,
            };
            let rope = attn.rope.clone().expect("the family has rotary positions");
            Some((norm, RotaryCross { attention, rope, null }))
        } else {
            None
        };
        let ffn = FeedForward {
            up: weights.linear(&[&ours("ffn_up")], i)?,
            down: weights.linear(&[&ours("ffn_down")], i)?,
            activation: weights.config.activation,
        };
        Ok(Layer { attn_norm, attn, cross, ffn_norm: weights.rms_norm(&ours("ffn_norm"), i)?, ffn })
    }
}

impl Encoder {
    /// What the passages are to a decoder whose rows are `x`. passages: [S, enc], x: [T, D] → [S, D]
    fn forward(
        &self,
        passages: Tensor,
        source: &SourceTokens,
        chunks: &Chunks,
        x: &Tensor,
        pass: &Pass,
    ) -> Tensor {
        let own = source.pass(pass.adapters.clone(), pass.training);
        let (seen, sequences) = chunks.seen_by_passages();
        let positions: Vec<usize> = (0..seen.len()).map(|i| i % chunks.len).collect();
        let rows = ops::rows::rows(x, &seen);
        let seen = Placed { rows: &rows, positions: &positions };
        let mut y = passages;
        for layer in &self.layers {
            y = layer.attn.forward(&layer.attn_norm.forward(&y), &own, None) + y;
            if let Some((norm, cross)) = &layer.cross {
                let queries = Placed { rows: &norm.forward(&y), positions: &own.of_row };
                y = cross.forward(&queries, Some(&seen), &sequences, &own) + y;
            }
            y = layer.ffn.forward(&layer.ffn_norm.forward(&y), &own) + y;
        }
        self.output.forward(&self.output_norm.forward(&y), &own)
    }
}

impl Network for Retro {
    fn blocks(&self, tokens: &[u32], pass: &Pass, mut cache: Option<&mut KvCache>) -> Tensor {
        let chunks = match &pass.source {
            Source::Tokens(source) => Some((Chunks::new(source, pass, self.chunk_len), source)),
            Source::None | Source::Rows { .. } | Source::Pages(_) => None,
        };
        assert!(chunks.is_none() || cache.is_none(), "neighbours are read without a cache");
        let positions: Vec<u32> = pass.of_row.iter().map(|&position| position as u32).collect();
        let embed = |tokens: &[u32], pass: &Pass| self.token_embd.forward(tokens, pass);
        let mut x = embed(tokens, pass) + self.position_embd.forward(&positions, pass); // [T, enc]
        if let Some(to_decoder) = &self.to_decoder {
            x = to_decoder.forward(&x, pass); // [T, D]
        }
        let mut encoded: Option<(Tensor, Vec<usize>)> = None;
        for (i, layer) in self.layers.iter().enumerate() {
            let pages = cache.as_mut().map(|cache| cache.layer(i));
            x = layer.attn.forward(&layer.attn_norm.forward(&x), pass, pages) + x;
            if let (Some((norm, cross)), Some((chunks, source))) = (&layer.cross, &chunks) {
                if encoded.is_none() && !source.tokens.is_empty() {
                    let passages = chunks.passages(&source.tokens);
                    let own = passages.pass(pass.adapters.clone(), pass.training);
                    let rows = embed(&passages.tokens, &own); // [S, enc]
                    let made = self.encoder.forward(rows, &passages, chunks, &x, pass); // [S, D]
                    encoded = Some((made, own.of_row.to_vec()));
                }
                let (rows, positions, sequences) = chunks.readers();
                if !rows.is_empty() {
                    let queries = ops::rows::rows(&norm.forward(&x), &rows);
                    let queries = Placed { rows: &queries, positions: &positions };
                    let seen = encoded.as_ref().map(|(rows, positions)| Placed { rows, positions });
                    let read = cross.forward(&queries, seen.as_ref(), &sequences, pass);
                    let nothing = Tensor::build([x.n_rows(), x.row_len()], |zeros| zeros.fill(0.0));
                    let pairs: Vec<(usize, usize)> = rows.into_iter().zip(0..).collect();
                    x = ops::rows::replace(nothing, 0, &pairs, &read) + x;
                }
            }
            x = layer.ffn.forward(&layer.ffn_norm.forward(&x), pass) + x;
        }
        x
    }

    fn before_output(&self, x: &Tensor, _pass: &Pass) -> Tensor {
        self.output_norm.forward(x)
    }

    fn output(&self) -> &Linear {
        &self.output
    }

    fn generates(&self) -> bool {
        false
    }
}
