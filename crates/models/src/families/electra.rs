//! ELECTRA: BERT's network, trained to tell which tokens a small generator has replaced.
//!
//! The table of embeddings may be narrower than the layers (E < D); then a linear layer leads from one to the other. A
//! generator has the head of a masked language model, a discriminator one number for each token.
//! Source: ELECTRA, arXiv:2003.10555, §2 and §3.2.

use rhetor_catalog::{About, Source};
use rhetor_kernels::activation::Activation;

use super::{BASE, Family, Licence, Published, bert, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::Encoder;
use crate::load::{LoadError, Weights};
use crate::model::Network;
use crate::names::{Stored, TensorName, joined, name};

pub const ELECTRA: Family = Family {
    about: About {
        name: "electra",
        summary: "ELECTRA: an encoder that learnt from every token which of them were replaced",
        source: Source::Paper {
            title: "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators",
            id: "arXiv:2003.10555",
            section: "§2",
        },
        options: &[],
    },
    model_type: "electra",
    architectures: &[
        ("ElectraForMaskedLM", Task::Vocabulary),
        ("ElectraForPreTraining", Task::Replaced),
        ("ElectraModel", Task::Hidden),
        ("ElectraForSequenceClassification", Task::Sequence),
        ("ElectraForTokenClassification", Task::Tokens),
        ("ElectraForQuestionAnswering", Task::Span),
        ("ElectraForMultipleChoice", Task::Choice),
    ],
    prefix: "electra.",
    config,
    keys,
    tensors: &joined::<{ bert::BODY.len() + OWN.len() }>(bert::BODY, OWN),
    build,
    published: PUBLISHED,
    ..BASE
};

const OWN: &[TensorName] = &[
    name("embd_projection", "embeddings_project", "D e").biased().times("projections"),
    name("output_transform", "generator_predictions.dense", "e D").biased().head(&[Task::Vocabulary]),
    name("output_norm", "generator_predictions.LayerNorm", "e").biased().head(&[Task::Vocabulary]),
    name("output_bias", "generator_lm_head", "V").stored(Stored::OnlyBias).head(&[Task::Vocabulary]),
    name("output", "generator_lm_head", "V e").head(&[Task::Vocabulary]),
    name("cls", "discriminator_predictions.dense", "D D").biased().head(&[Task::Replaced]),
    name("cls", "classifier.dense", "D D").biased().head(&[Task::Sequence]),
    name("cls", "sequence_summary.summary", "D D").biased().head(&[Task::Choice]),
    name("cls.output", "discriminator_predictions.dense_prediction", "C D").biased().head(&[Task::Replaced]),
    name("cls.output", "classifier.out_proj", "C D").biased().head(&[Task::Sequence]),
    name("cls.output", "classifier", "C D").biased().head(&[Task::Tokens, Task::Choice]),
];

/// Elements of the discriminators' encoders.
const PUBLISHED: &[Published] = &[
    published("electra-small-discriminator", 13_483_008, 512, Licence::Open),
    published("electra-base-discriminator", 108_891_648, 512, Licence::Open),
    published("electra-large-discriminator", 334_092_288, 512, Licence::Open),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let bert = bert::config(keys)?;
    let embedding_size = keys.size_or("", "embedding_size", 128)?;
    // What stands before the number of a choice, as the class has it by default.
    for (key, expected) in [("summary_type", "first"), ("summary_activation", "gelu")] {
        if let Some(word) = keys.word_opt("", key)?.filter(|word| word != expected) {
            return Err(keys.refuse("", key, word, expected));
        }
    }
    let projections = if embedding_size == bert.hidden_size { 0.0 } else { 1.0 };
    let own = vec![("e", embedding_size as f64), ("projections", projections)];
    Ok(ModelConfig { family: "electra", own, ..bert })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    [bert::keys(config), vec![Key::size("", "embedding_size", config.own_size("e"))]].concat()
}

fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    // Its authors put gelu where BERT has tanh, whatever `hidden_act` says.
    let is_discriminator = weights.config.head.task == Task::Replaced;
    let activation = if is_discriminator { weights.config.activation } else { Activation::Gelu };
    Encoder::load(weights, activation)
}
