//! The network of encoders: embeddings with a norm of their own, blocks whose norms come after, and a head.
//!
//! Source: BERT, arXiv:1810.04805, section 3; the block is that of arXiv:1706.03762, section 3.1.

use rhetor_kernels::activation::Activation;
use rhetor_kernels::kv::KvPages;
use rhetor_tensor::{Tensor, ops, tape};
use std::sync::Arc;

use super::{Attention, Block, Embedding, FeedForward, Keep, LayerNorm, Linear, Pass};
use crate::head::Task;
use crate::kv_cache::KvCache;
use crate::load::{LoadError, Weights};
use crate::model::Network;

/// A stack of blocks whose rows all see each other, between embeddings and a head.
pub struct Encoder {
    /// [V, E], where E is D unless the embedding is factorised.
    pub token_embd: Embedding,
    /// [P, E]
    pub position_embd: Embedding,
    /// The row of `position_embd` that the first token has.
    pub first_position: usize,
    /// [S, E], if texts have segments.
    pub token_types: Option<Embedding>,
    /// Of the sum of the embeddings. [E]
    pub embd_norm: LayerNorm,
    /// [D, E], if the embedding is factorised (arXiv:1909.11942, section 3.1).
    pub projection: Option<Linear>,
    /// The blocks, first to last; blocks that share their weights are one.
    pub blocks: Vec<Arc<dyn Block>>,
    /// What stands between the blocks and the output layer.
    pub transform: Option<Transform>,
    /// [V, E] or [C, D]
    pub output: Linear,
}

/// `norm(act(dense x))`: BERT's pooler, the first layer of a classifier, or what precedes the table of embeddings.
pub struct Transform {
    /// [D, D], or [E, D]
    pub dense: Linear,
    /// The non-linearity.
    pub activation: Activation,
    /// Only before the output over the vocabulary.
    pub norm: Option<LayerNorm>,
}

/// `x + attention`, norm, `x + feed-forward`, norm: arXiv:1706.03762, section 3.1.
pub struct PostNormBlock {
    /// Attention.
    pub attn: Attention,
    /// After attention was added.
    pub attn_norm: LayerNorm,
    /// The feed-forward layer.
    pub ffn: FeedForward,
    /// After it was added.
    pub ffn_norm: LayerNorm,
}

impl PostNormBlock {
    /// Block `i`, under GGUF's names for BERT.
    pub fn load(weights: &mut Weights, i: usize) -> Result<PostNormBlock, LoadError> {
        let qkv: &[&str] = match weights.has("blk.{i}.attn_qkv") {
            true => &["blk.{i}.attn_qkv"],
            false => &["blk.{i}.attn_q", "blk.{i}.attn_k", "blk.{i}.attn_v"],
        };
        Ok(PostNormBlock {
            attn: weights.attention(qkv, "blk.{i}.attn_output", i)?,
            attn_norm: weights.layer_norm("blk.{i}.attn_output_norm", i)?,
            ffn: FeedForward {
                up: weights.linear(&["blk.{i}.ffn_up"], i)?,
                down: weights.linear(&["blk.{i}.ffn_down"], i)?,
                activation: weights.config.activation,
            },
            ffn_norm: weights.layer_norm("blk.{i}.layer_output_norm", i)?,
        })
    }
}

impl Encoder {
    /// Loads what the family's table has, under GGUF's names for BERT. Where the family has groups of layers (`G`), one
    /// block stands for all layers of a group. `activation` is that of the pooler, or of the first layer of a head.
    pub fn load(weights: &mut Weights, activation: Activation) -> Result<Box<dyn Network>, LoadError> {
        let config = weights.config;
        let n_blocks = config.own_opt("G").map_or(config.n_layers, |n_groups| n_groups as usize);
        let token_embd = weights.embedding("token_embd")?;
        let position_embd = weights.embedding("position_embd")?;
        let has_segments = weights.has("token_types") && config.n_segments > 0;
        let token_types = if has_segments { Some(weights.embedding("token_types")?) } else { None };
        let embd_norm = weights.layer_norm("token_embd_norm", 0)?;
        let is_factorised = weights.has("embd_projection");
        let projection = if is_factorised { Some(weights.linear(&["embd_projection"], 0)?) } else { None };
        let different = (0..n_blocks)
            .map(|i| Ok(Arc::new(PostNormBlock::load(weights, i)?) as Arc<dyn Block>))
            .collect::<Result<Vec<_>, LoadError>>()?;
        // Layer i is of group ⌊i / (L / G)⌋, as transformers divides them.
        let blocks =
            (0..config.n_layers).map(|i| different[i * n_blocks / config.n_layers].clone()).collect();
        let transform = if weights.has("cls") {
            Some(Transform { dense: weights.linear(&["cls"], 0)?, activation, norm: None })
        } else if weights.has("output_transform") {
            let dense = weights.linear(&["output_transform"], 0)?;
            let norm = Some(weights.layer_norm("output_norm", 0)?);
            Some(Transform { dense, activation, norm })
        } else {
            None
        };
        let mut output = weights.output(&token_embd)?;
        if config.head.task == Task::Vocabulary {
            let bias = weights.required_vector("output_bias", 0, ".bias")?;
            if output.bias.is_empty() {
                output.bias.push(bias);
            }
        }
        Ok(Box::new(Encoder {
            token_embd,
            position_embd,
            first_position: config.position_len - config.context_len,
            token_types,
            embd_norm,
            projection,
            blocks,
            transform,
            output,
        }))
    }
}

impl Block for PostNormBlock {
    fn forward(&self, x: Tensor, pass: &Pass, cache: Option<&mut KvPages>) -> Tensor {
        let x = self.attn_norm.forward(&(self.attn.forward(&x, pass, cache) + x));
        self.ffn_norm.forward(&(self.ffn.forward(&x, pass) + x))
    }
}

impl Network for Encoder {
    fn blocks(&self, tokens: &[u32], pass: &Pass, cache: Option<&mut KvCache>) -> Tensor {
        assert!(cache.is_none(), "an encoder has no cache");
        let position = |&position: &usize| (self.first_position + position) as u32;
        let positions: Vec<u32> = pass.of_row.iter().map(position).collect();
        let mut x = self.token_embd.forward(tokens, pass) + self.position_embd.forward(&positions, pass);
        if let Some(table) = &self.token_types {
            // A table of one row has it for all.
            let last = table.weight.n_out() as u32 - 1;
            let mut segments: Vec<u32> = pass.segments.iter().map(|&s| u32::from(s).min(last)).collect();
            segments.resize(tokens.len(), 0);
            x = x + table.forward(&segments, pass);
        }
        let mut x = self.embd_norm.forward(&x); // [T, E]
        if let Some(projection) = &self.projection {
            x = projection.forward(&x, pass); // [T, D]
        }
        let forgets = pass.training.is_some_and(|training| training.keep == Keep::Blocks);
        for block in &self.blocks {
            x = if forgets && tape::is_recording() {
                let (block, pass) = (block.clone(), pass.to_owned());
                tape::checkpoint(x, move |x| block.forward(x, &pass, None))
            } else {
                block.forward(x, pass, None)
            };
        }
        x
    }

    fn before_output(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let Some(Transform { dense, activation, norm }) = &self.transform else { return x.clone() };
        let x = ops::activation::activation(dense.forward(x, pass), *activation);
        match norm {
            Some(norm) => norm.forward(&x),
            None => x,
        }
    }

    fn output(&self) -> &Linear {
        &self.output
    }
}
