//! The encoder of T5 alone: hidden states of all rows, or CodeT5+'s embedding of code and text.
//!
//! The embedding is a linear layer over each row and a division by the length of what comes out; it is meant of the first
//! row. Source: T5, arXiv:1910.10683, section 2.1; CodeT5+, arXiv:2305.07922, section 3, and the code beside its weights.

use rhetor_catalog::{About, Source};
use rhetor_tensor::{Tensor, Vector};

use super::{BASE, Family, Licence, Published, t5};
use crate::config::{Keys, ModelConfig};
use crate::head::Task;
use crate::kv_cache::KvCache;
use crate::layers::{Entrance, Linear, NormPlace, Pass, RmsNorm, Stack, StackOptions};
use crate::load::{LoadError, Weights};
use crate::model::Network;

pub const T5_ENCODER: Family = Family {
    about: About {
        name: "t5encoder",
        summary: "the encoder of T5, and CodeT5+ where it embeds code and text",
        source: Source::Paper {
            title: "CodeT5+: Open Code Large Language Models for Code Understanding and Generation",
            id: "arXiv:2305.07922",
            section: "§3",
        },
        options: &[],
    },
    gguf: "t5encoder",
    gguf_task: Task::Hidden,
    model_type: "codet5p_embedding",
    architectures: &[("T5EncoderModel", Task::Hidden), ("CodeT5pEmbeddingModel", Task::Hidden)],
    config,
    keys: t5::keys,
    tensors: t5::TENSORS,
    other_names: t5::T5.other_names,
    build,
    published: &[Published {
        name: "codet5p-110m-embedding",
        n_parameters: 109_806_208,
        context_len: 512,
        licence: Licence::Open,
    }],
    ..BASE
};

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let mut config = t5::config(keys)?;
    let embed = if keys.speaks_gguf() { None } else { keys.size_opt("", "embed_dim")? };
    for (name, value) in &mut config.own {
        match *name {
            "decoder" => *value = 0.0,
            "embed" => *value = embed.unwrap_or(0) as f64,
            _ => {}
        }
    }
    let n_layers = config.n_encoder_layers;
    Ok(ModelConfig { family: "t5encoder", is_encoder: true, n_layers, decoder_start: None, ..config })
}

struct T5Encoder {
    entrance: Entrance,
    stack: Stack,
    /// [embed, D], and what makes each row one of length 1.
    embedding: Option<(Linear, RmsNorm)>,
    output: Linear,
}

fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    let token_embd = weights.embedding("token_embd")?;
    let config = weights.config;
    let max_distance = Some(config.own_size("max distance"));
    let options =
        StackOptions { side: "enc", n_blocks: config.n_layers, norms: NormPlace::Before, max_distance };
    let stack = Stack::load(weights, options)?;
    let embedding = match config.own_size("embed") {
        0 => None,
        // The length is the root of the mean square, times the root of how many they are.
        n => {
            let weight = Vector::Fixed(Tensor::from_vec(vec![(n as f32).powf(-0.5); n], [n]));
            Some((weights.linear(&["embedding_output"], 0)?, RmsNorm { weight, eps: 1e-24 }))
        }
    };
    let output = weights.output(&token_embd)?;
    let entrance = Entrance { token_embd, scale: 1.0, has_waves: false };
    Ok(Box::new(T5Encoder { entrance, stack, embedding, output }))
}

impl Network for T5Encoder {
    fn blocks(&self, tokens: &[u32], pass: &Pass, _cache: Option<&mut KvCache>) -> Tensor {
        self.stack.forward(self.entrance.forward(tokens, pass), pass, None)
    }

    fn before_output(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let x = self.stack.normed(x.clone()); // [N, D]
        match &self.embedding {
            Some((linear, norm)) => norm.forward(&linear.forward(&x, pass)), // [N, embed]
            None => x,
        }
    }

    fn output(&self) -> &Linear {
        &self.output
    }
}
