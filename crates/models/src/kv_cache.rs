//! Keys and values of all layers, in pages that sequences may share.

use rhetor_kernels::kv::{KvPages, KvType};

use crate::config::ModelConfig;

/// Keys and values of all layers, in pages of [`rhetor_kernels::kv::PAGE_LEN`] tokens.
///
/// Page `p` of a sequence is page `p` in every layer. Who owns a page is the engine's affair.
/// Where a decoder attends to a source, each layer has a second set of the same pages for its keys and values; a page
/// holds either a sequence's own or its source's.
pub struct KvCache {
    layers: Vec<KvPages>,
    /// Of the source, where there is one.
    sources: Vec<KvPages>,
    n_pages: usize,
}

impl KvCache {
    /// A cache of `n_pages` pages. A page costs no memory before its first use.
    pub fn new(config: &ModelConfig, kind: KvType, n_pages: usize) -> KvCache {
        let layer = |i| KvPages::new(kind, config.kv_heads_of(i), config.head_dim, n_pages);
        let n_sources = if config.has_encoder() { config.n_layers } else { 0 };
        KvCache {
            layers: (0..config.n_layers).map(layer).collect(),
            sources: (0..n_sources).map(layer).collect(),
            n_pages,
        }
    }

    /// The number of pages.
    pub fn n_pages(&self) -> usize {
        self.n_pages
    }

    /// Bytes when every page is in use.
    pub fn n_bytes(&self) -> usize {
        self.layers.iter().chain(&self.sources).map(KvPages::n_bytes).sum()
    }

    /// Copies page `from` to page `to` in every layer.
    pub fn copy_page(&mut self, from: u32, to: u32) {
        for layer in self.layers.iter_mut().chain(&mut self.sources) {
            layer.copy_page(from, to);
        }
    }

    /// Bytes of one page in all layers, those of sources left out.
    pub fn page_bytes(&self) -> usize {
        self.layers.iter().map(KvPages::page_bytes).sum()
    }

    /// Appends page `page` of every layer to `bytes`, as it is stored: [`KvCache::page_bytes`] bytes.
    ///
    /// Panics if there is no such page.
    #[track_caller]
    pub fn read_page(&self, page: u32, bytes: &mut Vec<u8>) {
        self.layers.iter().for_each(|layer| bytes.extend_from_slice(layer.page(page)));
    }

    /// Replaces page `page` of every layer by what [`KvCache::read_page`] gave for a cache of the same configuration.
    ///
    /// Panics if there is no such page, or `bytes` is not as long as a page.
    #[track_caller]
    pub fn write_page(&mut self, page: u32, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.page_bytes(), "bytes of a page");
        let mut rest = bytes;
        for layer in &mut self.layers {
            let (own, others) = rest.split_at(layer.page_bytes());
            layer.set_page(page, own);
            rest = others;
        }
    }

    /// Keeps some rows of a span that ended a sequence, ascending, and forgets the others: those of the accepted path of a
    /// [`TokenTree`](crate::TokenTree). The keys and values of `rows[i]` move to position `start + i`.
    ///
    /// `table`: the sequence's pages; the span began at position `start`. Panics if the rows do not ascend, or reach
    /// beyond the pages.
    #[track_caller]
    pub fn keep(&mut self, table: &[u32], start: usize, rows: &[usize]) {
        assert!(rows.is_sorted_by(|a, b| a < b), "the rows {rows:?} do not ascend");
        // A row never moves up, so those still to be moved are never overwritten.
        for (to, &from) in rows.iter().enumerate().filter(|(to, from)| to != *from) {
            for layer in &mut self.layers {
                layer.copy_token(table, start + from, start + to);
            }
        }
    }

    /// The pages of layer `i`.
    pub(crate) fn layer(&mut self, i: usize) -> &mut KvPages {
        &mut self.layers[i]
    }

    /// The pages of layer `i`: a sequence's own, and those of the sources.
    pub(crate) fn layer_and_source(&mut self, i: usize) -> (&mut KvPages, &KvPages) {
        (&mut self.layers[i], &self.sources[i])
    }

    /// The pages of the sources in layer `i`.
    pub(crate) fn source(&mut self, i: usize) -> &mut KvPages {
        &mut self.sources[i]
    }
}
