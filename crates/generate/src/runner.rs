//! What the engine needs of a model: token ids in, logits out, pages copied.

use rhetor_images::Planes;
use rhetor_models::{Active, Batch, KvCache, Model, SourceTokens};
use rhetor_tensor::{Tensor, ops};
use std::sync::Arc;

/// Runs one batch after another on a paged key-value cache.
///
/// The seam between the engine's books and the numbers: implemented for a model with its cache, and by a small fake in
/// the tests of the engine.
pub(crate) trait Runner: Send {
    /// Computes `batch`, writes its keys and values, and shows `read`, once, the logits of the rows asked for:
    /// [batch.outputs.len(), V].
    fn forward(&mut self, batch: &Batch, read: &mut dyn FnMut(&[f32]));

    /// As [`forward`](Runner::forward), and shows what the model has made of all rows: the residual stream at `depths` side by
    /// side, or, without depths, what goes into the output layer. [T, F]
    fn forward_watched(&mut self, batch: &Batch, depths: &[usize], read: &mut dyn FnMut(&[f32], &Tensor));

    /// Encodes sources, with these adapters on, and writes what a decoder sees of them to the pages of each.
    fn read(&mut self, source: &SourceTokens, tables: &[&[u32]], adapters: &Active);

    /// Copies a page of keys and values in all layers.
    fn copy_page(&mut self, from: u32, to: u32);

    /// Bytes of a page of keys and values in all layers.
    fn page_bytes(&self) -> usize;

    /// Appends a page to `bytes`, as it is stored.
    fn read_page(&self, page: u32, bytes: &mut Vec<u8>);

    /// Replaces a page by what [`Runner::read_page`] gave.
    fn write_page(&mut self, page: u32, bytes: &[u8]);

    /// The rows that a picture becomes among the words. → [R, D]
    fn see(&mut self, picture: &Planes) -> Tensor;

    /// V, padded rows included.
    fn vocab_size(&self) -> usize;

    /// Pages of the cache.
    fn n_pages(&self) -> usize;
}

impl Runner for (Arc<Model>, KvCache) {
    fn forward(&mut self, batch: &Batch, read: &mut dyn FnMut(&[f32])) {
        let (model, cache) = self;
        read(model.forward(batch, Some(cache)).data());
    }

    fn forward_watched(&mut self, batch: &Batch, depths: &[usize], read: &mut dyn FnMut(&[f32], &Tensor)) {
        let (model, cache) = self;
        let all = Batch { outputs: (0..batch.tokens.len()).collect(), ..batch.clone() };
        let (hidden, residual) = match depths {
            [] => (model.hidden(&all, Some(cache)), Vec::new()),
            depths => model.features(&all, Some(cache), depths),
        };
        let pass = SourceTokens::default().pass(batch.adapters.clone(), None);
        let logits = model.output().forward(&ops::rows::rows(&hidden, &batch.outputs), &pass);
        let features = match residual.first() {
            None => hidden,
            Some(first) => {
                let shape = [first.n_rows(), residual.iter().map(Tensor::row_len).sum()];
                let rows = (0..first.n_rows()).flat_map(|i| residual.iter().flat_map(move |x| x.row(i)));
                Tensor::from_vec(rows.copied().collect(), shape)
            }
        };
        read(logits.data(), &features);
    }

    fn read(&mut self, source: &SourceTokens, tables: &[&[u32]], adapters: &Active) {
        let (model, cache) = self;
        model.read(source, tables, adapters, cache);
    }

    fn copy_page(&mut self, from: u32, to: u32) {
        self.1.copy_page(from, to);
    }

    fn page_bytes(&self) -> usize {
        self.1.page_bytes()
    }

    fn read_page(&self, page: u32, bytes: &mut Vec<u8>) {
        self.1.read_page(page, bytes);
    }

    fn write_page(&mut self, page: u32, bytes: &[u8]) {
        self.1.write_page(page, bytes);
    }

    fn see(&mut self, picture: &Planes) -> Tensor {
        self.0.see(&picture.values, [picture.height, picture.width], None)
    }

    fn vocab_size(&self) -> usize {
        self.0.config().vocab_size
    }

    fn n_pages(&self) -> usize {
        self.1.n_pages()
    }
}
