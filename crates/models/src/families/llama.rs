//! LLaMA: decoder; root-mean-square norms before each sublayer, rotary positions, gated feed-forward (SwiGLU), no biases.
//!
//! One architecture, many checkpoints: LLaMA 1, 2 and 3, OpenLLaMA, TinyLlama, SmolLM2, Vicuna, Code Llama, SOLAR, Orca 2.
//! Source: LLaMA, arXiv:2302.13971, §2.2; grouped-query attention from LLaMA 2, arXiv:2307.09288, §2.2.

use rhetor_catalog::{About, Source};
use rhetor_kernels::kv::KvPages;
use rhetor_kernels::rope::RopeOrder;
use rhetor_tensor::Tensor;
use std::sync::Arc;

use super::{BASE, Family};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::{Attention, Block, Decoder, GatedFeedForward, Norm, Pass, RmsNorm};
use crate::load::{LoadError, Weights};
use crate::model::Network;
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
    build,
    ..BASE
};

pub(super) const TENSORS: &[TensorName] = &[
    name("token_embd", "embed_tokens", "V D"),
    name("rope_freqs", "rope_freqs", "r/2"),
    name("blk.{i}.attn_norm", "layers.{i}.input_layernorm", "D"),
    name("blk.{i}.attn_q", "layers.{i}.self_attn.q_proj", "H*d D").stored(Stored::HeadRows),
    name("blk.{i}.attn_k", "layers.{i}.self_attn.k_proj", "K*d D").stored(Stored::HeadRows),
    name("blk.{i}.attn_v", "layers.{i}.self_attn.v_proj", "K*d D"),
    name("blk.{i}.attn_output", "layers.{i}.self_attn.o_proj", "D H*d"),
    name("blk.{i}.ffn_norm", "layers.{i}.post_attention_layernorm", "D"),
    name("blk.{i}.ffn_gate", "layers.{i}.mlp.gate_proj", "F D"),
    name("blk.{i}.ffn_up", "layers.{i}.mlp.up_proj", "F D"),
    name("blk.{i}.ffn_down", "layers.{i}.mlp.down_proj", "D F"),
    name("output_norm", "norm", "D"),
    name("output", "lm_head", "V D").head(&[Task::Vocabulary]),
    name("cls.output", "score", "C D").head(&[Task::Sequence]),
    name("cls.output", "score", "C D").biased().head(&[Task::Tokens]),
];

pub(super) fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let hidden_size = keys.size("embedding_length", "hidden_size")?;
    let n_heads = keys.size("attention.head_count", "num_attention_heads")?;
    let head_dim = keys.size_or("attention.key_length", "head_dim", (hidden_size / n_heads).max(1))?;
    let value_dim = keys.size_or("attention.value_length", "head_dim", head_dim)?;
    if value_dim != head_dim {
        let expected = format!("{head_dim}, the width of a key");
        return Err(keys.refuse("attention.value_length", "head_dim", value_dim, &expected));
    }
    Ok(ModelConfig {
        family: "llama",
        vocab_size: keys.vocab_size()?,
        hidden_size,
        n_layers: keys.size("block_count", "num_hidden_layers")?,
        n_heads,
        n_kv_heads: keys.size_or("attention.head_count_kv", "num_key_value_heads", n_heads)?,
        head_dim,
        ffn_size: keys.size("feed_forward_length", "intermediate_size")?,
        context_len: keys.size("context_length", "max_position_embeddings")?,
        norm_eps: keys.number_or("attention.layer_norm_rms_epsilon", "rms_norm_eps", 1e-6)?,
        activation: keys.activation("hidden_act", "silu")?,
        attention_scale: (head_dim as f32).powf(-0.5),
        rope: Some(keys.rope(head_dim, RopeOrder::Interleaved, 10_000.0)?),
        tied: keys.switch_or("tie_word_embeddings", false)?,
        ..ModelConfig::default()
    })
}

pub(super) fn keys(config: &ModelConfig) -> Vec<Key> {
    let mut keys = vec![
        Key::size("vocab_size", "vocab_size", config.vocab_size),
        Key::size("embedding_length", "hidden_size", config.hidden_size),
        Key::size("block_count", "num_hidden_layers", config.n_layers),
        Key::size("feed_forward_length", "intermediate_size", config.ffn_size),
        Key::size("attention.head_count", "num_attention_heads", config.n_heads),
        Key::size("attention.head_count_kv", "num_key_value_heads", config.n_kv_heads),
        Key::size("attention.key_length", "head_dim", config.head_dim),
        Key::size("attention.value_length", "", config.head_dim),
        Key::size("context_length", "max_position_embeddings", config.context_len),
        Key::new("attention.layer_norm_rms_epsilon", "rms_norm_eps", config.norm_eps),
        Key::new("", "hidden_act", "silu"),
    ];
    keys.extend(config.window.map(|window| Key::size("attention.sliding_window", "sliding_window", window)));
    keys
}

struct LlamaBlock {
    attn_norm: RmsNorm,
    attn: Attention,
    ffn_norm: RmsNorm,
    ffn: GatedFeedForward,
}

pub(super) fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    let token_embd = weights.embedding("token_embd")?;
    let blocks = (0..weights.config.n_layers)
        .map(|i| {
            let block = LlamaBlock {
                attn_norm: weights.rms_norm("blk.{i}.attn_norm", i)?,
                attn: weights.attention(
                    &["blk.{i}.attn_q", "blk.{i}.attn_k", "blk.{i}.attn_v"],
                    "blk.{i}.attn_output",
                    i,
                )?,
                ffn_norm: weights.rms_norm("blk.{i}.ffn_norm", i)?,
                ffn: GatedFeedForward {
                    gate_up: weights.linear(&["blk.{i}.ffn_gate", "blk.{i}.ffn_up"], i)?,
                    down: weights.linear(&["blk.{i}.ffn_down"], i)?,
                    activation: weights.config.activation,
                },
            };
            Ok(Arc::new(block) as Arc<dyn Block>)
        })
        .collect::<Result<_, LoadError>>()?;
    let output_norm = Norm::Rms(weights.rms_norm("output_norm", 0)?);
    let output = weights.output(&token_embd)?;
    Ok(Box::new(Decoder { token_embd, position_embd: None, blocks, output_norm, output }))
}

impl Block for LlamaBlock {
    fn forward(&self, x: Tensor, pass: &Pass, cache: Option<&mut KvPages>) -> Tensor {
        let x = self.attn.forward(&self.attn_norm.forward(&x), pass, cache) + x;
        self.ffn.forward(&self.ffn_norm.forward(&x), pass) + x
    }
}
