//! GPT, the first: decoder; a layer norm after each sublayer and none at the end, learned positions, biases everywhere.
//!
//! Source: Improving Language Understanding by Generative Pre-Training (2018), §3.1 and §4.1, and the published code.

use rhetor_catalog::{About, Source};

use super::{BASE, Family, Licence, gpt2, published};
use crate::config::{Keys, ModelConfig};
use crate::head::Task;
use crate::layers::{Decoder, PostNormBlock};
use crate::load::{LoadError, Weights};
use crate::model::Network;
use crate::names::{Stored, TensorName, name};

pub const GPT: Family = Family {
    about: About {
        name: "gpt",
        summary: "the first GPT, of 117M parameters, with its norms after each layer",
        source: Source::Paper {
            title: "Improving Language Understanding by Generative Pre-Training",
            id: "OpenAI 2018",
            section: "§3.1",
        },
        options: &[],
    },
    model_type: "openai-gpt",
    architectures: &[
        ("OpenAIGPTLMHeadModel", Task::Vocabulary),
        ("OpenAIGPTForSequenceClassification", Task::Sequence),
    ],
    prefix: "transformer.",
    config,
    tensors: TENSORS,
    build,
    published: &[published("openai-gpt", 116_534_784, 512, Licence::Open)],
    ..BASE
};

const TENSORS: &[TensorName] = &[
    name("token_embd", "tokens_embed", "V D"),
    name("position_embd", "positions_embed", "P D"),
    name("blk.{i}.attn_qkv", "h.{i}.attn.c_attn", "3*D D").stored(Stored::Transposed).biased(),
    name("blk.{i}.attn_output", "h.{i}.attn.c_proj", "D D").stored(Stored::Transposed).biased(),
    name("blk.{i}.attn_output_norm", "h.{i}.ln_1", "D").biased(),
    name("blk.{i}.ffn_up", "h.{i}.mlp.c_fc", "F D").stored(Stored::Transposed).biased(),
    name("blk.{i}.ffn_down", "h.{i}.mlp.c_proj", "D F").stored(Stored::Transposed).biased(),
    name("blk.{i}.layer_output_norm", "h.{i}.ln_2", "D").biased(),
    name("output", "lm_head", "V D").head(&[Task::Vocabulary]),
    name("cls.output", "score", "C D").head(&[Task::Sequence]),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let gpt2 = gpt2::config(keys)?;
    // What its files call gelu is the tanh approximation.
    let activation = match keys.word_opt("", "afn")?.as_deref() {
        None | Some("gelu") => keys.activation("", "gelu_new")?,
        _ => keys.activation("afn", "gelu_new")?,
    };
    Ok(ModelConfig { family: "gpt", activation, ffn_size: 4 * gpt2.hidden_size, ..gpt2 })
}

fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    Decoder::load(weights, PostNormBlock::load)
}
