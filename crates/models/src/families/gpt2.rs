//! GPT-2: decoder; layer norms before each sublayer, learned positions, biases everywhere, tied output.
//!
//! Sizes from 124M to 1.5B, Cerebras-GPT's and GPT-3's ([`crate::presets`]), which only differ in numbers. GPT-3's layers
//! also alternate dense and locally banded sparse attention (arXiv:2005.14165, §2.1): our own key `attention_pattern` is a
//! list of `dense` and `local` that repeats over the layers, and a token of a local layer sees the last `attention_band`
//! tokens, itself included. What pattern OpenAI took is not known.
//! Source: Language Models are Unsupervised Multitask Learners (2019), §2.3, and the published code.

use rhetor_catalog::{About, Source};

use super::llama_kin::LAYERS_MAX;
use super::{BASE, Family, Licence, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;
use crate::names::{Stored, TensorName, name};

pub const GPT2: Family = Family {
    about: About {
        name: "gpt2",
        summary: "GPT-2 from 124M to 1.5B, and models of its shape",
        source: Source::Paper {
            title: "Language Models are Unsupervised Multitask Learners",
            id: "OpenAI 2019",
            section: "§2.3",
        },
        options: &[],
    },
    gguf: "gpt2",
    model_type: "gpt2",
    architectures: &[
        ("GPT2LMHeadModel", Task::Vocabulary),
        ("GPT2ForSequenceClassification", Task::Sequence),
        ("GPT2ForTokenClassification", Task::Tokens),
        ("GPT2ForQuestionAnswering", Task::Span),
    ],
    prefix: "transformer.",
    config,
    keys,
    tensors: TENSORS,
    build: PreNormBlock::decoder,
    published: &[
        published("gpt2", 124_439_808, 1024, Licence::Open),
        published("gpt2-medium", 354_823_168, 1024, Licence::Open),
        published("gpt2-large", 774_030_080, 1024, Licence::Open),
        published("gpt2-xl", 1_557_611_200, 1024, Licence::Open),
        published("gpt3-125m", 125_226_240, 2048, Licence::Unpublished),
        published("gpt3-350m", 355_871_744, 2048, Licence::Unpublished),
        published("gpt3-760m", 760_300_032, 2048, Licence::Unpublished),
        published("gpt3-1.3b", 1_315_723_264, 2048, Licence::Unpublished),
        published("gpt3-2.7b", 2_651_553_280, 2048, Licence::Unpublished),
        published("gpt3-6.7b", 6_658_404_352, 2048, Licence::Unpublished),
        published("gpt3-13b", 12_853_386_240, 2048, Licence::Unpublished),
        published("gpt3-175b", 174_604_259_328, 2048, Licence::Unpublished),
    ],
    ..BASE
};

const TENSORS: &[TensorName] = &[
    name("token_embd", "wte", "V D"),
    name("position_embd", "wpe", "P D"),
    name("blk.{i}.attn_norm", "h.{i}.ln_1", "D").biased(),
    name("blk.{i}.attn_qkv", "h.{i}.attn.c_attn", "3*D D").stored(Stored::Transposed).biased(),
    name("blk.{i}.attn_output", "h.{i}.attn.c_proj", "D D").stored(Stored::Transposed).biased().residual(),
    name("blk.{i}.ffn_norm", "h.{i}.ln_2", "D").biased(),
    name("blk.{i}.ffn_up", "h.{i}.mlp.c_fc", "F D").stored(Stored::Transposed).biased(),
    name("blk.{i}.ffn_down", "h.{i}.mlp.c_proj", "D F").stored(Stored::Transposed).biased().residual(),
    name("output_norm", "ln_f", "D").biased(),
    name("output", "lm_head", "V D").head(&[Task::Vocabulary]),
    name("cls.output", "score", "C D").head(&[Task::Sequence]),
    name("cls.output", "classifier", "C D").biased().head(&[Task::Tokens]),
    name("cls.output", "qa_outputs", "C D").biased().head(&[Task::Span]),
];

pub(super) fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let hidden_size = keys.size("embedding_length", "n_embd")?;
    let n_heads = keys.size("attention.head_count", "n_head")?;
    let head_dim = keys.head_dim(hidden_size, n_heads, "attention.head_count", "n_head")?;
    let context_len = keys.size("context_length", "n_positions")?;
    let scales = keys.switch_or("scale_attn_weights", true)?;
    let n_layers = keys.size("block_count", "n_layer")?;
    Ok(ModelConfig {
        family: "gpt2",
        vocab_size: keys.vocab_size()?,
        hidden_size,
        n_layers,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        ffn_size: keys.size_or("feed_forward_length", "n_inner", 4 * hidden_size)?,
        context_len,
        position_len: context_len,
        norm_eps: keys.number_or("attention.layer_norm_epsilon", "layer_norm_epsilon", 1e-5)?,
        activation: keys.activation("activation_function", "gelu_new")?,
        attention_scale: if scales { (head_dim as f32).powf(-0.5) } else { 1.0 },
        attention_scale_by_layer: keys.switch_or("scale_attn_by_inverse_layer_idx", false)?,
        layer_windows: windows(keys, n_layers)?,
        tied: true,
        ..ModelConfig::default()
    })
}

/// The window of each layer, if the file has a pattern of them.
fn windows(keys: &Keys, n_layers: usize) -> Result<Vec<Option<usize>>, LoadError> {
    let pattern = keys.words_opt("attention_pattern")?.unwrap_or_default();
    if pattern.is_empty() {
        return Ok(Vec::new());
    }
    if n_layers > LAYERS_MAX {
        return Err(keys.refuse("block_count", "n_layer", n_layers, &format!("at most {LAYERS_MAX}")));
    }
    let band = keys.size_or("", "attention_band", 256)?;
    let window = |word: &String| match word.as_str() {
        "dense" => Ok(None),
        "local" => Ok(Some(band)),
        _ => Err(keys.refuse("", "attention_pattern", word, "a list of dense and local")),
    };
    pattern.iter().map(window).cycle().take(n_layers).collect()
}

pub(super) fn keys(config: &ModelConfig) -> Vec<Key> {
    let scales = config.attention_scale != 1.0;
    vec![
        Key::size("vocab_size", "vocab_size", config.vocab_size),
        Key::size("embedding_length", "n_embd", config.hidden_size),
        Key::size("block_count", "n_layer", config.n_layers),
        Key::size("feed_forward_length", "n_inner", config.ffn_size),
        Key::size("attention.head_count", "n_head", config.n_heads),
        Key::size("context_length", "n_positions", config.context_len),
        Key::new("attention.layer_norm_epsilon", "layer_norm_epsilon", config.norm_eps),
        Key::new("", "activation_function", "gelu_new"),
        Key::new("", "scale_attn_weights", scales),
        Key::new("", "scale_attn_by_inverse_layer_idx", config.attention_scale_by_layer),
    ]
}
