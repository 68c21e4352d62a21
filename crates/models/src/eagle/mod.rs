//! EAGLE: a draft head of one layer that guesses a model's next hidden states, and so its next tokens.
//!
//! Sources: EAGLE, arXiv:2401.15077; EAGLE-2, arXiv:2406.16858; EAGLE-3, arXiv:2503.01840; and the files that their
//! authors publish. A head reads, for each position, what the target model has made of it (its feature) and the token
//! that follows. Heads 1 and 2 have the same weights; they differ in the tree that is drafted.
//!
//! The loop that drafts, verifies and accepts is not here: this is the head, and the trees that it proposes.

mod draft_tree;

use rhetor_catalog::{About, Source};
use rhetor_formats::Checkpoint;
use rhetor_kernels::softmax;
use rhetor_tensor::{Tensor, ops};
use std::sync::Arc;

use crate::config::{Keys, ModelConfig};
use crate::families::{BASE, Family, llama_keys};
use crate::kv_cache::KvCache;
use crate::layers::{
    Active, Attention, Block, Embedding, GatedFeedForward, Linear, Pass, PreNormBlock, RmsNorm, SourceTokens,
};
use crate::load::{LoadError, Weights};
use crate::model::{Batch, LoadOptions, Model, SequenceSpan};
use crate::names::{Stored, TensorName, name};

pub use draft_tree::{Draft, DraftOptions, EAGLE_1_TREE, Growth, static_tree};

/// The head of EAGLE 1 and 2. It is no family of its own: without its target it says nothing.
const EAGLE: Family = Family {
    about: About {
        name: "eagle",
        summary: "a draft head on the last hidden states of another model",
        source: Source::Paper { title: "EAGLE", id: "arXiv:2401.15077", section: "§4.1" },
        options: &[],
    },
    config,
    tensors: &[
        name("token_embd", "embed_tokens", "V D"),
        name("fc", "fc", "D 2*D"),
        name("blk.{i}.attn_q", "layers.{i}.self_attn.q_proj", "H*d D").stored(Stored::HeadRows),
        name("blk.{i}.attn_k", "layers.{i}.self_attn.k_proj", "K*d D").stored(Stored::HeadRows),
        name("blk.{i}.attn_v", "layers.{i}.self_attn.v_proj", "K*d D"),
        name("blk.{i}.attn_output", "layers.{i}.self_attn.o_proj", "D H*d"),
        name("blk.{i}.ffn_norm", "layers.{i}.post_attention_layernorm", "D"),
        name("blk.{i}.ffn_gate", "layers.{i}.mlp.gate_proj", "F D"),
        name("blk.{i}.ffn_up", "layers.{i}.mlp.up_proj", "F D"),
        name("blk.{i}.ffn_down", "layers.{i}.mlp.down_proj", "D F"),
    ],
    ..BASE
};

/// The head of EAGLE-3.
const EAGLE_3: Family = Family {
    about: About {
        name: "eagle3",
        summary: "a draft head on three hidden states of another model",
        source: Source::Paper { title: "EAGLE-3", id: "arXiv:2503.01840", section: "§3" },
        options: &[],
    },
    config,
    tensors: EAGLE_3_TENSORS,
    ..BASE
};

const EAGLE_3_TENSORS: &[TensorName] = &[
    name("token_embd", "embed_tokens", "V D"),
    name("fc", "fc", "D features"),
    name("blk.{i}.attn_norm", "midlayer.input_layernorm", "D"),
    name("blk.{i}.hidden_norm", "midlayer.hidden_norm", "D"),
    name("blk.{i}.attn_q", "midlayer.self_attn.q_proj", "H*d 2*D").stored(Stored::HeadRows),
    name("blk.{i}.attn_k", "midlayer.self_attn.k_proj", "K*d 2*D").stored(Stored::HeadRows),
    name("blk.{i}.attn_v", "midlayer.self_attn.v_proj", "K*d 2*D"),
    name("blk.{i}.attn_output", "midlayer.self_attn.o_proj", "D H*d"),
    name("blk.{i}.ffn_norm", "midlayer.post_attention_layernorm", "D"),
    name("blk.{i}.ffn_gate", "midlayer.mlp.gate_proj", "F D"),
    name("blk.{i}.ffn_up", "midlayer.mlp.up_proj", "F D"),
    name("blk.{i}.ffn_down", "midlayer.mlp.down_proj", "D F"),
    name("output_norm", "norm", "D"),
    name("draft_output", "lm_head", "draft_vocab D"),
];

