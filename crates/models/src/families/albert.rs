//! ALBERT: BERT whose layers share their weights, and whose table of embeddings is narrower than the layers.
//!
//! The table has E columns and a linear layer leads to D; layers come in G groups (mostly one), and all of a group are the
//! same layer. Its second task is the order of two texts. CKIP's Chinese models are plain ones.
//! Source: ALBERT, arXiv:1909.11942, §3.1. GGUF does not know it.

use rhetor_catalog::{About, Source};
use rhetor_kernels::activation::Activation;

use super::{BASE, Family, Licence, Published, bert, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::Encoder;
use crate::load::{LoadError, Weights};
use crate::model::Network;
use crate::names::{Stored, TensorName, name};

pub const ALBERT: Family = Family {
    about: About {
        name: "albert",
        summary: "ALBERT: a small BERT, one layer used again and again",
        source: Source::Paper {
            title: "ALBERT: A Lite BERT for Self-supervised Learning of Language Representations",
            id: "arXiv:1909.11942",
            section: "§3.1",
        },
        options: &[],
    },
    model_type: "albert",
    architectures: &[
        ("AlbertForMaskedLM", Task::Vocabulary),
        ("AlbertForPreTraining", Task::Vocabulary),
        ("AlbertModel", Task::Hidden),
        // Read so when the second task is asked for; transformers has no class of its own for it.
        ("AlbertForSentenceOrderPrediction", Task::NextSentence),
        ("AlbertForSequenceClassification", Task::Sequence),
        ("AlbertForTokenClassification", Task::Tokens),
        ("AlbertForQuestionAnswering", Task::Span),
        ("AlbertForMultipleChoice", Task::Choice),
    ],
    prefix: "albert.",
    config,
    keys,
    tensors: TENSORS,
    build,
    published: PUBLISHED,
    ..BASE
};

const TENSORS: &[TensorName] = &[
    name("token_embd", "embeddings.word_embeddings", "V e"),
    name("position_embd", "embeddings.position_embeddings", "P e"),
    name("token_types", "embeddings.token_type_embeddings", "S e"),
    name("token_embd_norm", "embeddings.LayerNorm", "e").biased(),
    name("embd_projection", "encoder.embedding_hidden_mapping_in", "D e").biased(),
    group("blk.{i}.attn_q", "encoder.albert_layer_groups.{i}.albert_layers.0.attention.query", "D D"),
    group("blk.{i}.attn_k", "encoder.albert_layer_groups.{i}.albert_layers.0.attention.key", "D D"),
    group("blk.{i}.attn_v", "encoder.albert_layer_groups.{i}.albert_layers.0.attention.value", "D D"),
    group("blk.{i}.attn_output", "encoder.albert_layer_groups.{i}.albert_layers.0.attention.dense", "D D"),
    group(
        "blk.{i}.attn_output_norm",
        "encoder.albert_layer_groups.{i}.albert_layers.0.attention.LayerNorm",
        "D",
    ),
    group("blk.{i}.ffn_up", "encoder.albert_layer_groups.{i}.albert_layers.0.ffn", "F D"),
    group("blk.{i}.ffn_down", "encoder.albert_layer_groups.{i}.albert_layers.0.ffn_output", "D F"),
    group(
        "blk.{i}.layer_output_norm",
        "encoder.albert_layer_groups.{i}.albert_layers.0.full_layer_layer_norm",
        "D",
    ),
    name("output_transform", "predictions.dense", "e D").biased().head(&[Task::Vocabulary]),
    name("output_norm", "predictions.LayerNorm", "e").biased().head(&[Task::Vocabulary]),
    name("output_bias", "predictions", "V").stored(Stored::OnlyBias).head(&[Task::Vocabulary]),
    name("output", "predictions.decoder", "V e").head(&[Task::Vocabulary]),
    name("cls", "pooler", "D D").biased().only(&[
        Task::Sequence,
        Task::NextSentence,
        Task::Choice,
        Task::Pooled,
    ]),
    name("cls.output", "sop_classifier.classifier", "C D").biased().head(&[Task::NextSentence]),
    name("cls.output", "classifier", "C D").biased().head(&[Task::Sequence, Task::Tokens, Task::Choice]),
    name("cls.output", "qa_outputs", "C D").biased().head(&[Task::Span]),
];

/// A row of the layer that all layers of a group are.
const fn group(ours: &'static str, hugging_face: &'static str, shape: &'static str) -> TensorName {
    name(ours, hugging_face, shape).biased().times("G")
}

/// Elements of the encoder with its pooler.
const PUBLISHED: &[Published] = &[
    published("albert-base-v2", 11_683_584, 512, Licence::Open),
    published("albert-large-v2", 17_683_968, 512, Licence::Open),
    published("albert-xlarge-v2", 58_724_864, 512, Licence::Open),
    published("albert-xxlarge-v2", 222_595_584, 512, Licence::Open),
    published("ckiplab/albert-tiny-chinese", 4_080_520, 512, Licence::Restricted),
    published("ckiplab/albert-base-chinese", 10_547_968, 512, Licence::Restricted),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let bert = bert::config(keys)?;
    let n_groups = keys.size_or("", "num_hidden_groups", 1)?;
    if n_groups > bert.n_layers {
        let expected = format!("at most {}, the number of layers", bert.n_layers);
        return Err(keys.refuse("", "num_hidden_groups", n_groups, &expected));
    }
    let inner = keys.size_or("", "inner_group_num", 1)?;
    if inner != 1 {
        return Err(keys.refuse("", "inner_group_num", inner, "1: a group is one layer"));
    }
    let embedding_size = keys.size_or("", "embedding_size", 128)?;
    Ok(ModelConfig {
        family: "albert",
        own: vec![("e", embedding_size as f64), ("G", n_groups as f64)],
        activation: keys.activation("hidden_act", "gelu_new")?,
        ..bert
    })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    let mut keys = bert::keys(config);
    keys.push(Key::size("", "embedding_size", config.own_size("e")));
    keys.push(Key::size("", "num_hidden_groups", config.own_size("G")));
    keys
}

fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    let activation = match weights.config.head.task {
        Task::Vocabulary => weights.config.activation,
        _ => Activation::Tanh,
    };
    Encoder::load(weights, activation)
}
