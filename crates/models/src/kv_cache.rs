//! Keys and values of all layers, in pages that sequences may share.

use rhetor_kernels::kv::{KvPages, KvType};

use crate::config::ModelConfig;

/// Keys and values of all layers, in pages of [`rhetor_kernels::kv::PAGE_LEN`] tokens.
///
/// Page `p` of a sequence is page `p` in every layer. Who owns a page is the engine's affair.
pub struct KvCache {
    layers: Vec<KvPages>,
    n_pages: usize,
}

impl KvCache {
    /// A cache of `n_pages` pages. A page costs no memory before its first use.
    pub fn new(config: &ModelConfig, kind: KvType, n_pages: usize) -> KvCache {
        let layer = || KvPages::new(kind, config.n_kv_heads, config.head_dim, n_pages);
        KvCache { layers: (0..config.n_layers).map(|_| layer()).collect(), n_pages }
    }

    /// The number of pages.
    pub fn n_pages(&self) -> usize {
        self.n_pages
    }

    /// Bytes when every page is in use.
    pub fn n_bytes(&self) -> usize {
        self.layers.iter().map(KvPages::n_bytes).sum()
    }

    /// Copies page `from` to page `to` in every layer.
    pub fn copy_page(&mut self, from: u32, to: u32) {
        for layer in &mut self.layers {
            layer.copy_page(from, to);
        }
    }

    /// The pages of layer `i`.
    pub(crate) fn layer(&mut self, i: usize) -> &mut KvPages {
        &mut self.layers[i]
    }
}
