//! What LLaMA shares with those who followed it: the keys of their files, and rows of their tables.

use rhetor_kernels::rope::RopeOrder;
use rhetor_tensor::ops::head_norm::NormKind;

use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::load::LoadError;
use crate::names::{TensorName, name};

/// Where a family's keys are not LLaMA's: `Kin { family: ..., ..LLAMA }`.
pub(super) struct Kin {
    pub family: &'static str,
    /// How GGUF files of the family pair rotary dimensions.
    pub order: RopeOrder,
    pub norm_kind: NormKind,
    /// ε where the file gives none.
    pub norm_eps: f32,
    /// Hugging Face's key of the non-linearity, and the one that is meant where it is absent.
    pub activation: (&'static str, &'static str),
    /// d where the file does not give it; `None` = D / H.
    pub head_dim: Option<usize>,
    /// Whether models are tied where the file says nothing.
    pub tied: bool,
}

pub(super) const LLAMA: Kin = Kin {
    family: "llama",
    order: RopeOrder::Interleaved,
    norm_kind: NormKind::Rms,
    norm_eps: 1e-6,
    activation: ("hidden_act", "silu"),
    head_dim: None,
    tied: false,
};

impl Kin {
    /// GGUF's key of ε, and Hugging Face's.
    fn eps_keys(&self) -> (&'static str, &'static str) {
        match self.norm_kind {
            NormKind::Rms => ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
            NormKind::Layer => ("attention.layer_norm_epsilon", "layer_norm_eps"),
        }
    }

    /// The keys that all of the kin have.
    pub fn config(&self, keys: &Keys) -> Result<ModelConfig, LoadError> {
        let hidden_size = keys.size("embedding_length", "hidden_size")?;
        let n_heads = keys.size("attention.head_count", "num_attention_heads")?;
        let head_dim =
            self.head_dim.filter(|_| !keys.speaks_gguf()).unwrap_or((hidden_size / n_heads).max(1));
        let head_dim = keys.size_or("attention.key_length", "head_dim", head_dim)?;
        let value_dim = keys.size_or("attention.value_length", "head_dim", head_dim)?;
        if value_dim != head_dim {
            let expected = format!("{head_dim}, the width of a key");
            return Err(keys.refuse("attention.value_length", "head_dim", value_dim, &expected));
        }
        let (gguf_eps, hugging_face_eps) = self.eps_keys();
        let kv_heads = keys.sizes_or("attention.head_count_kv", "num_key_value_heads", n_heads)?;
        let n_layers = keys.size("block_count", "num_hidden_layers")?;
        if kv_heads.len() > 1 && kv_heads.len() != n_layers {
            let (got, expected) =
                (format!("{} numbers", kv_heads.len()), format!("{n_layers}, one for each layer"));
            return Err(keys.refuse("attention.head_count_kv", "num_key_value_heads", got, &expected));
        }
        let n_kv_heads = kv_heads.iter().copied().max().unwrap_or(n_heads);
        Ok(ModelConfig {
            family: self.family,
            vocab_size: keys.vocab_size()?,
            hidden_size,
            n_layers,
            n_heads,
            n_kv_heads,
            layer_kv_heads: if kv_heads.len() > 1 { kv_heads } else { Vec::new() },
            head_dim,
            ffn_size: keys.size("feed_forward_length", "intermediate_size")?,
            context_len: keys.size("context_length", "max_position_embeddings")?,
            norm_kind: self.norm_kind,
            norm_eps: keys.number_or(gguf_eps, hugging_face_eps, self.norm_eps)?,
            activation: keys.activation(self.activation.0, self.activation.1)?,
            attention_scale: (head_dim as f32).powf(-0.5),
            rope: Some(keys.rope(head_dim, self.order, 10_000.0)?),
            tied: keys.switch_or("tie_word_embeddings", self.tied)?,
            ..ModelConfig::default()
        })
    }

    /// What [`config`](Kin::config) reads, to be written.
    pub fn keys(&self, config: &ModelConfig) -> Vec<Key> {
        let (gguf_eps, hugging_face_eps) = self.eps_keys();
        let mut keys = vec![
            Key::size("vocab_size", "vocab_size", config.vocab_size),
            Key::size("embedding_length", "hidden_size", config.hidden_size),
            Key::size("block_count", "num_hidden_layers", config.n_layers),
            Key::size("feed_forward_length", "intermediate_size", config.ffn_size),
            Key::size("attention.head_count", "num_attention_heads", config.n_heads),
            Key::size("attention.key_length", "head_dim", config.head_dim),
            Key::size("attention.value_length", "", config.head_dim),
            Key::size("context_length", "max_position_embeddings", config.context_len),
            Key::new(gguf_eps, hugging_face_eps, config.norm_eps),
            Key::new("", self.activation.0, self.activation.1),
        ];
        if config.layer_kv_heads.is_empty() {
            keys.push(Key::size("attention.head_count_kv", "num_key_value_heads", config.n_kv_heads));
        }
        keys.extend(
            config.window.map(|window| Key::size("attention.sliding_window", "sliding_window", window)),
        );
        keys
    }
}

/// Refuses biases of attention, which Hugging Face's classes allow and no checkpoint of the family has.
pub(super) fn refuse_biases(keys: &Keys) -> Result<(), LoadError> {
    match keys.switch_or("attention_bias", false)? {
        true => Err(keys.refuse("", "attention_bias", true, "false")),
        false => Ok(()),
    }
}

/// Queries, keys, values and what follows them, without biases, rows in one order in all files.
pub(super) const ATTENTION: &[TensorName] = &[
    name("blk.{i}.attn_q", "layers.{i}.self_attn.q_proj", "H*d D"),
    name("blk.{i}.attn_k", "layers.{i}.self_attn.k_proj", "K*d D"),
    name("blk.{i}.attn_v", "layers.{i}.self_attn.v_proj", "K*d D"),
    ATTENTION_OUTPUT,
];

pub(super) const ATTENTION_OUTPUT: TensorName =
    name("blk.{i}.attn_output", "layers.{i}.self_attn.o_proj", "D H*d");

/// The gated feed-forward layer.
pub(super) const FEED_FORWARD: &[TensorName] = &[
    name("blk.{i}.ffn_gate", "layers.{i}.mlp.gate_proj", "F D"),
    name("blk.{i}.ffn_up", "layers.{i}.mlp.up_proj", "F D"),
    name("blk.{i}.ffn_down", "layers.{i}.mlp.down_proj", "D F"),
];

/// The table of embeddings, and the heads.
pub(super) const ENDS: &[TensorName] = &[
    name("token_embd", "embed_tokens", "V D"),
    name("output", "lm_head", "V D").head(&[Task::Vocabulary]),
    name("cls.output", "score", "C D").head(&[Task::Sequence]),
    name("cls.output", "score", "C D").biased().head(&[Task::Tokens]),
];

/// The rows of several parts of a table.
pub(super) const fn joined<const N: usize>(parts: &[&[TensorName]]) -> [TensorName; N] {
    let mut rows = [ATTENTION_OUTPUT; N];
    let (mut n, mut part) = (0, 0);
    while part < parts.len() {
        let mut i = 0;
        while i < parts[part].len() {
            rows[n] = parts[part][i];
            (n, i) = (n + 1, i + 1);
        }
        part += 1;
    }
    assert!(n == N, "as many rows as the parts have");
    rows
}
