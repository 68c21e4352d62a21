//! What all layers of one forward pass know.

use rhetor_kernels::attention::Span;
use rhetor_tensor::ops::attention::TrainSequence;
use rhetor_tensor::ops::dropout::Stream;
use std::borrow::Cow;
use std::sync::Arc;

/// Where the rows of a batch stand, which adapters are on, and whether this is training.
#[derive(Clone)]
pub struct Pass<'a> {
    /// Each row's position in its sequence, from 0. `[T]`
    pub of_row: Cow<'a, [usize]>,
    /// The sequences, one after another.
    pub spans: Cow<'a, [Span<'a>]>,
    /// How many of each sequence's first rows see each other in both directions.
    pub prefix_lens: Cow<'a, [usize]>,
    /// Each row's segment; empty = all 0. `[T]`
    pub segments: Cow<'a, [u8]>,
    /// The adapters that are on.
    pub adapters: Active,
    /// What only training has.
    pub training: Option<Training>,
}

/// Which of a model's adapters are on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Active {
    /// All of them, stacked in the order in which they were attached.
    #[default]
    All,
    /// Those with these numbers; none if empty.
    Only(Arc<[usize]>),
}

impl Active {
    /// Whether adapter `i` is on.
    pub fn has(&self, i: usize) -> bool {
        match self {
            Active::All => true,
            Active::Only(adapters) => adapters.contains(&i),
        }
    }
}

/// What a forward pass of training has and one of inference has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Training {
    /// Of this pass: dropout is a function of it.
    pub seed: u64,
    /// What the tape keeps.
    pub keep: Keep,
}

/// What the tape keeps of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// What the gradients need.
    #[default]
    All,
    /// The inputs of the blocks; each block is computed again on the way back (arXiv:1604.06174, section 4).
    Blocks,
}

impl Pass<'_> {
    /// The random numbers of dropout at `place`, if this is training.
    pub fn dropout(&self, place: u64) -> Option<Stream> {
        self.training.map(|training| Stream { seed: training.seed, place })
    }

    /// The sequences, as attention without a cache takes them.
    pub fn sequences(&self) -> Vec<TrainSequence> {
        let pairs = self.spans.iter().zip(self.prefix_lens.iter());
        let sequence = |(span, &prefix_len): (&Span, &usize)| {
            assert_eq!(span.start, 0, "without a cache a span is a whole sequence");
            TrainSequence { len: span.len, prefix_len }
        };
        pairs.map(sequence).collect()
    }

    /// Rows at positions below `n`, each with its position: those of virtual positions.
    pub fn rows_below(&self, n: usize) -> Vec<(usize, usize)> {
        // Positions ascend by one inside each span.
        let mut first = 0;
        let mut rows = Vec::new();
        for span in self.spans.iter() {
            rows.extend((span.start..n.min(span.start + span.len)).map(|at| (first + at - span.start, at)));
            first += span.len;
        }
        rows
    }

    /// The same pass without a cache, for a tape to keep.
    pub fn to_owned(&self) -> Pass<'static> {
        Pass {
            of_row: Cow::Owned(self.of_row.to_vec()),
            spans: self.spans.iter().map(|span| Span { table: &[], ..*span }).collect(),
            prefix_lens: Cow::Owned(self.prefix_lens.to_vec()),
            segments: Cow::Owned(self.segments.to_vec()),
            adapters: self.adapters.clone(),
            training: self.training,
        }
    }
}