fn config(keys: &Keys) -> Result<ModelConfig, LoadError> {
    let llama = llama_keys(keys, "eagle")?;
    if llama.n_layers != 1 {
        return Err(keys.refuse("", "num_hidden_layers", llama.n_layers, "1"));
    }
    let target = keys.size_or("", "target_hidden_size", llama.hidden_size)?;
    let draft_vocab = keys.size_or("", "draft_vocab_size", llama.vocab_size)?;
    let own = vec![("features", 3.0 * target as f64), ("draft_vocab", draft_vocab as f64)];
    Ok(ModelConfig { own, ..llama })
}

/// The layers whose inputs are EAGLE-3's features in a model of `n_layers`, as depths of
/// [`features`](Model::features).
pub fn feature_depths(n_layers: usize) -> [usize; 3] {
    [2, n_layers / 2, n_layers.saturating_sub(3)]
}

/// A draft head.
pub struct EagleHead {
    config: ModelConfig,
    token_embd: Embedding,
    layer: Layer,
    /// What EAGLE-3 has instead of the target's output layer.
    output: Option<DraftOutput>,
}

enum Layer {
    /// LLaMA's layer without a norm of its input, after a linear layer over token and feature, [D, 2D].
    Fused(Box<FusedLayer>),
    /// A layer whose attention reads token and feature side by side.
    Wide(Box<WideLayer>),
}

/// EAGLE's layer.
struct FusedLayer {
    fc: Linear,
    block: PreNormBlock,
}

/// EAGLE-3's layer.
struct WideLayer {
    /// From the target's three hidden states, [D, 3D'].
    fc: Linear,
    token_norm: RmsNorm,
    feature_norm: RmsNorm,
    attn: Attention,
    ffn_norm: RmsNorm,
    ffn: GatedFeedForward,
}

/// An output layer over some of the target's tokens.
struct DraftOutput {
    norm: RmsNorm,
    /// [draft V, D]
    output: Linear,
    /// What is added to a draft's token to get the target's; empty = they are the same.
    offsets: Vec<i64>,
}

impl EagleHead {
    /// Loads a head in the layout of its authors' files, for `target`, whose embedding it takes where it has none.
    ///
    /// Refused if the tensors do not fit, or if the target's hidden states are of another width.
    pub fn load(checkpoint: &Checkpoint, target: &Model) -> Result<EagleHead, LoadError> {
        let is_wide = checkpoint.tensors().iter().any(|tensor| tensor.name.starts_with("midlayer."));
        let family: &'static Family = if is_wide { &EAGLE_3 } else { &EAGLE };
        let keys = Keys::new(checkpoint, "");
        let config = (family.config)(&keys)?;
        let width = target.config().hidden_size;
        let (key, got) = match is_wide {
            true => ("target_hidden_size", config.own_size("features") / 3),
            false => ("hidden_size", config.hidden_size),
        };
        if got != width {
            return Err(keys.refuse("", key, got, &format!("{width}, the target's width")));
        }
        let mut weights = Weights::new(checkpoint, family, &config, &mut [], LoadOptions::default())?;
        let token_embd = match checkpoint.find("embed_tokens.weight") {
            Some(_) => weights.embedding("token_embd")?,
            None => match target.embedding() {
                Some(shared) if shared.weight.n_in() == config.hidden_size => {
                    Embedding { weight: shared.weight.clone(), hooks: Vec::new() }
                }
                _ => weights.embedding("token_embd")?,
            },
        };
        let fc = weights.linear(&["fc"], 0)?;
        let layer = match is_wide {
            true => Layer::Wide(Box::new(WideLayer::load(&mut weights, fc)?)),
            false => Layer::Fused(Box::new(FusedLayer { fc, block: PreNormBlock::load(&mut weights, 0)? })),
        };
        let output = is_wide.then(|| DraftOutput::load(&mut weights)).transpose()?;
        weights.finish()?;
        Ok(EagleHead { config, token_embd, layer, output })
    }

