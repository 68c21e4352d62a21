//! GPTBigCode: GPT-2 with one key and one value for all heads (multi-query attention), or with one for each.
//!
//! StarCoder from 1B to 15B, and SantaCoder. Linear layers are stored `[out, in]`, as GPT-2's are not.
//! Source: StarCoder, arXiv:2305.06161, §5.2; multi-query attention, arXiv:1911.02150, §3.

use rhetor_catalog::{About, Source};

use super::{BASE, Family, Licence, gpt2, published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;
use crate::names::{Stored, TensorName, name};
use crate::row_order;

pub const GPT_BIGCODE: Family = Family {
    about: About {
        name: "gpt-bigcode",
        summary: "GPT-2 with one key for all heads: StarCoder from 1B to 15B, SantaCoder",
        source: Source::Paper {
            title: "StarCoder: may the source be with you!",
            id: "arXiv:2305.06161",
            section: "§5.2",
        },
        options: &[],
    },
    gguf: "starcoder",
    model_type: "gpt_bigcode",
    architectures: &[
        ("GPTBigCodeForCausalLM", Task::Vocabulary),
        ("GPTBigCodeForSequenceClassification", Task::Sequence),
        ("GPTBigCodeForTokenClassification", Task::Tokens),
    ],
    prefix: "transformer.",
    config,
    keys,
    tensors: TENSORS,
    build: PreNormBlock::decoder,
    published: &[
        published("santacoder", 1_124_886_528, 2048, Licence::Restricted),
        published("starcoderbase-1b", 1_137_207_296, 8192, Licence::Restricted),
        published("starcoderbase-3b", 3_043_311_104, 8192, Licence::Restricted),
        published("starcoderbase-7b", 7_327_263_232, 8192, Licence::Restricted),
        published("starcoder", 15_517_456_384, 8192, Licence::Restricted),
    ],
    ..BASE
};

const TENSORS: &[TensorName] = &[
    name("token_embd", "wte", "V D"),
    name("position_embd", "wpe", "P D"),
    name("blk.{i}.attn_norm", "h.{i}.ln_1", "D").biased(),
    name("blk.{i}.attn_qkv", "h.{i}.attn.c_attn", "qkv D").stored(Stored::Rows(row_order::groups)).biased(),
    name("blk.{i}.attn_output", "h.{i}.attn.c_proj", "D D").biased().residual(),
    name("blk.{i}.ffn_norm", "h.{i}.ln_2", "D").biased(),
    name("blk.{i}.ffn_up", "h.{i}.mlp.c_fc", "F D").biased(),
    name("blk.{i}.ffn_down", "h.{i}.mlp.c_proj", "D F").biased().residual(),
    name("output_norm", "ln_f", "D").biased(),
    name("output", "lm_head", "V D").head(&[Task::Vocabulary]),
    name("cls.output", "score", "C D").head(&[Task::Sequence]),
    name("cls.output", "classifier", "C D").biased().head(&[Task::Tokens]),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let gpt2 = gpt2::config(keys)?;
    let n_kv_heads = match keys.speaks_gguf() {
        true => keys.size_or("attention.head_count_kv", "", gpt2.n_heads)?,
        false if keys.switch_or("multi_query", true)? => 1,
        false => gpt2.n_heads,
    };
    let qkv = (gpt2.n_heads + 2 * n_kv_heads) * gpt2.head_dim;
    Ok(ModelConfig { family: "gpt-bigcode", n_kv_heads, own: vec![("qkv", qkv as f64)], ..gpt2 })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    let mut keys = gpt2::keys(config);
    keys.push(Key::size("attention.head_count_kv", "", config.n_kv_heads));
    keys.push(Key::new("", "multi_query", config.n_kv_heads == 1));
    keys
}
