//! What all layers of one forward pass know.

use rhetor_kernels::attention::Span;
use rhetor_tensor::Tensor;
use rhetor_tensor::ops::attention::TrainSequence;
use rhetor_tensor::ops::dropout::Stream;
use rhetor_tensor::ops::mixture::Balance;
use std::borrow::Cow;
use std::sync::Arc;

use super::Probe;

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
    /// Rows that stand in the place of tokens' embeddings.
    pub embedded: Cow<'a, [Embedded]>,
    /// What the sequences read besides their own tokens.
    pub source: Source<'a>,
    /// The adapters that are on.
    pub adapters: Active,
    /// What only training has.
    pub training: Option<Training>,
    /// Who looks on.
    pub probe: Option<Arc<dyn Probe>>,
    /// Counts how evenly experts are used, if somebody wants to know.
    pub balance: Option<Arc<Balance>>,
}

/// Rows of a batch that are given, such as those of a picture, in the place of the embeddings of their tokens.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The first of the batch's rows that they take the place of.
    pub first: usize,
    /// [N, D]
    pub rows: Tensor,
}

/// What the sequences of a decoder read besides their own tokens, in the state in which it is.
#[derive(Clone)]
pub enum Source<'a> {
    /// Nothing.
    None,
    /// Tokens, to be encoded in this pass.
    Tokens(Arc<SourceTokens>),
    /// What an encoder made of them.
    Rows {
        /// The rows of all sequences, one sequence after another. [S, D]
        rows: Tensor,
        /// How many of them are each sequence's.
        lens: Cow<'a, [usize]>,
    },
    /// Keys and values that are in the cache already: the pages of each sequence, and how many keys they hold.
    Pages(Cow<'a, [(&'a [u32], usize)]>),
}

/// The tokens that an encoder reads for some sequences.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceTokens {
    /// One sequence after another, of each its passages one after another. `[S]`
    pub tokens: Vec<u32>,
    /// The lengths of the passages of each sequence. Passages are encoded each by itself, as Fusion-in-Decoder does
    /// (arXiv:2007.01282, section 3); mostly there is one.
    pub passages: Vec<Vec<usize>>,
}

impl SourceTokens {
    /// One passage for each sequence.
    pub fn of<'t>(sequences: impl IntoIterator<Item = &'t [u32]>) -> SourceTokens {
        let mut source = SourceTokens::default();
        for tokens in sequences {
            source.tokens.extend_from_slice(tokens);
            source.passages.push(vec![tokens.len()]);
        }
        source
    }

    /// Rows of each sequence. `[B]`
    pub fn lens(&self) -> Vec<usize> {
        self.passages.iter().map(|lens| lens.iter().sum()).collect()
    }

    /// The pass in which an encoder reads it: each passage is a sequence, whose rows all see each other.
    pub fn pass(&self, adapters: Active, training: Option<Training>) -> Pass<'static> {
        Pass::full(self.passages.iter().flatten().copied().collect(), adapters, training)
    }
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

impl Pass<'static> {
    /// The pass of an encoder over sequences of these lengths, whose rows all see each other.
    pub fn full(lens: Vec<usize>, adapters: Active, training: Option<Training>) -> Pass<'static> {
        Pass {
            of_row: lens.iter().flat_map(|&len| 0..len).collect(),
            spans: lens.iter().map(|&len| Span { len, ..Span::default() }).collect(),
            prefix_lens: Cow::Owned(lens),
            segments: Cow::Borrowed(&[]),
            embedded: Cow::Borrowed(&[]),
            source: Source::None,
            adapters,
            training,
            probe: None,
            balance: None,
        }
    }
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
        let rows = self.of_row.iter().copied().enumerate();
        rows.filter(|&(_, position)| position < n).collect()
    }

    /// The same pass without a cache, for a tape to keep.
    pub fn to_owned(&self) -> Pass<'static> {
        Pass {
            of_row: Cow::Owned(self.of_row.to_vec()),
            spans: self
                .spans
                .iter()
                .map(|span| Span { start: span.start, len: span.len, ..Span::default() })
                .collect(),
            prefix_lens: Cow::Owned(self.prefix_lens.to_vec()),
            segments: Cow::Owned(self.segments.to_vec()),
            // Blocks come after the embeddings.
            embedded: Cow::Borrowed(&[]),
            source: match &self.source {
                Source::None => Source::None,
                Source::Tokens(tokens) => Source::Tokens(tokens.clone()),
                Source::Rows { rows, lens } => {
                    Source::Rows { rows: rows.clone(), lens: Cow::Owned(lens.to_vec()) }
                }
                Source::Pages(_) => panic!("a pass with a cache is not kept"),
            },
            adapters: self.adapters.clone(),
            training: self.training,
            probe: self.probe.clone(),
            balance: self.balance.clone(),
        }
    }
}