    /// Sizes and constants; a cache for the head is one of these.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Whether it reads three hidden states ([`feature_depths`]) and not the last one.
    pub fn reads_three(&self) -> bool {
        matches!(self.layer, Layer::Wide(_))
    }

    /// What the head makes of tokens and of the features of the positions before them: its guess at the features of the tokens'
    /// own positions, all rows. features: [T, D], or [T, 3D'] of the target's → [T, D]
    ///
    /// Token i of a sequence stands at the head's position i − 1, since the first has no feature before it.
    pub fn forward(&self, batch: &Batch, features: &Tensor, mut cache: Option<&mut KvCache>) -> Tensor {
        let pass = batch.pass(&self.config, cache.is_some(), None);
        let pages = cache.as_mut().map(|cache| cache.layer(0));
        let tokens = self.token_embd.forward(&batch.tokens, &pass); // [T, D]
        match &self.layer {
            Layer::Fused(layer) => {
                let x = layer.fc.forward(&beside(&tokens, features), &pass);
                layer.block.forward(x, &pass, pages)
            }
            Layer::Wide(layer) => {
                let is_own = features.row_len() == self.config.hidden_size;
                let features = if is_own { features.clone() } else { layer.fc.forward(features, &pass) };
                layer.forward(&tokens, features, &pass, pages)
            }
        }
    }

    /// Logits of what follows, over the [draft's tokens](EagleHead::token_of). `output` is the target's output layer,
    /// of which heads 1 and 2 make use. hidden: [N, D] → [N, V]
    pub fn logits(&self, hidden: &Tensor, output: &Linear) -> Tensor {
        let pass = SourceTokens::default().pass(Active::All, None);
        match &self.output {
            Some(own) => own.output.forward(&own.norm.forward(hidden), &pass),
            None => output.forward(hidden, &pass),
        }
    }

    /// The target's token that column `column` of the logits stands for.
    pub fn token_of(&self, column: usize) -> u32 {
        let offsets = self.output.as_ref().map_or(&[][..], |own| &own.offsets);
        let offset = offsets.get(column).copied().unwrap_or(0);
        (column as i64 + offset) as u32
    }

    /// Drafts what may follow a sequence whose last token is `batch`'s last. `batch` is one sequence's span of tokens that the
    /// head has not read yet, each with the feature before it. The head's cache keeps these tokens, and nothing of the draft.
    ///
    /// At each depth all nodes above it are computed again, so that no key of a draft need be kept in its place; the span's
    /// pages must have room for `depth · top_k` tokens more.
    pub fn draft(
        &self,
        batch: &Batch,
        features: &Tensor,
        output: &Linear,
        options: DraftOptions,
        cache: &mut KvCache,
    ) -> Draft {
        let [span] = &batch.spans[..] else { panic!("{} sequences to draft for", batch.spans.len()) };
        let last = *batch.tokens.last().expect("a sequence has a last token");
        let hidden = self.forward(batch, features, Some(cache));
        let hidden = ops::rows::rows(&hidden, &[hidden.n_rows() - 1]); // [1, D]
        let mut growth = Growth::new(last, options);
        self.grow(&mut growth, &hidden, output);
        let mut guesses = hidden.clone(); // Of the root, then of every open node.
        while !growth.is_grown() {
            let (tokens, tree, n_new) = growth.open();
            let n = tokens.len();
            let above = tree.parents().iter().map(|parent| parent.map_or(0, |parent| parent + 1));
            let features = ops::rows::rows(&guesses, &above.collect::<Vec<_>>());
            let start = span.start + span.len;
            let span = SequenceSpan { start, len: n, tree: Some(Arc::new(tree)), ..span.clone() };
            let level =
                Batch { tokens, spans: vec![span], adapters: batch.adapters.clone(), ..Batch::default() };
            let made = self.forward(&level, &features, Some(cache)); // [n, D]
            let rows = (0..n + 1).map(|i| if i == 0 { hidden.row(0) } else { made.row(i - 1) });
            guesses = Tensor::from_vec(rows.flatten().copied().collect(), [n + 1, hidden.row_len()]);
            let frontier: Vec<usize> = (n - n_new..n).collect();
            self.grow(&mut growth, &ops::rows::rows(&made, &frontier), output);
        }
        growth.finish()
    }

