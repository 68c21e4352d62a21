//! What the engine needs of a model: token ids in, logits out, pages copied.

/// Runs one batch after another on a paged key-value cache.
///
/// The seam between the engine's books and the numbers: implemented for a model with its cache, and by a small fake in
/// the tests of the engine.
pub trait Runner: Send {
    /// Computes `batch`, writes its keys and values, and shows `read` the logits of the rows asked for:
    /// [batch.outputs.len(), V].
    fn forward(&mut self, batch: &Batch, read: &mut dyn FnMut(&[f32]));

    /// Copies a page of keys and values in all layers.
    fn copy_page(&mut self, from: u32, to: u32);

    /// V, padded rows included.
    fn vocab_size(&self) -> usize;

    /// Pages of the cache.
    fn n_pages(&self) -> usize;
}

/// Tokens of several sequences to be computed in one step.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// [T]
    pub tokens: Vec<u32>,
    /// spans
    pub spans: Vec<SequenceSpan>,
    /// rows
    pub outputs: Vec<usize>,
}

/// Consecutive tokens of one sequence.
#[derive(Debug, Clone)]
pub struct SequenceSpan {
    /// pages
    pub pages: Vec<u32>,
    /// start
    pub start: usize,
    /// len
    pub len: usize,
}
