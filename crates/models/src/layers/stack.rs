//! Stacks of blocks as encoder-decoders have them: an encoder's, and a decoder's that attends to what the encoder made.

use rhetor_kernels::kv::KvPages;
use rhetor_tensor::ops::scored_attention::Scores;
use rhetor_tensor::{Tensor, tape};
use std::borrow::Cow;
use std::sync::Arc;

use super::{
    Attention, CrossAttention, FeedForward, GatedFeedForward, Keep, Norm, Pass, RelativePositions, Sees,
    Source, Sublayer,
};
use crate::kv_cache::KvCache;
use crate::load::{LoadError, Weights};

/// Where the norm of a sublayer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlace {
    /// x + f(norm x), arXiv:1910.10683, section 2.1.
    Before,
    /// norm(x + f(x)), arXiv:1706.03762, section 3.1.
    After,
}

/// One block: attention, attention to the source if it is a decoder's, and a feed-forward layer, each beside the residual
/// stream with its norm.
pub struct StackBlock {
    /// Inside the sequence.
    pub attn: Attention,
    /// Of `attn`.
    pub attn_norm: Norm,
    /// To the source, with its norm.
    pub cross: Option<(CrossAttention, Norm)>,
    /// The last sublayer.
    pub ffn: Box<dyn Sublayer>,
    /// Of `ffn`.
    pub ffn_norm: Norm,
    /// Where all three norms stand.
    pub norms: NormPlace,
}

impl StackBlock {
    /// x: [T, D] → [T, D]; `cache` is the block's own pages, and those of the sources.
    pub fn forward(
        &self,
        x: Tensor,
        pass: &Pass,
        scores: &Scores,
        cache: Option<(&mut KvPages, &KvPages)>,
    ) -> Tensor {
        let (own, source) = cache.map_or((None, None), |(own, source)| (Some(own), Some(source)));
        let mut x = self.sublayer(x, &self.attn_norm, |x| self.attn.forward_scored(x, pass, own, scores));
        if let Some((cross, norm)) = &self.cross {
            x = self.sublayer(x, norm, |x| cross.forward(x, pass, source));
        }
        self.sublayer(x, &self.ffn_norm, |x| self.ffn.forward(x, pass))
    }

    fn sublayer(&self, x: Tensor, norm: &Norm, f: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        match self.norms {
            NormPlace::Before => f(&norm.forward(&x)) + x,
            NormPlace::After => norm.forward(&(f(&x) + x)),
        }
    }
}

/// Blocks, first to last.
pub struct Stack {
    /// The blocks.
    pub blocks: Vec<Arc<StackBlock>>,
    /// Biases that all of them add to the scores inside the sequence.
    pub relative: Option<RelativePositions>,
    /// After the last block.
    pub norm: Option<Norm>,
}

impl Stack {
    /// x: [T, D] → [T, D], before [`normed`](Stack::normed). A decoder's source is in `pass`.
    pub fn forward(&self, mut x: Tensor, pass: &Pass, mut cache: Option<&mut KvCache>) -> Tensor {
        let scores = self.relative.as_ref().map_or_else(Scores::default, |relative| relative.scores(pass));
        let forgets = pass.training.is_some_and(|training| training.keep == Keep::Blocks);
        for (i, block) in self.blocks.iter().enumerate() {
            x = if forgets && tape::is_recording() && cache.is_none() {
                checkpoint(block.clone(), x, pass, &scores)
            } else {
                block.forward(x, pass, &scores, cache.as_mut().map(|cache| cache.layer_and_source(i)))
            };
        }
        x
    }

    /// The norm after the last block, if there is one. x: [N, D] → [N, D]
    pub fn normed(&self, x: Tensor) -> Tensor {
        match &self.norm {
            Some(norm) => norm.forward(&x),
            None => x,
        }
    }
}

