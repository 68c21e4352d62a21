//! Phi-1, 1.5 and 2: decoder; attention and feed-forward layer side by side after one layer norm, rotary positions over a
//! part of each head, biases everywhere, in the output layer too.
//!
//! Source: Textbooks Are All You Need II: phi-1.5 technical report, arXiv:2309.05463, §2.1, and the published code.

use rhetor_catalog::{About, Source};
use rhetor_kernels::rope::RopeOrder;
use rhetor_tensor::ops::head_norm::NormKind;

use super::llama_kin::{self, Kin};
use super::{BASE, Family, Licence, published};
use crate::config::{Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;
use crate::names::{TensorName, name};

const KIN: Kin = Kin {
    family: "phi",
    order: RopeOrder::Half,
    rotary: 0.5,
    norm_kind: NormKind::Layer,
    norm_eps: 1e-5,
    activation: ("hidden_act", "gelu_new"),
    ..llama_kin::LLAMA
};

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
    keys: |config| KIN.keys(config),
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
    if keys.switch_or("qk_layernorm", false)? {
        return Err(keys.refuse("", "qk_layernorm", true, "false: no published Phi has norms on its heads"));
    }
    let config = KIN.config(keys)?;
    keys.check_heads(&config)?;
    match config.tied && !keys.speaks_gguf() {
        true => Err(keys.refuse("", "tie_word_embeddings", true, "false: the output layer has a bias")),
        false => Ok(config),
    }
}
