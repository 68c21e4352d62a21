//! Attention of a decoder to what its encoder made of the source.

use rhetor_kernels::gemm::Precision;
use rhetor_kernels::kv::KvPages;
use rhetor_tensor::ops::attention::Heads;
use rhetor_tensor::ops::scored_attention::CrossSequence;
use rhetor_tensor::{Tensor, ops};

use super::{Linear, Pass, Source};

/// Attention to all rows of the source, arXiv:1706.03762, section 3.2.3.
pub struct CrossAttention {
    /// Queries, of the decoder's rows: [H·d, D]
    pub q: Linear,
    /// Keys and values, of the source's rows: [2K·d, D]
    pub kv: Linear,
    /// [D, H·d]
    pub output: Linear,
    /// H
    pub n_heads: usize,
    /// K
    pub n_kv_heads: usize,
    /// d
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Of the products of a recorded pass.
    pub precision: Precision,
}

impl CrossAttention {
    /// x: [T, D] → [T, D]
    ///
    /// The source is in `pass`: encoded rows, or pages of `cache`, to which [`read`](CrossAttention::read) has written.
    /// Panics if there is none, or if it is in pages and there is no cache.
    pub fn forward(&self, x: &Tensor, pass: &Pass, cache: Option<&KvPages>) -> Tensor {
        let q = self.q.forward(x, pass); // [T, H·d]
        let mixed = match (&pass.source, cache) {
            (Source::Rows { rows, lens }, _) => {
                let kv = self.kv.forward(rows, pass); // [S, 2K·d]
                let pairs = pass.spans.iter().zip(lens.iter());
                let sequences: Vec<CrossSequence> =
                    pairs.map(|(span, &n_keys)| CrossSequence { n_queries: span.len, n_keys }).collect();
                ops::scored_attention::cross(&q, &kv, &sequences, self.heads(), self.precision)
            }
            (Source::Pages(tables), Some(cache)) => {
                let pairs = pass.spans.iter().zip(tables.iter());
                let tables: Vec<(usize, &[u32], usize)> =
                    pairs.map(|(span, &(table, len))| (span.len, table, len)).collect();
                ops::attention::paged_cross(&q, cache, &tables, self.heads())
            }
            (Source::Pages(_), None) => panic!("a source in pages, and no cache"),
            (Source::Tokens(_) | Source::None, _) => {
                panic!("a decoder that attends to a source, and no encoded one")
            }
        };
        self.output.forward(&mixed, pass) // [T, D]
    }

    /// Writes keys and values of encoded sources to `cache`, where later passes find them. rows: [S, D]; each source has
    /// its pages and the number of its rows.
    pub fn read(&self, rows: &Tensor, sources: &[(&[u32], usize)], pass: &Pass, cache: &mut KvPages) {
        let kv = self.kv.forward(rows, pass); // [S, 2K·d]
        let (stride, width) = (kv.row_stride(), self.n_kv_heads * self.head_dim);
        let mut row = 0;
        for &(table, len) in sources {
            if len > 0 {
                let data = &kv.data()[row * stride..];
                cache.write(table, 0, data, &data[width..], stride, len);
            }
            row += len;
        }
    }

    fn heads(&self) -> Heads {
        let &CrossAttention { n_heads, n_kv_heads, head_dim, scale, .. } = self;
        Heads { n_heads, n_kv_heads, head_dim, scale, window: None, groups: None }
    }
}
