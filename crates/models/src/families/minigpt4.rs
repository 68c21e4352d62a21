//! MiniGPT-4: a vision tower whose rows, through one linear layer, become words of a language model.
//!
//! Version 1 lets a Q-Former read the tower's rows; version 2 joins each four patches that follow each other, without the
//! class row. The language model is of any family that decodes; around it nothing changes but that some of its rows
//! are given. A checkpoint is a folder whose `config.json` has `model_type: "minigpt4"` and the keys of the parts under
//! `vision`, `qformer` (version 1 alone) and `language_model`; the tensors have the names of the authors or of BLIP-2.
//! Source: MiniGPT-4, arXiv:2304.10592, section 3; MiniGPT-v2, arXiv:2310.09478, section 2.1.

use rhetor_catalog::{About, Source};
use rhetor_tensor::Tensor;

use super::qformer::{QFormer, qformer};
use super::vit::{Vit, vit};
use super::{BASE, Family, Licence, published};
use crate::config::{Keys, ModelConfig, Part};
use crate::head::Task;
use crate::kv_cache::KvCache;
use crate::layers::{Active, Linear, Pass, SourceTokens, Training};
use crate::load::{LoadError, Weights};
use crate::model::{Network, Sight};
use crate::names::{TensorName, name};

pub const MINIGPT4: Family = Family {
    about: About {
        name: "minigpt4",
        summary: "MiniGPT-4 and MiniGPT-v2: questions about pictures, on any decoder",
        source: Source::Paper {
            title: "MiniGPT-4: Enhancing Vision-Language Understanding with Advanced Large Language Models",
            id: "arXiv:2304.10592",
            section: "§3",
        },
        options: &[],
    },
    model_type: "minigpt4",
    architectures: &[("MiniGPT4", Task::Vocabulary), ("MiniGPTv2", Task::Vocabulary)],
    config,
    tensors: TENSORS,
    other_names: |name| vec![name.replace("llama_proj", "language_projection")],
    build,
    published: &[published("minigpt-v2", 7_748_467_072, 4096, Licence::Restricted)],
    ..BASE
};

const TENSORS: &[TensorName] = &[name("mm.proj", "llama_proj", "D X").biased()];

/// Patches that version 2 joins.
const GROUP: usize = 4;

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let part = |section: &'static str, root: &'static str| {
        let keys = keys.section(section);
        let word = keys.word_opt("", "model_type")?.unwrap_or_default();
        match Family::of_type(&word) {
            Some(family) => Ok(Part { section, root, config: (family.config)(&keys)? }),
            None => Err(keys.refuse("", "model_type", word, "the model_type of a family")),
        }
    };
    let root = if keys.has_tensors("language_model.") { "language_model." } else { "llama_model." };
    let vision = part("vision", "")?;
    let language = part("language_model", root)?;
    let refuse = |part: &Part, expected| {
        let keys = keys.section(part.section);
        Err(keys.refuse("", "model_type", part.config.family, expected))
    };
    if vision.config.own_opt("side").is_none() {
        return refuse(&vision, "a vision tower");
    }
    let decodes = language.config.vocab_size > 0
        && !language.config.is_encoder
        && !language.config.is_recurrent
        && !language.config.has_encoder()
        && language.config.parts.is_empty();
    if !decodes {
        return refuse(&language, "a decoder");
    }
    let mut parts = vec![vision, language];
    let has_qformer = keys.section("qformer").word_opt("", "model_type")?.is_some();
    if has_qformer {
        let qformer = part("qformer", "")?;
        if qformer.config.family != "qformer" {
            return refuse(&qformer, "blip_2_qformer");
        }
        let (got, seen) = (qformer.config.own_size("X"), parts[0].config.hidden_size);
        if got != seen {
            let expected = format!("{seen}, the width of the vision tower");
            return Err(keys.section("qformer").refuse("", "encoder_hidden_size", got, &expected));
        }
        parts.push(qformer);
    }
    let vision = &parts[0].config;
    if !has_qformer && (vision.context_len - 1) % GROUP != 0 {
        let expected = "so many that its patches can be joined by four";
        return Err(keys.section("vision").refuse("", "image_size", vision.own_size("side"), expected));
    }
    let width = parts.get(2).map_or(GROUP * vision.hidden_size, |qformer| qformer.config.hidden_size);
    let n_rows =
        parts.get(2).map_or((vision.context_len - 1) / GROUP, |qformer| qformer.config.own_size("Q"));
    // Everything that serves a decoder sees the language model's own sizes.
    let language = parts[1].config.clone();
    let own = vec![("X", width as f64), ("R", n_rows as f64)];
    Ok(ModelConfig { family: "minigpt4", own, parts, ..language })
}

struct MiniGpt4 {
    vision: Vit,
    qformer: Option<QFormer>,
    /// [D, X]
    projection: Linear,
    language: Box<dyn Network>,
    n_rows: usize,
}

fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    let has_qformer = weights.config.parts.len() > 2;
    let language = Family::of_part(&weights.config.parts[1]);
    Ok(Box::new(MiniGpt4 {
        vision: weights.part(0, vit)?,
        qformer: if has_qformer { Some(weights.part(2, qformer)?) } else { None },
        projection: weights.linear(&["mm.proj"], 0)?,
        language: weights.part(1, language.build)?,
        n_rows: weights.config.own_size("R"),
    }))
}

impl Network for MiniGpt4 {
    fn blocks(&self, tokens: &[u32], pass: &Pass, cache: Option<&mut KvCache>) -> Tensor {
        self.language.blocks(tokens, pass, cache)
    }

    fn before_output(&self, x: &Tensor, pass: &Pass) -> Tensor {
        self.language.before_output(x, pass)
    }

    fn output(&self) -> &Linear {
        self.language.output()
    }

    fn read(&self, source: &SourceTokens, tables: &[(&[u32], usize)], pass: &Pass, cache: &mut KvCache) {
        self.language.read(source, tables, pass, cache);
    }

    fn sight(&self) -> Option<Sight> {
        Some(Sight { n_rows: self.n_rows, ..self.vision.sight()? })
    }

    fn see(&self, planes: &[f32], size: [usize; 2], training: Option<Training>) -> Tensor {
        let n = planes.len() / (3 * size[0] * size[1]);
        let seen = self.vision.see(planes, size, training); // [n·P, E]
        let seen = match &self.qformer {
            Some(qformer) => qformer.forward(seen, n, training), // [n·Q, X]
            None => {
                let n_rows = seen.n_rows() / n.max(1);
                let patches: Vec<usize> = (0..seen.n_rows()).filter(|row| row % n_rows != 0).collect();
                let width = GROUP * seen.row_len();
                rhetor_tensor::ops::rows::rows(&seen, &patches).reshape([patches.len() / GROUP, width])
            }
        };
        let pass = Pass::full(vec![seen.n_rows() / n.max(1); n], Active::All, training);
        self.projection.forward(&seen, &pass) // [n·R, D]
    }
}
