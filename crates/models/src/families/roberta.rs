//! RoBERTa: BERT's network with other names, one segment, and positions that begin behind the padding token's.
//!
//! Token i of a text has row `pad_token_id + 1 + i` of the table of positions. The classifier of texts has a layer of its own
//! in the pooler's place.
//! Source: RoBERTa, arXiv:1907.11692, §3; the numbering is fairseq's.

use rhetor_catalog::{About, Source};
use rhetor_kernels::activation::Activation;

use super::{BASE, Family, Licence, Published, bert, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::Encoder;
use crate::load::{LoadError, Weights};
use crate::model::Network;
use crate::names::{Stored, TensorName, joined, name};

pub const ROBERTA: Family = Family {
    about: About {
        name: "roberta",
        summary: "RoBERTa: BERT trained longer, without segments, with a byte-level vocabulary",
        source: Source::Paper {
            title: "RoBERTa: A Robustly Optimized BERT Pretraining Approach",
            id: "arXiv:1907.11692",
            section: "§3",
        },
        options: &[],
    },
    model_type: "roberta",
    architectures: &[
        ("RobertaForMaskedLM", Task::Vocabulary),
        ("RobertaModel", Task::Hidden),
        ("RobertaForSequenceClassification", Task::Sequence),
        ("RobertaForTokenClassification", Task::Tokens),
        ("RobertaForQuestionAnswering", Task::Span),
        ("RobertaForMultipleChoice", Task::Choice),
    ],
    prefix: "roberta.",
    config,
    keys,
    tensors: &joined::<{ bert::BODY.len() + HEADS.len() }>(bert::BODY, HEADS),
    build,
    published: PUBLISHED,
    ..BASE
};

const HEADS: &[TensorName] = &[
    name("output_transform", "lm_head.dense", "D D").biased().head(&[Task::Vocabulary]),
    name("output_norm", "lm_head.layer_norm", "D").biased().head(&[Task::Vocabulary]),
    name("output_bias", "lm_head", "V").stored(Stored::OnlyBias).head(&[Task::Vocabulary]),
    name("output", "lm_head.decoder", "V D").head(&[Task::Vocabulary]),
    name("cls", "classifier.dense", "D D").biased().head(&[Task::Sequence]),
    name("cls", "pooler.dense", "D D").biased().only(&[Task::Choice, Task::Pooled]),
    name("cls.output", "classifier.out_proj", "C D").biased().head(&[Task::Sequence]),
    name("cls.output", "classifier", "C D").biased().head(&[Task::Tokens, Task::Choice]),
];

/// Elements of the encoder with its pooler.
const PUBLISHED: &[Published] = &[
    published("roberta-base", 124_645_632, 512, Licence::Open),
    published("roberta-large", 355_359_744, 512, Licence::Open),
];

pub(super) fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let bert = bert::config(keys)?;
    let first = keys.size_opt("", "pad_token_id")?.unwrap_or(1).saturating_add(1);
    if first >= bert.position_len {
        let expected = format!("less than the {} positions", bert.position_len);
        return Err(keys.refuse("", "pad_token_id", first - 1, &expected));
    }
    Ok(ModelConfig { family: "roberta", context_len: bert.position_len - first, ..bert })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    let mut keys = bert::keys(config);
    keys.retain(|key| key.hugging_face != "max_position_embeddings");
    keys.push(Key::size("", "max_position_embeddings", config.position_len));
    keys.push(Key::size("", "pad_token_id", config.position_len - config.context_len - 1));
    keys
}

fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    let activation = match weights.config.head.task {
        // Whatever `hidden_act` says.
        Task::Vocabulary => Activation::Gelu,
        _ => Activation::Tanh,
    };
    Encoder::load(weights, activation)
}
