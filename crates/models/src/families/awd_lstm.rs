//! AWD-LSTM: a stack of LSTM layers between an embedding and the same embedding turned round, with five kinds of dropout.
//!
//! What ULMFiT pre-trains, tunes on the target's texts and puts a classifier on. Tensors have the names that fastai gives
//! them, and `config.json` has the keys of [`config`]. The classifier is fastai's `PoolingLinearClassifier` without its
//! batch norms: concat pooling, dropout, a layer of 50, ReLU, dropout, the output layer.
//!
//! Source: Regularizing and Optimizing LSTM Language Models, arXiv:1708.02182, section 4; ULMFiT, arXiv:1801.06146,
//! section 3; the probabilities are fastai's (2.8, `awd_lstm_lm_config` and `awd_lstm_clas_config`).

use rhetor_catalog::{About, Source};
use rhetor_kernels::activation::Activation;
use rhetor_tensor::ops::lstm::Lstm;
use rhetor_tensor::{Tensor, ops};

use super::{BASE, Family};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::kv_cache::KvCache;
use crate::layers::{Embedding, Linear, Pass};
use crate::load::{LoadError, Weights};
use crate::model::Network;
use crate::names::{Spread, Stored, TensorName, name};

pub const AWD_LSTM: Family = Family {
    about: About {
        name: "awd-lstm",
        summary: "AWD-LSTM, the network of ULMFiT: a language model or a classifier of texts; it trains, it does not generate",
        source: Source::Paper {
            title: "Regularizing and Optimizing LSTM Language Models",
            id: "arXiv:1708.02182",
            section: "section 4",
        },
        options: &[],
    },
    model_type: "awd_lstm",
    architectures: &[
        ("AwdLstmForCausalLM", Task::Vocabulary),
        ("AwdLstmForSequenceClassification", Task::Sequence),
    ],
    prefix: "0.",
    config,
    keys,
    tensors: TENSORS,
    build,
    ..BASE
};

const TENSORS: &[TensorName] = &[
    name("token_embd", "encoder", "V D"),
    name("blk.{i}.ih", "rnns.{i}.module.weight_ih_l0|rnns.{i}.module.bias_ih_l0", "4*U E").biased(),
    name("blk.{i}.hh", "rnns.{i}.weight_hh_l0_raw|rnns.{i}.module.bias_hh_l0", "4*U U").biased(),
    name("output", "1.decoder", "V D").head(&[Task::Vocabulary]),
    name("output_bias", "1.decoder", "V").stored(Stored::OnlyBias).head(&[Task::Vocabulary]),
    name("cls", "1.hidden", "50 3*D").biased().spread(Spread::Over("9*D")).head(&[Task::Sequence]),
    name("cls.output", "1.output", "C 50").biased().spread(Spread::Over("150")).head(&[Task::Sequence]),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let hidden_size = keys.size("embedding_length", "hidden_size")?;
    Ok(ModelConfig {
        family: "awd-lstm",
        vocab_size: keys.vocab_size()?,
        hidden_size,
        n_layers: keys.size("block_count", "num_hidden_layers")?,
        head_dim: hidden_size,
        ffn_size: keys.size("feed_forward_length", "intermediate_size")?,
        // Nothing in the network counts positions.
        context_len: keys.size_or("context_length", "max_position_embeddings", 1 << 20)?,
        activation: Activation::Tanh,
        drop_factor: keys.number_opt("", "drop_mult")?,
        is_recurrent: true,
        tied: true,
        ..ModelConfig::default()
    })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    vec![
        Key::size("vocab_size", "vocab_size", config.vocab_size),
        Key::size("embedding_length", "hidden_size", config.hidden_size),
        Key::size("block_count", "num_hidden_layers", config.n_layers),
        Key::size("feed_forward_length", "intermediate_size", config.ffn_size),
    ]
}

/// Probabilities of dropout.
#[derive(Debug, Clone, Copy)]
struct Dropouts {
    /// Of whole words.
    words: f32,
    /// Of columns of the embeddings of a sequence.
    input: f32,
    /// Of numbers of the weights from step to step.
    weight: f32,
    /// Of columns between layers.
    between: f32,
    /// Of columns after the last layer of a language model; before the first layer of a classifier.
    output: f32,
}

/// fastai's `awd_lstm_lm_config`.
const LANGUAGE_MODEL: Dropouts =
    Dropouts { words: 0.02, input: 0.25, weight: 0.2, between: 0.15, output: 0.1 };
