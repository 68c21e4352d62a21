//! Q-Former: learned queries that look at the rows of a vision tower, every second layer across.
//!
//! It is a BERT whose words are gone: a part of BLIP-2 and of MiniGPT-4, never a model by itself.
//! Source: BLIP-2, arXiv:2301.12597, section 3.1.

use rhetor_catalog::{About, Source as Origin};
use rhetor_tensor::Tensor;
use std::borrow::Cow;

use super::{BASE, Family};
use crate::config::{Keys, ModelConfig};
use crate::layers::{
    Active, Attention, CrossAttention, Embedding, FeedForward, LayerNorm, Pass, Source, Training,
};
use crate::load::{LoadError, Weights};
use crate::names::{TensorName, name};

pub const QFORMER: Family = Family {
    about: About {
        name: "qformer",
        summary: "queries that read what a vision tower has seen",
        source: Origin::Paper {
            title: "BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language Models",
            id: "arXiv:2301.12597",
            section: "§3.1",
        },
        options: &[],
    },
    model_type: "blip_2_qformer",
    prefix: "qformer.",
    config,
    tensors: TENSORS,
    other_names: names_of_minigpt4,
    ..BASE
};

/// What MiniGPT-4 calls a tensor of transformers' Q-Former.
fn names_of_minigpt4(name: &str) -> Vec<String> {
    let name = name.strip_prefix("qformer.").unwrap_or(name);
    let name = match name.strip_prefix("layernorm") {
        Some(suffix) => format!("embeddings.LayerNorm{suffix}"),
        None => name.replace("attention.attention.", "attention.self."),
    };
    vec![format!("Qformer.bert.{name}")]
}

const TENSORS: &[TensorName] = &[
    name("qf.query", "query_tokens|", "Q D").folded().outside(),
    name("qf.norm", "layernorm", "D").biased(),
    name("qf.blk.{i}.attn_q", "encoder.layer.{i}.attention.attention.query", "D D").biased(),
    name("qf.blk.{i}.attn_k", "encoder.layer.{i}.attention.attention.key", "D D").biased(),
    name("qf.blk.{i}.attn_v", "encoder.layer.{i}.attention.attention.value", "D D").biased(),
    name("qf.blk.{i}.attn_output", "encoder.layer.{i}.attention.output.dense", "D D").biased(),
    name("qf.blk.{i}.attn_norm", "encoder.layer.{i}.attention.output.LayerNorm", "D").biased(),
    name("qf.blk.{i}.cross_q", "encoder.layer.{i}.crossattention.attention.query", "D D")
        .biased()
        .in_layers(looks),
    name("qf.blk.{i}.cross_k", "encoder.layer.{i}.crossattention.attention.key", "D X")
        .biased()
        .in_layers(looks),
    name("qf.blk.{i}.cross_v", "encoder.layer.{i}.crossattention.attention.value", "D X")
        .biased()
        .in_layers(looks),
    name("qf.blk.{i}.cross_output", "encoder.layer.{i}.crossattention.output.dense", "D D")
        .biased()
        .in_layers(looks),
    name("qf.blk.{i}.cross_norm", "encoder.layer.{i}.crossattention.output.LayerNorm", "D")
        .biased()
        .in_layers(looks),
    name("qf.blk.{i}.ffn_up", "encoder.layer.{i}.intermediate_query.dense", "F D").biased(),
    name("qf.blk.{i}.ffn_down", "encoder.layer.{i}.output_query.dense", "D F").biased(),
    name("qf.blk.{i}.ffn_norm", "encoder.layer.{i}.output_query.LayerNorm", "D").biased(),
];