/// What a family's stack is like, to be loaded.
#[derive(Debug, Clone, Copy)]
pub struct StackOptions {
    /// `enc` or `dec`: what its tensors' names begin with. A decoder's blocks attend to the source.
    pub side: &'static str,
    /// How many blocks.
    pub n_blocks: usize,
    /// Where the norms stand; after the last block there is one more if they stand before.
    pub norms: NormPlace,
    /// From where on distances are not told apart, if there are biases by distance.
    pub max_distance: Option<usize>,
}

impl Stack {
    /// The stack whose tensors are called as GGUF calls those of T5.
    pub fn load(weights: &mut Weights, options: StackOptions) -> Result<Stack, LoadError> {
        let StackOptions { side, n_blocks, norms, max_distance } = options;
        let name = |end: &str| format!("{side}.blk.{{i}}.{end}");
        let activation = weights.config.activation;
        let relative = match max_distance {
            Some(max_distance) => {
                let table = weights.embedding(&format!("{side}.blk.0.attn_rel_b"))?;
                let sees = if side == "enc" { Sees::Both } else { Sees::Past };
                Some(RelativePositions::new(table, sees, max_distance))
            }
            None => None,
        };
        let mut block = |i| {
            let qkv = ["attn_q", "attn_k", "attn_v"].map(name);
            let kv = ["cross_attn_k", "cross_attn_v"].map(name);
            let attn = weights.attention(&qkv.each_ref().map(|n| &**n), &name("attn_o"), i)?;
            let attn_norm = weights.norm(&name("attn_norm"), i)?;
            let cross = if side == "dec" {
                let (q, output) = (name("cross_attn_q"), name("cross_attn_o"));
                let cross = weights.cross_attention(&q, &kv.each_ref().map(|n| &**n), &output, i)?;
                Some((cross, weights.norm(&name("cross_attn_norm"), i)?))
            } else {
                None
            };
            let (gate, up, down) = (name("ffn_gate"), name("ffn_up"), name("ffn_down"));
            let is_gated = weights.has(&gate);
            let ups: &[&str] = if is_gated { &[&gate, &up] } else { &[&up] };
            let (up, down) = (weights.linear(ups, i)?, weights.linear(&[&down], i)?);
            let ffn: Box<dyn Sublayer> = match is_gated {
                true => Box::new(GatedFeedForward { gate_up: up, down, activation }),
                false => Box::new(FeedForward { up, down, activation }),
            };
            let ffn_norm = weights.norm(&name("ffn_norm"), i)?;
            Ok(Arc::new(StackBlock { attn, attn_norm, cross, ffn, ffn_norm, norms }))
        };
        let blocks = (0..n_blocks).map(&mut block).collect::<Result<_, LoadError>>()?;
        let norm = match norms {
            NormPlace::Before => Some(weights.norm(&format!("{side}.output_norm"), 0)?),
            NormPlace::After => None,
        };
        Ok(Stack { blocks, relative, norm })
    }
}

/// Keeps only what goes into the block: its rows, the biases, and the rows of the source, to which gradients pass.
fn checkpoint(block: Arc<StackBlock>, x: Tensor, pass: &Pass, scores: &Scores) -> Tensor {
    let (pass, scores) = (pass.to_owned(), scores.clone());
    let mut inputs = vec![x];
    inputs.extend(scores.relative.as_ref().map(|relative| relative.table.clone()));
    if let Source::Rows { rows, .. } = &pass.source {
        inputs.push(rows.clone());
    }
    tape::checkpoint_all(inputs, move |inputs| {
        let (mut pass, mut scores, mut inputs) = (pass.to_owned(), scores.clone(), inputs.into_iter());
        let x = inputs.next().expect("the rows come first");
        if let Some(relative) = &mut scores.relative {
            relative.table = inputs.next().expect("the biases come second");
        }
        if let (Source::Rows { lens, .. }, Some(rows)) = (&pass.source, inputs.next()) {
            pass.source = Source::Rows { rows, lens: Cow::Owned(lens.to_vec()) };
        }
        block.forward(x, &pass, &scores, None)
    })
}
