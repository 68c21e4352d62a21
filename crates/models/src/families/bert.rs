//! BERT: encoder; layer norms after each sublayer, learned positions and segments, biases everywhere.
//!
//! Its heads are the masked language model (a transform before a tied output layer with a bias), the pooler with a
//! classifier, a classifier of tokens, and the two ends of an answer.
//! Source: BERT, arXiv:1810.04805, §3 and §4; the post-norm block is that of arXiv:1706.03762, §3.1.

use rhetor_catalog::{About, Source};
use rhetor_kernels::activation::Activation;
use rhetor_kernels::kv::KvPages;
use rhetor_tensor::{Tensor, ops, tape};
use std::sync::Arc;

use super::{BASE, Family};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::kv_cache::KvCache;
use crate::layers::{Attention, Block, Embedding, FeedForward, Keep, LayerNorm, Linear, Pass};
use crate::load::{LoadError, Weights};
use crate::model::Network;
use crate::names::{Stored, TensorName, name};

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
    model_type: "bert",
    architectures: &[
        ("BertForMaskedLM", Task::Vocabulary),
        ("BertForPreTraining", Task::Vocabulary),
        ("BertModel", Task::Vocabulary),
        ("BertForSequenceClassification", Task::Sequence),
        ("BertForTokenClassification", Task::Tokens),
        ("BertForQuestionAnswering", Task::Span),
    ],
    prefix: "bert.",
    config,
    keys,
    tensors: TENSORS,
    build,
    ..BASE
};

const TENSORS: &[TensorName] = &[
    name("token_embd", "embeddings.word_embeddings", "V D"),
    name("position_embd", "embeddings.position_embeddings", "P D"),
    name("token_types", "embeddings.token_type_embeddings", "S D"),
    name("token_embd_norm", "embeddings.LayerNorm", "D").biased(),
    name("blk.{i}.attn_q", "encoder.layer.{i}.attention.self.query", "D D").biased(),
    name("blk.{i}.attn_k", "encoder.layer.{i}.attention.self.key", "D D").biased(),
    name("blk.{i}.attn_v", "encoder.layer.{i}.attention.self.value", "D D").biased(),
    name("blk.{i}.attn_output", "encoder.layer.{i}.attention.output.dense", "D D").biased(),
    name("blk.{i}.attn_output_norm", "encoder.layer.{i}.attention.output.LayerNorm", "D").biased(),
    name("blk.{i}.ffn_up", "encoder.layer.{i}.intermediate.dense", "F D").biased(),
    name("blk.{i}.ffn_down", "encoder.layer.{i}.output.dense", "D F").biased(),
    name("blk.{i}.layer_output_norm", "encoder.layer.{i}.output.LayerNorm", "D").biased(),
    name("output_transform", "cls.predictions.transform.dense", "D D").biased().head(&[Task::Vocabulary]),
    name("output_norm", "cls.predictions.transform.LayerNorm", "D").biased().head(&[Task::Vocabulary]),
    name("output_bias", "cls.predictions", "V").stored(Stored::OnlyBias).head(&[Task::Vocabulary]),
    name("output", "cls.predictions.decoder", "V D").head(&[Task::Vocabulary]),
    name("cls.nsp", "cls.seq_relationship", "2 D").biased().head(&[Task::NextSentence]),
    name("cls", "pooler.dense", "D D").biased().only(&[Task::Sequence]),
    name("cls.output", "classifier", "C D").biased().head(&[Task::Sequence, Task::Tokens]),
    name("cls.output", "qa_outputs", "C D").biased().head(&[Task::Span]),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
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
        n_segments: keys.size_or("token_type_count", "type_vocab_size", 2)?,
        tied: keys.switch_or("tie_word_embeddings", true)?,
        ..ModelConfig::default()
    })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    vec![
        Key::size("vocab_size", "vocab_size", config.vocab_size),
        Key::size("embedding_length", "hidden_size", config.hidden_size),
        Key::size("block_count", "num_hidden_layers", config.n_layers),
        Key::size("feed_forward_length", "intermediate_size", config.ffn_size),
        Key::size("attention.head_count", "num_attention_heads", config.n_heads),
        Key::size("context_length", "max_position_embeddings", config.context_len),
        Key::size("token_type_count", "type_vocab_size", config.n_segments),
        Key::new("attention.layer_norm_epsilon", "layer_norm_eps", config.norm_eps),
        Key::new("attention.causal", "", false),
    ]
}

/// The network: embeddings with a norm of their own, blocks, and a head.
struct Bert {
    token_embd: Embedding,
    position_embd: Embedding,
    token_types: Embedding,
    embd_norm: LayerNorm,
    blocks: Vec<Arc<dyn Block>>,
    before_output: BeforeOutput,
    output: Linear,
}

