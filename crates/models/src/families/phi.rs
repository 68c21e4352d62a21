//! Phi-1, 1.5 and 2: decoder; attention and feed-forward layer side by side after one layer norm, rotary positions over a
//! part of each head, biases everywhere, in the output layer too.
//!
//! Source: Textbooks Are All You Need II: phi-1.5 technical report, arXiv:2309.05463, §2.1, and the published code.

use rhetor_catalog::{About, Source};
use rhetor_kernels::rope::RopeOrder;

use super::{BASE, Family, Licence, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;
use crate::names::{TensorName, name};

pub const PHI: Family = Family {
    about: About {
        name: "phi",
        summary: "Phi-1, Phi-1.5 and Phi-2",
        source: Source::Paper {
            title: "Textbooks Are All You Need II: phi-1.5 technical report",
            id: "arXiv:2309.05463",
            section: "§2.1",
        },
        options: &[],
    },
    gguf: "phi2",
    model_type: "phi",
    architectures: &[
        ("PhiForCausalLM", Task::Vocabulary),
        ("PhiForSequenceClassification", Task::Sequence),
        ("PhiForTokenClassification", Task::Tokens),
    ],
    prefix: "model.",
    config,
    keys,
    tensors: TENSORS,
    build: PreNormBlock::decoder,
    published: &[
        published("phi-1", 1_418_270_720, 2048, Licence::Open),
        published("phi-1.5", 1_418_270_720, 2048, Licence::Open),
        published("phi-2", 2_779_683_840, 2048, Licence::Open),
    ],
    ..BASE
};

const TENSORS: &[TensorName] = &[
    name("token_embd", "embed_tokens", "V D"),
    name("blk.{i}.attn_norm", "layers.{i}.input_layernorm", "D").biased(),
    name("blk.{i}.attn_q", "layers.{i}.self_attn.q_proj", "D D").biased(),
    name("blk.{i}.attn_k", "layers.{i}.self_attn.k_proj", "K*d D").biased(),
    name("blk.{i}.attn_v", "layers.{i}.self_attn.v_proj", "K*d D").biased(),
    name("blk.{i}.attn_output", "layers.{i}.self_attn.dense", "D D").biased().residual(),
    name("blk.{i}.ffn_up", "layers.{i}.mlp.fc1", "F D").biased(),
    name("blk.{i}.ffn_down", "layers.{i}.mlp.fc2", "D F").biased().residual(),
    name("output_norm", "final_layernorm", "D").biased(),
    name("output", "lm_head", "V D").biased().head(&[Task::Vocabulary]),
    name("cls.output", "score", "C D").head(&[Task::Sequence]),
    name("cls.output", "score", "C D").biased().head(&[Task::Tokens]),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let hidden_size = keys.size("embedding_length", "hidden_size")?;
    let n_heads = keys.size("attention.head_count", "num_attention_heads")?;
    let head_dim = keys.head_dim(hidden_size, n_heads, "attention.head_count", "num_attention_heads")?;
    if keys.switch_or("qk_layernorm", false)? {
        return Err(keys.refuse("", "qk_layernorm", true, "false: no published Phi has norms on its heads"));
    }
    if keys.switch_or("tie_word_embeddings", false)? {
        let expected = "false: the output layer has a bias of its own";
        return Err(keys.refuse("", "tie_word_embeddings", true, expected));
    }
    Ok(ModelConfig {
        family: "phi",
        vocab_size: keys.vocab_size()?,
        hidden_size,
        n_layers: keys.size("block_count", "num_hidden_layers")?,
        n_heads,
        n_kv_heads: keys.size_or("attention.head_count_kv", "num_key_value_heads", n_heads)?,
        head_dim,
        ffn_size: keys.size("feed_forward_length", "intermediate_size")?,
        context_len: keys.size("context_length", "max_position_embeddings")?,
        norm_eps: keys.number_or("attention.layer_norm_epsilon", "layer_norm_eps", 1e-5)?,
        activation: keys.activation("hidden_act", "gelu_new")?,
        attention_scale: (head_dim as f32).powf(-0.5),
        rope: Some(keys.partial_rope(head_dim, RopeOrder::Half, 10_000.0, 0.5)?),
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
        Key::size("attention.head_count_kv", "num_key_value_heads", config.n_kv_heads),
        Key::size("context_length", "max_position_embeddings", config.context_len),
        Key::new("attention.layer_norm_epsilon", "layer_norm_eps", config.norm_eps),
        Key::new("", "partial_rotary_factor", rope.rotary_dim as f32 / config.head_dim as f32),
        Key::new("", "hidden_act", "gelu_new"),
    ]
}
