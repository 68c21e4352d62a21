//! CodeGen 1: decoder; attention and feed-forward layer side by side after one layer norm, rotary positions that pair
//! neighbours, biases in the feed-forward and output layers alone: GPT-J with fused queries, values and keys.
//!
//! CodeGen 2.5 is of the family `llama`.
//! Source: CodeGen, arXiv:2203.13474, §2.2, and transformers' `CodeGenModel`.

use rhetor_catalog::{About, Source};
use rhetor_kernels::rope::{RopeOptions, RopeOrder, RopeScaling};

use super::{BASE, Family, Licence, gpt2, published};
use crate::config::{Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;
use crate::names::{Stored, TensorName, name};
use crate::row_order;

pub const CODEGEN: Family = Family {
    about: About {
        name: "codegen",
        summary: "CodeGen 1 from 350M to 16B; CodeGen 2.5 is a llama",
        source: Source::Paper {
            title: "CodeGen: An Open Large Language Model for Code with Multi-Turn Program Synthesis",
            id: "arXiv:2203.13474",
            section: "§2.2",
        },
        options: &[],
    },
    model_type: "codegen",
    architectures: &[("CodeGenForCausalLM", Task::Vocabulary)],
    prefix: "transformer.",
    config,
    tensors: TENSORS,
    build: PreNormBlock::decoder,
    published: &[
        published("codegen-350m", 356_712_448, 2048, Licence::Open),
        published("codegen-2b", 2_779_356_160, 2048, Licence::Open),
        published("codegen-6b", 7_064_213_504, 2048, Licence::Open),
        published("codegen-16b", 16_032_155_648, 2048, Licence::Open),
    ],
    ..BASE
};

const TENSORS: &[TensorName] = &[
    name("token_embd", "wte", "V D"),
    name("blk.{i}.attn_norm", "h.{i}.ln_1", "D").biased(),
    name("blk.{i}.attn_qkv", "h.{i}.attn.qkv_proj", "3*D D").stored(Stored::Rows(row_order::four_blocks)),
    name("blk.{i}.attn_output", "h.{i}.attn.out_proj", "D D").residual(),
    name("blk.{i}.ffn_up", "h.{i}.mlp.fc_in", "F D").biased(),
    name("blk.{i}.ffn_down", "h.{i}.mlp.fc_out", "D F").biased().residual(),
    name("output_norm", "ln_f", "D").biased(),
    name("output", "lm_head", "V D").biased().head(&[Task::Vocabulary]),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let gpt2 = gpt2::config(keys)?;
    if gpt2.n_heads % 4 != 0 {
        return Err(keys.refuse("", "n_head", gpt2.n_heads, "a multiple of 4, the blocks of its layers"));
    }
    if keys.switch_or("tie_word_embeddings", false)? {
        let expected = "false: the output layer has a bias of its own";
        return Err(keys.refuse("", "tie_word_embeddings", true, expected));
    }
    let rotary_dim = keys.size_or("", "rotary_dim", 64)?;
    if rotary_dim % 2 != 0 || rotary_dim > gpt2.head_dim {
        let expected = format!("an even number up to {}, the width of a head", gpt2.head_dim);
        return Err(keys.refuse("", "rotary_dim", rotary_dim, &expected));
    }
    let rope = RopeOptions {
        theta: 10_000.0,
        rotary_dim,
        order: RopeOrder::Interleaved,
        context: gpt2.context_len,
        scaling: RopeScaling::None,
    };
    Ok(ModelConfig { family: "codegen", position_len: 0, rope: Some(rope), tied: false, ..gpt2 })
}
