//! Gemma 1 and 2: embeddings times √D, norms that store their weights less one, a feed-forward layer gated by GELU.
//!
//! Gemma 2 norms what each layer adds, caps scores and logits by a tanh, and lets every other layer see a window only.
//! Sources: Gemma, arXiv:2403.08295, §2; Gemma 2, arXiv:2408.00118, §2.

use rhetor_catalog::{About, Source};
use rhetor_kernels::activation::Activation;
use rhetor_kernels::rope::RopeOrder;

use super::llama_kin::{self, ATTENTION, ENDS, FEED_FORWARD, Kin};
use super::{BASE, Family, Licence, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;
use crate::names::{Stored, TensorName, name};

const KIN1: Kin = Kin {
    family: "gemma",
    order: RopeOrder::Half,
    activation: ("hidden_act", "gelu_pytorch_tanh"),
    head_dim: Some(256),
    tied: true,
    ..llama_kin::LLAMA
};
pub(super) const KIN2: Kin =
    Kin { family: "gemma2", activation: ("hidden_activation", "gelu_pytorch_tanh"), ..KIN1 };

pub const GEMMA: Family = Family {
    about: About {
        name: "gemma",
        summary: "Gemma and CodeGemma: scaled embeddings, wide heads, GELU gates",
        source: Source::Paper {
            title: "Gemma: Open Models Based on Gemini Research and Technology",
            id: "arXiv:2403.08295",
            section: "§2",
        },
        options: &[],
    },
    gguf: "gemma",
    model_type: "gemma",
    architectures: &[
        ("GemmaForCausalLM", Task::Vocabulary),
        ("GemmaForSequenceClassification", Task::Sequence),
        ("GemmaForTokenClassification", Task::Tokens),
    ],
    prefix: "model.",
    config: config1,
    keys: |config| KIN1.keys(config),
    tensors: &llama_kin::joined::<14>(&[ENDS, NORMS1, ATTENTION, FEED_FORWARD]),
    build: PreNormBlock::decoder,
    published: &[
        published("gemma-2b", 2_506_172_416, 8192, Licence::Restricted),
        published("gemma-7b", 8_537_680_896, 8192, Licence::Restricted),
    ],
    ..BASE
};

pub const GEMMA2: Family = Family {
    about: About {
        name: "gemma2",
        summary: "Gemma 2: norms around each layer, capped scores, a window in every other layer",
        source: Source::Paper {
            title: "Gemma 2: Improving Open Language Models at a Practical Size",
            id: "arXiv:2408.00118",
            section: "§2",
        },
        options: &[],
    },
    gguf: "gemma2",
    model_type: "gemma2",
    architectures: &[
        ("Gemma2ForCausalLM", Task::Vocabulary),
        ("Gemma2ForSequenceClassification", Task::Sequence),
        ("Gemma2ForTokenClassification", Task::Tokens),
    ],
    config: config2,
    keys: keys2,
    tensors: &llama_kin::joined::<16>(&[ENDS, NORMS2, ATTENTION, FEED_FORWARD]),
    published: &[
        published("gemma-2-2b", 2_614_341_888, 8192, Licence::Restricted),
        published("gemma-2-9b", 9_241_705_984, 8192, Licence::Restricted),
        published("gemma-2-27b", 27_227_128_320, 8192, Licence::Restricted),
    ],
    ..GEMMA
};

const NORMS1: &[TensorName] = &[
    norm("blk.{i}.attn_norm", "layers.{i}.input_layernorm"),
    norm("blk.{i}.ffn_norm", "layers.{i}.post_attention_layernorm"),
    norm("output_norm", "norm"),
];

/// Norms before and after each layer.
pub(super) const NORMS2: &[TensorName] = &[
    norm("blk.{i}.attn_norm", "layers.{i}.input_layernorm"),
    norm("blk.{i}.post_attention_norm", "layers.{i}.post_attention_layernorm"),
    norm("blk.{i}.ffn_norm", "layers.{i}.pre_feedforward_layernorm"),
    norm("blk.{i}.post_ffw_norm", "layers.{i}.post_feedforward_layernorm"),
    norm("output_norm", "norm"),
];

const fn norm(ours: &'static str, hugging_face: &'static str) -> TensorName {
    name(ours, hugging_face, "D").stored(Stored::MinusOne)
}

/// What all of Gemma have in common.
pub(super) fn common(keys: &Keys, kin: &Kin) -> Result<ModelConfig, LoadError> {
    llama_kin::refuse_biases(keys)?;
    if keys.switch_or("use_bidirectional_attention", false)? {
        return Err(keys.refuse("", "use_bidirectional_attention", true, "false"));
    }
    let config = kin.config(keys)?;
    Ok(ModelConfig { embedding_factor: (config.hidden_size as f32).sqrt(), ..config })
}

fn config1(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let config = common(keys, &KIN1)?;
    // The first files say `gelu` and mean its approximation: transformers 4.39 and later read it so.
    let activation = match config.activation {
        Activation::Gelu => Activation::GeluTanh,
        other => other,
    };
    Ok(ModelConfig { activation, ..config })
}

fn config2(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let config = common(keys, &KIN2)?;
    let window = keys.window_opt()?.or(Some(4096));
    let layer_windows = llama_kin::layer_windows(keys, config.n_layers, window, |i| i % 2 == 0)?;
    Ok(ModelConfig {
        layer_windows,
        attention_scale: attention_scale(keys, &config, 46)?,
        score_cap: keys.cap_or("attn_logit_softcapping", Some(50.0))?,
        logit_cap: keys.cap_or("final_logit_softcapping", Some(30.0))?,
        ..config
    })
}

/// The factor of the scores. GGUF leaves it to the architecture: 1/√d, but in the largest model 1/√(D/H).
pub(super) fn attention_scale(
    keys: &Keys,
    config: &ModelConfig,
    n_layers_largest: usize,
) -> Result<f32, LoadError> {
    let usual = match keys.speaks_gguf() {
        true if config.n_layers == n_layers_largest => config.hidden_size / config.n_heads,
        true => config.head_dim,
        false => 256,
    };
    let scalar = keys.number_opt("", "query_pre_attn_scalar")?.unwrap_or(usual as f32);
    if scalar.is_nan() || scalar <= 0.0 {
        return Err(keys.refuse("", "query_pre_attn_scalar", scalar, "a positive number"));
    }
    Ok(scalar.powf(-0.5))
}

/// What Gemma 2 and 3 write besides what all the kin write.
pub(super) fn keys_of(kin: &Kin, config: &ModelConfig) -> Vec<Key> {
    let mut keys = kin.keys(config);
    let scalar = config.attention_scale.powi(-2).round() as u32;
    keys.push(Key::new("", "query_pre_attn_scalar", scalar));
    let window = config.layer_windows.iter().find_map(|window| *window);
    keys.extend(window.map(|window| Key::size("attention.sliding_window", "sliding_window", window)));
    let caps = [("attn_logit_softcapping", config.score_cap), ("final_logit_softcapping", config.logit_cap)];
    keys.extend(caps.into_iter().filter_map(|(name, cap)| Some(Key::new(name, name, cap?))));
    keys
}

fn keys2(config: &ModelConfig) -> Vec<Key> {
    keys_of(&KIN2, config)
}
