//! Attention without feed-forward layers: the smallest decoder in which heads work together, to be looked into.
//!
//! An RMS norm before each attention, rotary positions, no biases. Two layers of it learn induction heads within minutes.
//! Source: A Mathematical Framework for Transformer Circuits (Elhage et al., 2021), whose models had learned positions.

use rhetor_catalog::{About, Source};
use rhetor_kernels::kv::KvPages;
use rhetor_kernels::rope::RopeOrder;
use rhetor_tensor::Tensor;
use rhetor_tensor::ops::head_norm::NormKind;

use super::{BASE, Family};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::{Attention, Block, Decoder, Pass, RmsNorm};
use crate::load::{LoadError, Weights};
use crate::model::Network;
use crate::names::name;

pub const ATTENTION_ONLY: Family = Family {
    about: About {
        name: "attention-only",
        summary: "a decoder of attention alone, small enough to be understood: trained here, not published",
        source: Source::Paper {
            title: "A Mathematical Framework for Transformer Circuits",
            id: "Transformer Circuits Thread 2021",
            section: "Two-layer attention-only transformers",
        },
        options: &[],
    },
    model_type: "attention_only",
    architectures: &[("AttentionOnlyForCausalLM", Task::Vocabulary)],
    prefix: "model.",
    config,
    keys,
    tensors: &[
        name("token_embd", "embed_tokens", "V D"),
        name("blk.{i}.attn_norm", "layers.{i}.input_layernorm", "D"),
        name("blk.{i}.attn_qkv", "layers.{i}.self_attn.qkv_proj", "3*D D"),
        name("blk.{i}.attn_output", "layers.{i}.self_attn.o_proj", "D D").residual(),
        name("output_norm", "norm", "D"),
        name("output", "lm_head", "V D").head(&[Task::Vocabulary]),
    ],
    build,
    ..BASE
};

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let (hidden_size, n_heads) = (keys.size("", "hidden_size")?, keys.size("", "num_attention_heads")?);
    if hidden_size % n_heads != 0 {
        let expected = format!("a divisor of the width {hidden_size}");
        return Err(keys.refuse("", "num_attention_heads", n_heads, &expected));
    }
    let head_dim = hidden_size / n_heads;
    Ok(ModelConfig {
        family: ATTENTION_ONLY.about.name,
        vocab_size: keys.vocab_size()?,
        hidden_size,
        n_layers: keys.size("", "num_hidden_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        context_len: keys.size("", "max_position_embeddings")?,
        norm_kind: NormKind::Rms,
        norm_eps: keys.number_or("", "rms_norm_eps", 1e-6)?,
        attention_scale: (head_dim as f32).powf(-0.5),
        rope: Some(keys.rope(head_dim, RopeOrder::Half, 10_000.0)?),
        tied: keys.switch_or("tie_word_embeddings", false)?,
        ..ModelConfig::default()
    })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    let size = |name, value| Key::size("", name, value);
    vec![
        size("vocab_size", config.vocab_size),
        size("hidden_size", config.hidden_size),
        size("num_hidden_layers", config.n_layers),
        size("num_attention_heads", config.n_heads),
        size("max_position_embeddings", config.context_len),
        Key::new("", "rms_norm_eps", config.norm_eps),
    ]
}

struct AttentionBlock {
    norm: RmsNorm,
    attention: Attention,
}

fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    Decoder::load(weights, |weights, i| {
        let norm = weights.rms_norm("blk.{i}.attn_norm", i)?;
        let attention = weights.attention(&["blk.{i}.attn_qkv"], "blk.{i}.attn_output", i)?;
        Ok(AttentionBlock { norm, attention })
    })
}

impl Block for AttentionBlock {
    fn forward(&self, x: Tensor, pass: &Pass, cache: Option<&mut KvPages>) -> Tensor {
        self.attention.forward(&self.norm.forward(&x), pass, cache) + x
    }
}
