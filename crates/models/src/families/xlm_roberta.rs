//! XLM-RoBERTa: RoBERTa in a hundred languages, with a SentencePiece vocabulary of 250,000 tokens.
//!
//! Source: Unsupervised Cross-lingual Representation Learning at Scale, arXiv:1911.02116, §3.

use rhetor_catalog::{About, Source};

use super::{Family, Licence, published, roberta};
use crate::config::{Keys, ModelConfig};
use crate::head::Task;
use crate::load::LoadError;

pub const XLM_ROBERTA: Family = Family {
    about: About {
        name: "xlm-roberta",
        summary: "XLM-RoBERTa: RoBERTa in a hundred languages; multilingual E5 and BGE-M3 are checkpoints of it",
        source: Source::Paper {
            title: "Unsupervised Cross-lingual Representation Learning at Scale",
            id: "arXiv:1911.02116",
            section: "§3",
        },
        options: &[],
    },
    model_type: "xlm-roberta",
    architectures: &[
        ("XLMRobertaForMaskedLM", Task::Vocabulary),
        ("XLMRobertaModel", Task::Hidden),
        ("XLMRobertaForSequenceClassification", Task::Sequence),
        ("XLMRobertaForTokenClassification", Task::Tokens),
        ("XLMRobertaForQuestionAnswering", Task::Span),
        ("XLMRobertaForMultipleChoice", Task::Choice),
    ],
    config,
    // Elements of the encoder with its pooler.
    published: &[
        published("xlm-roberta-base", 278_043_648, 512, Licence::Open),
        published("xlm-roberta-large", 559_890_432, 512, Licence::Open),
    ],
    ..roberta::ROBERTA
};

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    Ok(ModelConfig { family: "xlm-roberta", ..roberta::config(keys)? })
}