/// Whether layer `i` looks at the source.
fn looks(config: &ModelConfig, i: usize) -> bool {
    i % config.own_size("every").max(1) == 0
}

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let hidden_size = keys.size("", "hidden_size")?;
    let n_heads = keys.size("", "num_attention_heads")?;
    if hidden_size % n_heads != 0 {
        let expected = format!("a divisor of the width {hidden_size}");
        return Err(keys.refuse("", "num_attention_heads", n_heads, &expected));
    }
    if keys.switch_or("use_qformer_text_input", false)? {
        return Err(keys.refuse("", "use_qformer_text_input", true, "false"));
    }
    let n_queries = keys.size_or("", "num_query_tokens", 32)?;
    let head_dim = hidden_size / n_heads;
    let size = |key, default| Ok::<_, LoadError>(keys.size_or("", key, default)? as f64);
    Ok(ModelConfig {
        family: "qformer",
        hidden_size,
        n_layers: keys.size("", "num_hidden_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        ffn_size: keys.size("", "intermediate_size")?,
        context_len: n_queries,
        norm_eps: keys.number_or("", "layer_norm_eps", 1e-12)?,
        activation: keys.activation("hidden_act", "gelu")?,
        attention_scale: (head_dim as f32).powf(-0.5),
        is_encoder: true,
        own: vec![
            ("Q", n_queries as f64),
            ("X", size("encoder_hidden_size", 1408)?),
            ("every", size("cross_attention_frequency", 2)?),
        ],
        ..ModelConfig::default()
    })
}

/// Queries that read the rows of a vision tower.
pub(super) struct QFormer {
    queries: Embedding,
    norm: LayerNorm,
    blocks: Vec<QFormerBlock>,
}

struct QFormerBlock {
    attn: Attention,
    attn_norm: LayerNorm,
    cross: Option<(CrossAttention, LayerNorm)>,
    ffn: FeedForward,
    ffn_norm: LayerNorm,
}

/// Loads a Q-Former.
pub(super) fn qformer(weights: &mut Weights) -> Result<QFormer, LoadError> {
    let block = |weights: &mut Weights, i: usize| {
        let qkv = ["qf.blk.{i}.attn_q", "qf.blk.{i}.attn_k", "qf.blk.{i}.attn_v"];
        let cross_kv = ["qf.blk.{i}.cross_k", "qf.blk.{i}.cross_v"];
        let cross = match looks(weights.config, i) {
            true => Some((
                weights.cross_attention("qf.blk.{i}.cross_q", &cross_kv, "qf.blk.{i}.cross_output", i)?,
                weights.layer_norm("qf.blk.{i}.cross_norm", i)?,
            )),
            false => None,
        };
        Ok(QFormerBlock {
            attn: weights.attention(&qkv, "qf.blk.{i}.attn_output", i)?,
            attn_norm: weights.layer_norm("qf.blk.{i}.attn_norm", i)?,
            cross,
            ffn: FeedForward {
                up: weights.linear(&["qf.blk.{i}.ffn_up"], i)?,
                down: weights.linear(&["qf.blk.{i}.ffn_down"], i)?,
                activation: weights.config.activation,
            },
            ffn_norm: weights.layer_norm("qf.blk.{i}.ffn_norm", i)?,
        })
    };
    Ok(QFormer {
        queries: weights.embedding("qf.query")?,
        norm: weights.layer_norm("qf.norm", 0)?,
        blocks: (0..weights.config.n_layers).map(|i| block(weights, i)).collect::<Result<_, LoadError>>()?,
    })
}

impl QFormer {
    /// What the queries find in `n` pictures. seen: [n·P, X] → [n·Q, D]
    pub fn forward(&self, seen: Tensor, n: usize, training: Option<Training>) -> Tensor {
        let n_queries = self.queries.weight.n_out();
        let lens = vec![seen.n_rows() / n.max(1); n];
        let mut pass = Pass::full(vec![n_queries; n], Active::All, training);
        pass.source = Source::Rows { rows: seen, lens: Cow::Owned(lens) };
        let ids: Vec<u32> = (0..n).flat_map(|_| 0..n_queries as u32).collect();
        let mut x = self.norm.forward(&self.queries.forward(&ids, &pass)); // [n·Q, D]
        for block in &self.blocks {
            x = block.attn_norm.forward(&(block.attn.forward(&x, &pass, None) + x));
            if let Some((cross, norm)) = &block.cross {
                x = norm.forward(&(cross.forward(&x, &pass, None) + x));
            }
            x = block.ffn_norm.forward(&(block.ffn.forward(&x, &pass) + x));
        }
        x
    }
}
