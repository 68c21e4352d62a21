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
    /// Base of the rotary positions where the file gives none.
    pub theta: f32,
    /// The part of each head that turns where the file gives none.
    pub rotary: f32,
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

/// More layers than any model has: each costs memory before its tensors are looked for.
pub(super) const LAYERS_MAX: usize = 1 << 16;

pub(super) const LLAMA: Kin = Kin {
    family: "llama",
    order: RopeOrder::Interleaved,
    theta: 10_000.0,
    rotary: 1.0,
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
        let n_layers = keys.size("block_count", "num_hidden_layers")?;
        if n_layers > LAYERS_MAX {
            let expected = format!("at most {LAYERS_MAX}");
            return Err(keys.refuse("block_count", "num_hidden_layers", n_layers, &expected));
        }
        let kv_heads = layer_kv_heads(keys, "num_key_value_heads", n_layers, n_heads)?;
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
            rope: Some(keys.partial_rope(head_dim, self.order, self.theta, self.rotary)?),
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
        if let Some(rope) = config.rope.as_ref().filter(|rope| rope.rotary_dim < config.head_dim) {
            let factor = rope.rotary_dim as f32 / config.head_dim as f32;
            keys.push(Key::new("", "partial_rotary_factor", factor));
        }
        keys.extend(
            config.window.map(|window| Key::size("attention.sliding_window", "sliding_window", window)),
        );
        keys
    }
}

/// The window of each layer: of the layers that the file calls local, or else of those that `is_local` says; empty if all
/// layers see everything. `[L]`
pub(super) fn layer_windows(
    keys: &Keys,
    n_layers: usize,
    window: Option<usize>,
    is_local: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>, LoadError> {
    let is_local: Vec<bool> = match keys.words_opt("layer_types")? {
        None => (0..n_layers).map(is_local).collect(),
        Some(kinds) => {
            let is_known = |kind: &String| kind == "sliding_attention" || kind == "full_attention";
            if kinds.len() != n_layers || !kinds.iter().all(is_known) {
                let expected = format!("{n_layers} of sliding_attention and full_attention");
                return Err(keys.refuse("", "layer_types", kinds.join(", "), &expected));
            }
            kinds.iter().map(|kind| kind == "sliding_attention").collect()
        }
    };
    let windows = is_local.into_iter().map(|is_local| window.filter(|_| is_local));
    let windows: Vec<Option<usize>> = windows.collect();
    Ok(if windows.iter().any(Option::is_some) { windows } else { Vec::new() })
}

/// K of each layer, which the file gives under `hugging_face`. `[L]`
pub(super) fn layer_kv_heads(
    keys: &Keys,
    hugging_face: &str,
    n_layers: usize,
    default: usize,
) -> Result<Vec<usize>, LoadError> {
    let heads = keys.sizes_or("attention.head_count_kv", hugging_face, default)?;
    if heads.len() > 1 && heads.len() != n_layers {
        let (got, expected) = (format!("{} numbers", heads.len()), format!("{n_layers}, one for each layer"));
        return Err(keys.refuse("attention.head_count_kv", hugging_face, got, &expected));
    }
    Ok(heads)
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

/// Layer norms before attention, before the feed-forward layer, and after the last block.
pub(super) const LAYER_NORMS: [TensorName; 3] = [
    name("blk.{i}.attn_norm", "layers.{i}.input_layernorm", "D").biased(),
    name("blk.{i}.ffn_norm", "layers.{i}.post_attention_layernorm", "D").biased(),
    name("output_norm", "norm", "D").biased(),
];

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
