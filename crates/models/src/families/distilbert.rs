//! DistilBERT: half of BERT's layers, learnt from all of them; no segments and no pooler.
//!
//! Source: DistilBERT, arXiv:1910.01108, §2. GGUF does not know it.

use rhetor_catalog::{About, Source};
use rhetor_kernels::activation::Activation;

use super::{BASE, Family, Licence, Published, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::Encoder;
use crate::load::{LoadError, Weights};
use crate::model::Network;
use crate::names::{Stored, TensorName, name};

pub const DISTILBERT: Family = Family {
    about: About {
        name: "distilbert",
        summary: "DistilBERT: BERT with half of its layers",
        source: Source::Paper {
            title: "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter",
            id: "arXiv:1910.01108",
            section: "§2",
        },
        options: &[],
    },
    model_type: "distilbert",
    architectures: &[
        ("DistilBertForMaskedLM", Task::Vocabulary),
        ("DistilBertModel", Task::Hidden),
        ("DistilBertForSequenceClassification", Task::Sequence),
        ("DistilBertForTokenClassification", Task::Tokens),
        ("DistilBertForQuestionAnswering", Task::Span),
        ("DistilBertForMultipleChoice", Task::Choice),
    ],
    prefix: "distilbert.",
    config,
    keys,
    tensors: TENSORS,
    build,
    published: PUBLISHED,
    ..BASE
};

const TENSORS: &[TensorName] = &[
    name("token_embd", "embeddings.word_embeddings", "V D"),
    name("position_embd", "embeddings.position_embeddings", "P D"),
    name("token_embd_norm", "embeddings.LayerNorm", "D").biased(),
    name("blk.{i}.attn_q", "transformer.layer.{i}.attention.q_lin", "D D").biased(),
    name("blk.{i}.attn_k", "transformer.layer.{i}.attention.k_lin", "D D").biased(),
    name("blk.{i}.attn_v", "transformer.layer.{i}.attention.v_lin", "D D").biased(),
    name("blk.{i}.attn_output", "transformer.layer.{i}.attention.out_lin", "D D").biased(),
    name("blk.{i}.attn_output_norm", "transformer.layer.{i}.sa_layer_norm", "D").biased(),
    name("blk.{i}.ffn_up", "transformer.layer.{i}.ffn.lin1", "F D").biased(),
    name("blk.{i}.ffn_down", "transformer.layer.{i}.ffn.lin2", "D F").biased(),
    name("blk.{i}.layer_output_norm", "transformer.layer.{i}.output_layer_norm", "D").biased(),
    name("output_transform", "vocab_transform", "D D").biased().head(&[Task::Vocabulary]),
    name("output_norm", "vocab_layer_norm", "D").biased().head(&[Task::Vocabulary]),
    name("output_bias", "vocab_projector", "V").stored(Stored::OnlyBias).head(&[Task::Vocabulary]),
    name("output", "vocab_projector", "V D").head(&[Task::Vocabulary]),
    name("cls", "pre_classifier", "D D").biased().head(&[Task::Sequence, Task::Choice]),
    name("cls.output", "classifier", "C D").biased().head(&[Task::Sequence, Task::Tokens, Task::Choice]),
    name("cls.output", "qa_outputs", "C D").biased().head(&[Task::Span]),
];

const PUBLISHED: &[Published] = &[
    published("distilbert-base-uncased", 66_362_880, 512, Licence::Open),
    published("distilbert-base-multilingual-cased", 134_734_080, 512, Licence::Open),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let (hidden_size, n_heads) = (keys.size("", "dim")?, keys.size("", "n_heads")?);
    if hidden_size % n_heads != 0 {
        return Err(keys.refuse("", "n_heads", n_heads, &format!("a divisor of the width {hidden_size}")));
    }
    let (context_len, head_dim) = (keys.size("", "max_position_embeddings")?, hidden_size / n_heads);
    Ok(ModelConfig {
        family: "distilbert",
        vocab_size: keys.vocab_size()?,
        hidden_size,
        n_layers: keys.size("", "n_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        ffn_size: keys.size("", "hidden_dim")?,
        context_len,
        position_len: context_len,
        // No key says it.
        norm_eps: 1e-12,
        activation: keys.activation("activation", "gelu")?,
        attention_scale: (head_dim as f32).powf(-0.5),
        is_encoder: true,
        tied: keys.switch_or("tie_word_embeddings", true)?,
        ..ModelConfig::default()
    })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    vec![
        Key::size("", "vocab_size", config.vocab_size),
        Key::size("", "dim", config.hidden_size),
        Key::size("", "n_layers", config.n_layers),
        Key::size("", "n_heads", config.n_heads),
        Key::size("", "hidden_dim", config.ffn_size),
        Key::size("", "max_position_embeddings", config.context_len),
    ]
}

fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    let activation = match weights.config.head.task {
        Task::Vocabulary => weights.config.activation,
        _ => Activation::Relu,
    };
    Encoder::load(weights, activation)
}
