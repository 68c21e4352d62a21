//! Mixtral: LLaMA's block whose feed-forward layer is a sparse mixture of experts; each row is read by two of eight.
//!
//! Source: Mixtral of Experts, arXiv:2401.04088, §2. GGUF files call it `llama`, with a number of experts. The first
//! of them held each expert in tensors of its own, later ones stack those of a layer; Hugging Face's files know both ways.

use rhetor_catalog::{About, Source};
use rhetor_kernels::rope::RopeOrder;

use super::llama_kin::{Kin, LLAMA};
use super::{BASE, Family, Licence, Published};
use crate::config::{Key, Keys, ModelConfig};
use crate::head::Task;
use crate::layers::PreNormBlock;
use crate::load::LoadError;
use crate::names::{Stored, TensorName, name};
use crate::places::Stack;

pub const MIXTRAL: Family = Family {
    about: About {
        name: "mixtral",
        summary: "Mixtral 8x7B: LLaMA's block with a sparse mixture of experts, two of which read each token",
        source: Source::Paper { title: "Mixtral of Experts", id: "arXiv:2401.04088", section: "§2" },
        options: &[],
    },
    gguf: "llama",
    model_type: "mixtral",
    architectures: &[
        ("MixtralForCausalLM", Task::Vocabulary),
        ("MixtralForSequenceClassification", Task::Sequence),
        ("MixtralForTokenClassification", Task::Tokens),
    ],
    prefix: "model.",
    config,
    keys,
    tensors: TENSORS,
    // As transformers 5 calls the router in memory.
    other_names: |name| match name.contains(".block_sparse_moe.gate.") {
        true => vec![name.replace(".block_sparse_moe.", ".mlp.")],
        false => Vec::new(),
    },
    build: PreNormBlock::decoder,
    is_told_by: |keys| Ok(keys.size_opt("expert_count", "num_local_experts")?.is_some_and(|n| n > 0)),
    published: &[Published {
        name: "Mixtral-8x7B-v0.1",
        n_parameters: 46_702_792_704,
        context_len: 32_768,
        licence: Licence::Open,
    }],
    ..BASE
};

const TENSORS: &[TensorName] = &[
    name("token_embd", "embed_tokens", "V D"),
    name("blk.{i}.attn_norm", "layers.{i}.input_layernorm", "D"),
    name("blk.{i}.attn_q", "layers.{i}.self_attn.q_proj", "H*d D").stored(Stored::HeadRows),
    name("blk.{i}.attn_k", "layers.{i}.self_attn.k_proj", "K*d D").stored(Stored::HeadRows),
    name("blk.{i}.attn_v", "layers.{i}.self_attn.v_proj", "K*d D"),
    name("blk.{i}.attn_output", "layers.{i}.self_attn.o_proj", "D H*d"),
    name("blk.{i}.ffn_norm", "layers.{i}.post_attention_layernorm", "D"),
    name("blk.{i}.ffn_gate_inp", "layers.{i}.block_sparse_moe.gate", "experts D").exact(),
    name("blk.{i}.ffn_gate.{e}", "layers.{i}.block_sparse_moe.experts.{e}.w1", "F D").stacked(&[
        Stack::gguf("blk.{i}.ffn_gate_exps.weight"),
        Stack::hugging_face("layers.{i}.mlp.experts.gate_up_proj", 0, 2),
    ]),
    name("blk.{i}.ffn_up.{e}", "layers.{i}.block_sparse_moe.experts.{e}.w3", "F D").stacked(&[
        Stack::gguf("blk.{i}.ffn_up_exps.weight"),
        Stack::hugging_face("layers.{i}.mlp.experts.gate_up_proj", 1, 2),
    ]),
    name("blk.{i}.ffn_down.{e}", "layers.{i}.block_sparse_moe.experts.{e}.w2", "D F").stacked(&[
        Stack::gguf("blk.{i}.ffn_down_exps.weight"),
        Stack::hugging_face("layers.{i}.mlp.experts.down_proj", 0, 1),
    ]),
    name("output_norm", "norm", "D"),
    name("output", "lm_head", "V D").head(&[Task::Vocabulary]),
    name("cls.output", "score", "C D").head(&[Task::Sequence]),
    name("cls.output", "score", "C D").biased().head(&[Task::Tokens]),
];

const KIN: Kin = Kin { family: "mixtral", norm_eps: 1e-5, ..LLAMA };

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let llama = KIN.config(keys)?;
    let n_experts = keys.size_or("expert_count", "num_local_experts", 8)?;
    let n_used = keys.size_or("expert_used_count", "num_experts_per_tok", 2)?;
    if n_used > n_experts {
        let expected = format!("at most {n_experts}, the number of experts");
        return Err(keys.refuse("expert_used_count", "num_experts_per_tok", n_used, &expected));
    }
    let is_balanced = keys.switch_or("output_router_logits", false)?;
    let balance = keys.number_opt("", "router_aux_loss_coef")?.unwrap_or(0.001);
    let jitter = keys.number_opt("", "router_jitter_noise")?.unwrap_or(0.0);
    if !(0.0..=1.0).contains(&jitter) {
        return Err(keys.refuse("", "router_jitter_noise", jitter, "from 0 to 1"));
    }
    let n_kv_heads = keys.size_or("attention.head_count_kv", "num_key_value_heads", 8.min(llama.n_heads))?;
    Ok(ModelConfig {
        n_kv_heads: if keys.speaks_gguf() { llama.n_kv_heads } else { n_kv_heads },
        window: keys.window_opt()?,
        rope: Some(keys.rope(llama.head_dim, RopeOrder::Interleaved, 1_000_000.0)?),
        own: vec![
            ("experts", n_experts as f64),
            ("experts_used", n_used as f64),
            ("train.balance", if is_balanced { f64::from(balance) } else { 0.0 }),
            // Our own key: transformers balances all layers at once, which leaves each free to prefer some of its experts.
            (
                "train.balance_per_layer",
                f64::from(u8::from(keys.switch_or("router_aux_loss_per_layer", false)?)),
            ),
            ("train.jitter", f64::from(jitter)),
        ],
        ..llama
    })
}

fn keys(config: &ModelConfig) -> Vec<Key> {
    let mut keys = KIN.keys(config);
    keys.push(Key::size("expert_count", "num_local_experts", config.own_size("experts")));
    keys.push(Key::size("expert_used_count", "num_experts_per_tok", config.own_size("experts_used")));
    keys
}