/// fastai's `awd_lstm_clas_config`, to be multiplied by `drop_mult` = 0.5.
const CLASSIFIER: Dropouts = Dropouts { words: 0.05, input: 0.4, weight: 0.5, between: 0.3, output: 0.4 };
/// After the classifier's first layer.
const AFTER_HIDDEN: f32 = 0.1;

/// Places of dropout in the network, for its random numbers.
mod place {
    pub const WORDS: u64 = 0xa0d0;
    pub const INPUT: u64 = 0xa0d1;
    pub const OUTPUT: u64 = 0xa0d2;
    pub const AFTER_HIDDEN: u64 = 0xa0d3;
    /// Of layer i: that plus 2i and 2i + 1.
    pub const LAYERS: u64 = 0xa1d0;
}

struct AwdLstm {
    token_embd: Embedding,
    layers: Vec<Lstm>,
    dropouts: Dropouts,
    /// Of a classifier: [50, 3D].
    hidden: Option<Linear>,
    output: Linear,
}

fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    let token_embd = weights.embedding("token_embd")?;
    let layers = (0..weights.config.n_layers).map(|i| weights.lstm("blk.{i}.ih", "blk.{i}.hh", i));
    let layers = layers.collect::<Result<_, LoadError>>()?;
    let is_classifier = weights.config.head.task == Task::Sequence;
    let (plain, usual) = if is_classifier { (CLASSIFIER, 0.5) } else { (LANGUAGE_MODEL, 1.0) };
    let factor = weights.config.drop_factor.unwrap_or(usual);
    let times = |p: f32| (p * factor).min(0.95);
    let dropouts = Dropouts {
        words: times(plain.words),
        input: times(plain.input),
        weight: times(plain.weight),
        between: times(plain.between),
        output: times(plain.output),
    };
    let hidden = if is_classifier { Some(weights.linear(&["cls"], 0)?) } else { None };
    let mut output = weights.output(&token_embd)?;
    if !is_classifier {
        output.bias = vec![weights.required_vector("output_bias", 0, ".bias")?];
    }
    Ok(Box::new(AwdLstm { token_embd, layers, dropouts, hidden, output }))
}

impl Network for AwdLstm {
    /// Of a classifier, only the last row of each sequence holds anything: the pooled outputs, [T, 3D].
    fn blocks(&self, tokens: &[u32], pass: &Pass, cache: Option<&mut KvCache>) -> Tensor {
        assert!(cache.is_none(), "a network of LSTM layers has no cache of keys and values");
        let lengths: Vec<usize> = pass.spans.iter().map(|span| span.len).collect();
        let columns = |x: Tensor, p: f32, place: u64| match pass.dropout(place) {
            Some(stream) => ops::dropout::variational(x, &lengths, p, stream),
            None => x,
        };
        let Dropouts { words, input, weight, between, output } = self.dropouts;
        let mut x = self.token_embd.forward(tokens, pass); // [T, D]
        if let Some(stream) = pass.dropout(place::WORDS) {
            x = ops::dropout::words(x, tokens, self.token_embd.weight.n_out(), words, stream);
        }
        x = columns(x, input, place::INPUT);
        for (i, layer) in self.layers.iter().enumerate() {
            let own = place::LAYERS + 2 * i as u64;
            let drop = pass.dropout(own).map(|stream| (weight, stream));
            x = layer.forward(&x, &lengths, None, drop).0;
            if i + 1 < self.layers.len() {
                x = columns(x, between, own + 1);
            }
        }
        if self.hidden.is_none() {
            return columns(x, output, place::OUTPUT); // [T, D]
        }
        let pooled = ops::pooling::concat_pool(&x, &lengths); // [B, 3D]
        let ends = lengths.iter().scan(0, |end, len| {
            *end += len;
            Some(*end - 1)
        });
        let rows: Vec<(usize, usize)> = ends.enumerate().map(|(sequence, end)| (end, sequence)).collect();
        let empty = Tensor::build([x.n_rows(), pooled.row_len()], |out| out.fill(0.0));
        ops::rows::replace(empty, 0, &rows, &pooled)
    }

    fn before_output(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let Some(hidden) = &self.hidden else { return x.clone() };
        let drop = |x: Tensor, p: f32, place: u64| match pass.dropout(place) {
            Some(stream) => ops::dropout::dropout(x, p, stream),
            None => x,
        };
        let x = hidden.forward(&drop(x.clone(), self.dropouts.output, place::OUTPUT), pass); // [N, 50]
        drop(ops::activation::activation(x, Activation::Relu), AFTER_HIDDEN, place::AFTER_HIDDEN)
    }

    fn output(&self) -> &Linear {
        &self.output
    }
}
