//! Qwen 2 and 3: LLaMA's block; Qwen 2 has biases on queries, keys and values, Qwen 3 norms on query and key heads.
//!
//! Layers from `max_window_layers` on see a window where `use_sliding_window` says so; no published checkpoint does.
//! Sources: Qwen2, arXiv:2407.10671, §2; Qwen2.5, arXiv:2412.15115; Qwen3, arXiv:2505.09388, §2.

use rhetor_catalog::{About, Source};
use rhetor_kernels::rope::RopeOrder;

use super::llama_kin::{self, ATTENTION, ATTENTION_OUTPUT, ENDS, FEED_FORWARD, Kin};
use super::{BASE, Family, Licence, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;
use crate::names::{TensorName, name};

const KIN2: Kin = Kin { family: "qwen2", order: RopeOrder::Half, ..llama_kin::LLAMA };
const KIN3: Kin = Kin { family: "qwen3", head_dim: Some(128), ..KIN2 };

pub const QWEN2: Family = Family {
    about: About {
        name: "qwen2",
        summary: "Qwen 2 and 2.5: LLaMA's block with biases on queries, keys and values",
        source: Source::Paper { title: "Qwen2 Technical Report", id: "arXiv:2407.10671", section: "§2.2" },
        options: &[],
    },
    gguf: "qwen2",
    model_type: "qwen2",
    architectures: &[
        ("Qwen2ForCausalLM", Task::Vocabulary),
        ("Qwen2ForSequenceClassification", Task::Sequence),
        ("Qwen2ForTokenClassification", Task::Tokens),
    ],
    prefix: "model.",
    config: |keys| windowed(keys, KIN2.config(keys)?),
    keys: |config| keys(&KIN2, config),
    tensors: &llama_kin::joined::<14>(&[ENDS, NORMS, QKV_BIASED, FEED_FORWARD]),
    build: PreNormBlock::decoder,
    published: &[
        published("qwen2-0.5b", 494_032_768, 131_072, Licence::Open),
        published("qwen2.5-0.5b", 494_032_768, 32_768, Licence::Open),
        published("qwen2-1.5b", 1_543_714_304, 131_072, Licence::Open),
        published("qwen2.5-1.5b", 1_543_714_304, 131_072, Licence::Open),
        published("qwen2.5-3b", 3_085_938_688, 32_768, Licence::Research),
        published("qwen2-7b", 7_615_616_512, 131_072, Licence::Open),
        published("qwen2.5-7b", 7_615_616_512, 131_072, Licence::Open),
        published("qwen2.5-14b", 14_770_033_664, 131_072, Licence::Open),
        published("qwen2.5-32b", 32_763_876_352, 131_072, Licence::Open),
        published("qwen2-72b", 72_706_203_648, 131_072, Licence::Restricted),
        published("qwen2.5-72b", 72_706_203_648, 131_072, Licence::Restricted),
    ],
    ..BASE
};

pub const QWEN3: Family = Family {
    about: About {
        name: "qwen3",
        summary: "Qwen 3: LLaMA's block with a norm on every query and key head",
        source: Source::Paper { title: "Qwen3 Technical Report", id: "arXiv:2505.09388", section: "§2" },
        options: &[],
    },
    gguf: "qwen3",
    model_type: "qwen3",
    architectures: &[
        ("Qwen3ForCausalLM", Task::Vocabulary),
        ("Qwen3ForSequenceClassification", Task::Sequence),
        ("Qwen3ForTokenClassification", Task::Tokens),
    ],
    config: |keys| {
        llama_kin::refuse_biases(keys)?;
        windowed(keys, KIN3.config(keys)?)
    },
    keys: |config| keys(&KIN3, config),
    tensors: &llama_kin::joined::<16>(&[ENDS, NORMS, ATTENTION, HEAD_NORMS, FEED_FORWARD]),
    published: &[
        published("qwen3-0.6b", 596_049_920, 40_960, Licence::Open),
        published("qwen3-1.7b", 1_720_574_976, 40_960, Licence::Open),
        published("qwen3-4b", 4_022_468_096, 40_960, Licence::Open),
        published("qwen3-8b", 8_190_735_360, 40_960, Licence::Open),
        published("qwen3-14b", 14_768_307_200, 40_960, Licence::Open),
        published("qwen3-32b", 32_762_123_264, 40_960, Licence::Open),
    ],
    ..QWEN2
};

const NORMS: &[TensorName] = &[
    name("blk.{i}.attn_norm", "layers.{i}.input_layernorm", "D"),
    name("blk.{i}.ffn_norm", "layers.{i}.post_attention_layernorm", "D"),
    name("output_norm", "norm", "D"),
];

const QKV_BIASED: &[TensorName] =
    &[ATTENTION[0].biased(), ATTENTION[1].biased(), ATTENTION[2].biased(), ATTENTION_OUTPUT];

const HEAD_NORMS: &[TensorName] = &[
    name("blk.{i}.attn_q_norm", "layers.{i}.self_attn.q_norm", "d"),
    name("blk.{i}.attn_k_norm", "layers.{i}.self_attn.k_norm", "d"),
];

/// The same with the windows that the file asks for.
fn windowed(keys: &Keys, config: ModelConfig) -> Result<ModelConfig, LoadError> {
    let is_on = keys.switch_or("use_sliding_window", false)?;
    let window = if is_on { keys.window_opt()? } else { None };
    let first = keys.count_or("max_window_layers", 28)?;
    let layer_windows = llama_kin::layer_windows(keys, config.n_layers, window, |i| i >= first)?;
    Ok(ModelConfig { layer_windows, ..config })
}

fn keys(kin: &Kin, config: &ModelConfig) -> Vec<Key> {
    let mut keys = kin.keys(config);
    keys.push(Key::new("", "use_sliding_window", false));
    keys
}
