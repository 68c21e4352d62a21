//! Fusion-in-Decoder: T5 whose encoder reads each of several passages by itself, and whose decoder attends to all of them.
//!
//! That several passages are read is a property of the batch ([`SourceTokens`](crate::SourceTokens)), which every
//! encoder-decoder has; what is its own are the names under which its code stores the encoder, which it wraps.
//! Source: arXiv:2007.01282, section 3; names: facebookresearch/FiD, `src/model.py`, `EncoderWrapper`.

use rhetor_catalog::{About, Source};

use super::{BASE, Family, Licence, Published, t5};
use crate::config::ModelConfig;
use crate::head::Task;

pub const FID: Family = Family {
    about: About {
        name: "fid",
        summary: "Fusion-in-Decoder: answers a question from many passages",
        source: Source::Paper {
            title: "Leveraging Passage Retrieval with Generative Models for Open Domain Question Answering",
            id: "arXiv:2007.01282",
            section: "§3",
        },
        options: &[],
    },
    model_type: "fid",
    architectures: &[("FiDT5", Task::Vocabulary)],
    config: |keys| Ok(ModelConfig { family: "fid", ..t5::config(keys)? }),
    keys: t5::keys,
    tensors: t5::TENSORS,
    other_names: |name| {
        let wrapped = name.strip_prefix("encoder.").map(|rest| rest.replacen(".layer.", ".module.layer.", 1));
        let mut names: Vec<String> =
            wrapped.map(|rest| format!("encoder.encoder.{rest}")).into_iter().collect();
        if name == "shared.weight" {
            let tables = ["encoder.encoder", "encoder", "decoder"];
            names.extend(tables.map(|side| format!("{side}.embed_tokens.weight")));
        }
        names
    },
    build: t5::build,
    published: &[
        Published {
            name: "nq_reader_base",
            n_parameters: 222_903_552,
            context_len: 250,
            licence: Licence::Research,
        },
        Published {
            name: "nq_reader_large",
            n_parameters: 737_668_096,
            context_len: 250,
            licence: Licence::Research,
        },
    ],
    ..BASE
};