/// What stands between the blocks and the output layer.
enum BeforeOutput {
    /// Nothing: classes of tokens, ends of answers.
    Nothing,
    /// tanh of a linear layer, §4.1 of the paper and its code.
    Pooler(Linear),
    /// A feed-forward layer and a norm, before the table of embeddings is used again.
    Transform(Box<Transform>),
}

/// act, then norm, of a linear layer.
struct Transform {
    dense: Linear,
    activation: Activation,
    norm: LayerNorm,
}

struct BertBlock {
    attn: Attention,
    attn_norm: LayerNorm,
    ffn: FeedForward,
    ffn_norm: LayerNorm,
}

fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    let token_embd = weights.embedding("token_embd")?;
    let position_embd = weights.embedding("position_embd")?;
    let token_types = weights.embedding("token_types")?;
    let embd_norm = weights.layer_norm("token_embd_norm", 0)?;
    let blocks = (0..weights.config.n_layers)
        .map(|i| {
            let block = BertBlock {
                attn: weights.attention(
                    &["blk.{i}.attn_q", "blk.{i}.attn_k", "blk.{i}.attn_v"],
                    "blk.{i}.attn_output",
                    i,
                )?,
                attn_norm: weights.layer_norm("blk.{i}.attn_output_norm", i)?,
                ffn: FeedForward {
                    up: weights.linear(&["blk.{i}.ffn_up"], i)?,
                    down: weights.linear(&["blk.{i}.ffn_down"], i)?,
                    activation: weights.config.activation,
                },
                ffn_norm: weights.layer_norm("blk.{i}.layer_output_norm", i)?,
            };
            Ok(Arc::new(block) as Arc<dyn Block>)
        })
        .collect::<Result<_, LoadError>>()?;
    let before_output = match weights.config.head.task {
        Task::Vocabulary => BeforeOutput::Transform(Box::new(Transform {
            dense: weights.linear(&["output_transform"], 0)?,
            activation: weights.config.activation,
            norm: weights.layer_norm("output_norm", 0)?,
        })),
        Task::Sequence => BeforeOutput::Pooler(weights.linear(&["cls"], 0)?),
        Task::Tokens | Task::Span | Task::NextSentence => BeforeOutput::Nothing,
    };
    let mut output = weights.output(&token_embd)?;
    if weights.config.head.task == Task::Vocabulary {
        let bias = weights.required_vector("output_bias", 0, ".bias")?;
        if output.bias.is_empty() {
            output.bias.push(bias);
        }
    }
    Ok(Box::new(Bert { token_embd, position_embd, token_types, embd_norm, blocks, before_output, output }))
}

impl Block for BertBlock {
    fn forward(&self, x: Tensor, pass: &Pass, cache: Option<&mut KvPages>) -> Tensor {
        let x = self.attn_norm.forward(&(self.attn.forward(&x, pass, cache) + x));
        self.ffn_norm.forward(&(self.ffn.forward(&x, pass) + x))
    }
}

impl Network for Bert {
    fn blocks(&self, tokens: &[u32], pass: &Pass, cache: Option<&mut KvCache>) -> Tensor {
        assert!(cache.is_none(), "an encoder has no cache");
        let positions: Vec<u32> = pass.of_row.iter().map(|&position| position as u32).collect();
        let mut segments: Vec<u32> = pass.segments.iter().map(|&segment| segment.into()).collect();
        segments.resize(tokens.len(), 0);
        let x = self.token_embd.forward(tokens, pass)
            + self.position_embd.forward(&positions, pass)
            + self.token_types.forward(&segments, pass);
        let mut x = self.embd_norm.forward(&x); // [T, D]
        let forgets = pass.training.is_some_and(|training| training.keep == Keep::Blocks);
        for block in &self.blocks {
            x = if forgets && tape::is_recording() {
                let (block, pass) = (block.clone(), pass.to_owned());
                tape::checkpoint(x, move |x| block.forward(x, &pass, None))
            } else {
                block.forward(x, pass, None)
            };
        }
        x
    }

    fn before_output(&self, x: &Tensor, pass: &Pass) -> Tensor {
        match &self.before_output {
            BeforeOutput::Nothing => x.clone(),
            BeforeOutput::Pooler(dense) => {
                ops::activation::activation(dense.forward(x, pass), Activation::Tanh) // [N, D]
            }
            BeforeOutput::Transform(transform) => {
                let Transform { dense, activation, norm } = &**transform;
                norm.forward(&ops::activation::activation(dense.forward(x, pass), *activation))
            }
        }
    }

    fn output(&self) -> &Linear {
        &self.output
    }
}
