//! BERT: encoder; layer norms after each sublayer, learned positions and segments, biases everywhere.
//!
//! Its heads are the masked language model (a transform before a tied output layer with a bias), the pooler with a
//! classifier of texts, of pairs or of choices, a classifier of tokens, and the two ends of an answer.
//! Source: BERT, arXiv:1810.04805, §3 and §4. GGUF files have neither pooler nor masked language model.

use rhetor_catalog::{About, Source};
use rhetor_kernels::activation::Activation;

use super::{BASE, Family, Licence, Published, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::Encoder;
use crate::load::{LoadError, Weights};
use crate::model::Network;
use crate::names::{Stored, TensorName, joined, name};

pub const BERT: Family = Family {
    about: About {
        name: "bert",
        summary: "BERT, the encoder: hidden words, classes of texts and of words, answers in texts",
        source: Source::Paper {
            title: "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
            id: "arXiv:1810.04805",
            section: "§3",
        },
        options: &[],
    },
    gguf: "bert",
    gguf_task: Task::Hidden,
    model_type: "bert",
    architectures: &[
        ("BertForMaskedLM", Task::Vocabulary),
        ("BertForPreTraining", Task::Vocabulary),
        ("BertModel", Task::Hidden),
        ("BertForNextSentencePrediction", Task::NextSentence),
        ("BertForSequenceClassification", Task::Sequence),
        ("BertForTokenClassification", Task::Tokens),
        ("BertForQuestionAnswering", Task::Span),
        ("BertForMultipleChoice", Task::Choice),
    ],
    prefix: "bert.",
    config,
    keys,
    tensors: &joined::<{ BODY.len() + HEADS.len() }>(BODY, HEADS),
    build,
    published: PUBLISHED,
    ..BASE
};

/// The encoder, and the head that all who took over its names call alike.
pub(super) const BODY: &[TensorName] = &[
    name("token_embd", "embeddings.word_embeddings", "V e"),
    name("position_embd", "embeddings.position_embeddings", "P e"),
    name("token_types", "embeddings.token_type_embeddings", "S e"),
    name("token_embd_norm", "embeddings.LayerNorm", "e").biased(),
    name("blk.{i}.attn_q", "encoder.layer.{i}.attention.self.query", "D D").biased(),
    name("blk.{i}.attn_k", "encoder.layer.{i}.attention.self.key", "D D").biased(),
    name("blk.{i}.attn_v", "encoder.layer.{i}.attention.self.value", "D D").biased(),
    name("blk.{i}.attn_output", "encoder.layer.{i}.attention.output.dense", "D D").biased(),
    name("blk.{i}.attn_output_norm", "encoder.layer.{i}.attention.output.LayerNorm", "D").biased(),
    name("blk.{i}.ffn_up", "encoder.layer.{i}.intermediate.dense", "F D").biased(),
    name("blk.{i}.ffn_down", "encoder.layer.{i}.output.dense", "D F").biased(),
    name("blk.{i}.layer_output_norm", "encoder.layer.{i}.output.LayerNorm", "D").biased(),
    name("cls.output", "qa_outputs", "C D").biased().head(&[Task::Span]),
];

const HEADS: &[TensorName] = &[
    name("output_transform", "cls.predictions.transform.dense", "D D").biased().head(&[Task::Vocabulary]),
    name("output_norm", "cls.predictions.transform.LayerNorm", "D").biased().head(&[Task::Vocabulary]),
    name("output_bias", "cls.predictions", "V").stored(Stored::OnlyBias).head(&[Task::Vocabulary]),
    name("output", "cls.predictions.decoder", "V D").head(&[Task::Vocabulary]),
    name("cls", "pooler.dense", "D D").biased().only(POOLED),
    name("cls.output", "cls.seq_relationship", "C D").biased().head(&[Task::NextSentence]),
    name("cls.output", "classifier", "C D").biased().head(&[Task::Sequence, Task::Tokens, Task::Choice]),
];

/// The heads that stand on the pooler.
const POOLED: &[Task] = &[Task::Sequence, Task::NextSentence, Task::Choice, Task::Pooled];

/// Elements of the encoder with its pooler.
const PUBLISHED: &[Published] = &[
    published("bert-base-uncased", 109_482_240, 512, Licence::Open),
    published("bert-large-uncased", 335_141_888, 512, Licence::Open),
    published("bert-base-chinese", 102_267_648, 512, Licence::Open),
    published("bert-base-multilingual-cased", 177_853_440, 512, Licence::Open),
    published("ckiplab/bert-tiny-chinese", 11_539_320, 512, Licence::Restricted),
    published("ckiplab/bert-base-chinese", 102_267_648, 512, Licence::Restricted),
    published("all-MiniLM-L6-v2", 22_713_216, 512, Licence::Open),
    published("bge-small-en", 33_360_000, 512, Licence::Open),
];

pub(super) fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let hidden_size = keys.size("embedding_length", "hidden_size")?;
    let n_heads = keys.size("attention.head_count", "num_attention_heads")?;
    if hidden_size % n_heads != 0 {
        let expected = format!("a divisor of the width {hidden_size}");
        return Err(keys.refuse("attention.head_count", "num_attention_heads", n_heads, &expected));
    }
    if let Some(kind) = keys.word_opt("", "position_embedding_type")?.filter(|kind| kind != "absolute") {
        return Err(keys.refuse("", "position_embedding_type", kind, "absolute"));
    }
    let head_dim = hidden_size / n_heads;
    let context_len = keys.size("context_length", "max_position_embeddings")?;
    Ok(ModelConfig {
        family: "bert",
        vocab_size: keys.vocab_size()?,
        hidden_size,
        n_layers: keys.size("block_count", "num_hidden_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        ffn_size: keys.size("feed_forward_length", "intermediate_size")?,
        context_len,
        position_len: context_len,
        norm_eps: keys.number_or("attention.layer_norm_epsilon", "layer_norm_eps", 1e-12)?,
        activation: keys.activation("hidden_act", "gelu")?,
        attention_scale: (head_dim as f32).powf(-0.5),
        is_encoder: true,
        n_segments: keys.size_or("tokenizer.ggml.token_type_count", "type_vocab_size", 2)?,
        tied: keys.switch_or("tie_word_embeddings", true)?,
        ..ModelConfig::default()
    })
}

pub(super) fn keys(config: &ModelConfig) -> Vec<Key> {
    vec![
        Key::size("vocab_size", "vocab_size", config.vocab_size),
        Key::size("embedding_length", "hidden_size", config.hidden_size),
        Key::size("block_count", "num_hidden_layers", config.n_layers),
        Key::size("feed_forward_length", "intermediate_size", config.ffn_size),
        Key::size("attention.head_count", "num_attention_heads", config.n_heads),
        Key::size("context_length", "max_position_embeddings", config.context_len),
        Key::size("tokenizer.ggml.token_type_count", "type_vocab_size", config.n_segments),
        Key::new("attention.layer_norm_epsilon", "layer_norm_eps", config.norm_eps),
        Key::new("attention.causal", "", false),
    ]
}

pub(super) fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    let activation = match weights.config.head.task {
        Task::Vocabulary => weights.config.activation,
        _ => Activation::Tanh,
    };
    Encoder::load(weights, activation)
}