    fn grow(&self, growth: &mut Growth, hidden: &Tensor, output: &Linear) {
        let logits = self.logits(hidden, output);
        let vocab_size = logits.row_len();
        let mut log_probs = logits.data().to_vec();
        softmax::log_softmax(&mut log_probs, vocab_size);
        growth.grow(&log_probs, vocab_size, |column| self.token_of(column));
    }
}

impl WideLayer {
    fn load(weights: &mut Weights, fc: Linear) -> Result<WideLayer, LoadError> {
        let qkv = &["blk.{i}.attn_q", "blk.{i}.attn_k", "blk.{i}.attn_v"];
        Ok(WideLayer {
            fc,
            token_norm: weights.rms_norm("blk.{i}.attn_norm", 0)?,
            feature_norm: weights.rms_norm("blk.{i}.hidden_norm", 0)?,
            attn: weights.attention(qkv, "blk.{i}.attn_output", 0)?,
            ffn_norm: weights.rms_norm("blk.{i}.ffn_norm", 0)?,
            ffn: GatedFeedForward {
                gate_up: weights.linear(&["blk.{i}.ffn_gate", "blk.{i}.ffn_up"], 0)?,
                down: weights.linear(&["blk.{i}.ffn_down"], 0)?,
                activation: weights.config.activation,
            },
        })
    }

    /// tokens, features: [T, D] → [T, D]
    fn forward(
        &self,
        tokens: &Tensor,
        features: Tensor,
        pass: &Pass,
        pages: Option<&mut rhetor_kernels::kv::KvPages>,
    ) -> Tensor {
        let wide = beside(&self.token_norm.forward(tokens), &self.feature_norm.forward(&features)); // [T, 2D]
        let x = self.attn.forward(&wide, pass, pages) + features;
        self.ffn.forward(&self.ffn_norm.forward(&x), pass) + x
    }
}

impl DraftOutput {
    fn load(weights: &mut Weights) -> Result<DraftOutput, LoadError> {
        let n_draft = weights.config.own_size("draft_vocab");
        let offsets = weights.integers("d2t", n_draft)?.unwrap_or_default();
        let vocab_size = weights.config.vocab_size as i64;
        let is_outside = |(i, offset): (i64, &i64)| !(0..vocab_size).contains(&i.saturating_add(*offset));
        if let Some(at) = (0i64..).zip(&offsets).position(is_outside) {
            let expected = format!("token ids below {vocab_size}");
            return Err(weights.keys().refuse("", "d2t", format!("{} at {at}", offsets[at]), &expected));
        }
        weights.pass_over("t2d");
        Ok(DraftOutput {
            norm: weights.rms_norm("output_norm", 0)?,
            output: weights.linear(&["draft_output"], 0)?,
            offsets,
        })
    }
}

/// [T, A] and [T, B] → [T, A + B]
fn beside(a: &Tensor, b: &Tensor) -> Tensor {
    let (n_rows, width) = (a.n_rows(), a.row_len());
    let both = Tensor::build([n_rows, width + b.row_len()], |both| both.fill(0.0));
    ops::columns::add_columns(ops::columns::add_columns(both, 0, a, 1.0), width, b, 1.0)
}
