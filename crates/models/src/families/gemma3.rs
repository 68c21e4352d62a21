//! Gemma 3, the text model: of six layers five see a window and have rotary positions of their own; heads are normed.
//!
//! Source: Gemma 3 Technical Report, arXiv:2503.19786, §2. The models that see pictures too hold this one inside; their
//! files are not read.

use rhetor_catalog::{About, Source};
use rhetor_kernels::rope::{RopeOptions, RopeScaling};

use super::gemma::{self, GEMMA2, NORMS2};
use super::llama_kin::{self, ATTENTION, ENDS, FEED_FORWARD, Kin};
use super::{Family, Licence, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::load::LoadError;
use crate::names::{Stored, TensorName, name};

const KIN: Kin = Kin { family: "gemma3", theta: 1_000_000.0, ..gemma::KIN2 };

pub const GEMMA3: Family = Family {
    about: About {
        name: "gemma3",
        summary: "Gemma 3, text: five local layers to one global, norms on query and key heads",
        source: Source::Paper { title: "Gemma 3 Technical Report", id: "arXiv:2503.19786", section: "§2" },
        options: &[],
    },
    gguf: "gemma3",
    model_type: "gemma3_text",
    architectures: &[
        ("Gemma3ForCausalLM", Task::Vocabulary),
        ("Gemma3TextForSequenceClassification", Task::Sequence),
    ],
    config,
    keys,
    tensors: &llama_kin::joined::<18>(&[ENDS, NORMS2, ATTENTION, HEAD_NORMS, FEED_FORWARD]),
    published: &[
        published("gemma-3-270m", 268_098_176, 32_768, Licence::Restricted),
        published("gemma-3-1b", 999_885_952, 32_768, Licence::Restricted),
    ],
    ..GEMMA2
};

const HEAD_NORMS: &[TensorName] = &[
    name("blk.{i}.attn_q_norm", "layers.{i}.self_attn.q_norm", "d").stored(Stored::MinusOne),
    name("blk.{i}.attn_k_norm", "layers.{i}.self_attn.k_norm", "d").stored(Stored::MinusOne),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let config = gemma::common(keys, &KIN)?;
    let period = keys.size_or("attention.sliding_window_pattern", "sliding_window_pattern", 6)?;
    let default = if keys.speaks_gguf() { None } else { Some(4096) };
    let window = keys.window_opt()?.or(default);
    let layer_windows = llama_kin::layer_windows(keys, config.n_layers, window, |i| (i + 1) % period != 0)?;
    let kind = keys.word_opt("", "rope_parameters.sliding_attention.rope_type")?;
    if let Some(kind) = kind.filter(|kind| kind != "default") {
        return Err(keys.refuse("", "rope_parameters.sliding_attention.rope_type", kind, "default"));
    }
    let theta = match keys.number_opt("", "rope_local_base_freq")? {
        Some(theta) => theta,
        None => {
            let hugging_face = "rope_parameters.sliding_attention.rope_theta";
            keys.number_opt("rope.freq_base_swa", hugging_face)?.unwrap_or(10_000.0)
        }
    };
    if theta.is_nan() || theta <= 0.0 {
        return Err(keys.refuse("rope.freq_base_swa", "rope_local_base_freq", theta, "a positive number"));
    }
    let local = config.rope.clone().filter(|_| !layer_windows.is_empty());
    Ok(ModelConfig {
        local_rope: local.map(|rope| RopeOptions { theta, scaling: RopeScaling::None, ..rope }),
        layer_windows,
        attention_scale: gemma::attention_scale(keys, &config, 62)?,
        score_cap: keys.cap_or("attn_logit_softcapping", None)?,
        logit_cap: keys.cap_or("final_logit_softcapping", None)?,
        ..config
    })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    let mut keys = gemma::keys_of(&KIN, config);
    let local = config.local_rope.as_ref();
    keys.extend(local.map(|rope| Key::new("rope.freq_base_swa", "rope_local_base_freq", rope.theta)));
    keys
}
