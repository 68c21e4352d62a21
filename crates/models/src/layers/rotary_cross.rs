//! Attention of some rows to others, with rotary positions on both sides.

use rhetor_kernels::rope::RopeTable;
use rhetor_tensor::ops::attention::Heads;
use rhetor_tensor::ops::scored_attention::CrossSequence;
use rhetor_tensor::{Tensor, Vector, ops};
use std::sync::Arc;

use super::{CrossAttention, Pass};

/// Cross attention whose queries and keys are turned by positions that the caller gives, without a cache; with a learnt
/// key and value for "nothing" if there are any. Source: RETRO, arXiv:2112.04426, section 2.4 and appendix B.
pub struct RotaryCross {
    /// The linear layers and the heads.
    pub attention: CrossAttention,
    /// Rotary positions.
    pub rope: Arc<RopeTable>,
    /// Key and value that every query sees beside its own, `[K·d]` each, not turned.
    pub null: Option<(Vector, Vector)>,
}

/// Rows and their positions.
pub struct Placed<'a> {
    /// [T, D]
    pub rows: &'a Tensor,
    /// `[T]`
    pub positions: &'a [usize],
}

impl RotaryCross {
    /// x: [Q, D], source: [S, D'] → [Q, D]. Sequence after sequence, so many queries see so many rows of the source;
    /// `None` = there are none for anybody.
    pub fn forward(
        &self,
        x: &Placed,
        source: Option<&Placed>,
        sequences: &[CrossSequence],
        pass: &Pass,
    ) -> Tensor {
        let &CrossAttention { n_heads, n_kv_heads, head_dim, scale, precision, .. } = &self.attention;
        let q = self.attention.q.forward(x.rows, pass); // [Q, H·d]
        let q = ops::rope::rope(q, n_heads, head_dim, x.positions, &self.rope);
        let kv = source.map(|source| {
            let kv = self.attention.kv.forward(source.rows, pass); // [S, 2K·d]
            ops::rope::rope(kv, n_kv_heads, head_dim, source.positions, &self.rope)
        });
        let heads = Heads { n_heads, n_kv_heads, head_dim, scale, window: None, groups: None };
        let (kv, sequences) = match &self.null {
            None => (kv.expect("a query has something to see"), sequences.to_vec()),
            Some(null) => self.with_null(kv, null, sequences),
        };
        let mixed = ops::scored_attention::cross(&q, &kv, &sequences, heads, precision); // [Q, H·d]
        self.attention.output.forward(&mixed, pass)
    }

    /// Keys and values with the null before those of each sequence.
    fn with_null(
        &self,
        kv: Option<Tensor>,
        (k, v): &(Vector, Vector),
        sequences: &[CrossSequence],
    ) -> (Tensor, Vec<CrossSequence>) {
        let width = k.len();
        let zeros = |n_rows| Tensor::build([n_rows, 2 * width], |zeros| zeros.fill(0.0));
        let null = ops::columns::add_vector(zeros(1), 0, k, 1.0);
        let null = ops::columns::add_vector(null, width, v, 1.0); // [1, 2K·d]
        let (mut nulls, mut others, mut longer) = (Vec::new(), Vec::new(), Vec::new());
        let (mut row, mut from) = (0, 0);
        for &CrossSequence { n_queries, n_keys } in sequences {
            nulls.push((row, 0));
            others.extend((0..n_keys).map(|i| (row + 1 + i, from + i)));
            (row, from) = (row + 1 + n_keys, from + n_keys);
            longer.push(CrossSequence { n_queries, n_keys: n_keys + 1 });
        }
        let all = ops::rows::replace(zeros(row), 0, &nulls, &null);
        let all = match kv {
            Some(kv) => ops::rows::replace(all, 0, &others, &kv),
            None => all,
        };
        (all, longer)
    }
}
