//! Attention whose scores carry more than a product, and attention to the rows of another sequence, with gradients.
//!
//! Without a tape the kernel of inference computes it. With one, each head's weights `[T, S]` are computed as whole
//! matrices and kept for the way back: models that need this train at lengths where that is little.

use rhetor_kernels::attention::{self, DenseSequence, DenseShape, Mask, RelativeBias};
use rhetor_kernels::gemm::{Operand, Precision, Update, View, gemm};
use rhetor_kernels::softmax;
use std::sync::Arc;

use super::attention::{Heads, TrainSequence};
use crate::{Tensor, tape};

/// What happens to scaled scores before softmax; the default is nothing.
#[derive(Clone, Default)]
pub struct Scores {
    /// A slope for each head, `[H]`: −slope · (position of the query − position of the key) is added. Source:
    /// arXiv:2108.12409, section 3.
    pub alibi: Option<Arc<[f32]>>,
    /// With `alibi`: this · bf16(slope · position of the key) is added instead, as Falcon's RW models were trained.
    pub alibi_bf16: Option<f32>,
    /// c · tanh(score / c), before anything is added. Source: arXiv:2408.00118, section 2.
    pub soft_cap: Option<f32>,
    /// A learnt bias for each head and distance.
    pub relative: Option<Relative>,
}

/// A learnt bias for each head and distance. Source: T5, arXiv:1910.10683, section 2.1.
#[derive(Clone)]
pub struct Relative {
    /// [H, n]: column `zero` + (position of the key − position of the query), the nearest end beyond the ends. A gradient
    /// passes to it.
    pub table: Tensor,
    /// The column of distance 0.
    pub zero: usize,
}

impl Scores {
    /// Whether scores stay as they are.
    pub fn is_plain(&self) -> bool {
        self.alibi.is_none() && self.soft_cap.is_none() && self.relative.is_none()
    }

    /// As the kernels take it.
    pub(super) fn options(&self, heads: &Heads) -> attention::AttentionOptions<'_> {
        attention::AttentionOptions {
            n_heads: heads.n_heads,
            scale: heads.scale,
            window: heads.window,
            alibi: self.alibi.as_deref(),
            alibi_bf16: self.alibi_bf16,
            soft_cap: self.soft_cap,
            relative: self.relative.as_ref().map(|r| RelativeBias { table: r.table.data(), zero: r.zero }),
        }
    }

    /// What becomes of the scaled score of key `j` for query `i` of head `head`, before softmax.
    pub fn of(&self, score: f32, head: usize, i: usize, j: usize) -> f32 {
        let score = self.soft_cap.map_or(score, |cap| cap * (score / cap).tanh());
        score + self.bias(head, i, j).0
    }

    /// What is added to the score of key `j` for query `i` of head `head`, and the column of [`Relative::table`].
    fn bias(&self, head: usize, i: usize, j: usize) -> (f32, usize) {
        let distance = j as isize - i as isize;
        let alibi =
            self.alibi.as_ref().map_or(0.0, |slopes| attention::alibi(slopes[head], self.alibi_bf16, i, j));
        let Some(Relative { table, zero }) = &self.relative else { return (alibi, 0) };
        let column = (*zero as isize + distance).clamp(0, table.row_len() as isize - 1) as usize;
        (alibi + table.row(head)[column], column)
    }
}

/// Queries of one sequence and the keys that they see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrossSequence {
    /// Rows of the queries, T.
    pub n_queries: usize,
    /// Rows of the keys and values, S: all are seen.
    pub n_keys: usize,
}

/// Attention of each sequence to all rows of another. q: [ΣT, H·d], kv: keys and values side by side, [ΣS, 2K·d] →
/// [ΣT, H·d]
///
/// A query whose sequence has no keys gives zeros. Source: arXiv:1706.03762, section 3.2.3.
#[track_caller]
pub fn cross(
    q: &Tensor,
    kv: &Tensor,
    sequences: &[CrossSequence],
    heads: Heads,
    precision: Precision,
) -> Tensor {
    let width = heads.n_kv_heads * heads.head_dim;
    assert_eq!(q.row_len(), heads.n_heads * heads.head_dim, "a row of queries for {heads:?}");
    assert_eq!(kv.row_len(), 2 * width, "a row of keys and values for {heads:?}");
    let totals = sequences.iter().fold((0, 0), |(t, s), one| (t + one.n_queries, s + one.n_keys));
    assert_eq!(totals, (q.n_rows(), kv.n_rows()), "rows of the sequences");
    let parts: Vec<Part> = sequences
        .iter()
        .map(|s| Part { n_queries: s.n_queries, n_keys: s.n_keys, seen: Seen::All })
        .collect();
    let columns = Columns { k: 0, v: width };
    if tape::is_recording() && (q.is_tracked() || kv.is_tracked()) {
        return recorded(q, kv, columns, parts, heads, &Scores::default(), precision);
    }
    dense(q, kv, columns, &parts, heads, &Scores::default())
}

/// Attention inside each sequence. qkv: [T, (H + 2K)·d] → [T, H·d]
///
/// A row sees those before it, and all of the prefix if it stands inside; the prefix is nothing or all of the sequence
/// unless a gradient is wanted.
#[track_caller]
pub fn within(
    qkv: &Tensor,
    sequences: &[TrainSequence],
    heads: Heads,
    scores: &Scores,
    precision: Precision,
) -> Tensor {
    assert!(heads.groups.is_none(), "shifted groups with biased scores");
    let (k, v) = heads.split(qkv);
    let part = |s: &TrainSequence| Part {
        n_queries: s.len,
        n_keys: s.len,
        seen: Seen::Before { prefix_len: s.prefix_len },
    };
    let parts: Vec<Part> = sequences.iter().map(part).collect();
    let is_partial = sequences.iter().any(|s| s.prefix_len != 0 && s.prefix_len != s.len);
    let relative = scores.relative.as_ref().is_some_and(|relative| relative.table.is_tracked());
    if is_partial || tape::is_recording() && (qkv.is_tracked() || relative) {
        return recorded(qkv, qkv, Columns { k, v }, parts, heads, scores, precision);
    }
    dense(qkv, qkv, Columns { k, v }, &parts, heads, scores)
}

/// Where keys and values begin in a row.
#[derive(Debug, Clone, Copy)]
struct Columns {
    k: usize,
    v: usize,
}

/// One sequence.
#[derive(Debug, Clone, Copy)]
struct Part {
    n_queries: usize,
    n_keys: usize,
    seen: Seen,
}

/// Which keys query `i` sees.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Seen {
    All,
    /// Those at j <= max(i, prefix_len − 1).
    Before {
        prefix_len: usize,
    },
}

impl Part {
    /// The keys that query `i` sees.
    fn keys_of(&self, i: usize, window: Option<usize>) -> std::ops::Range<usize> {
        let Seen::Before { prefix_len } = self.seen else { return 0..self.n_keys };
        let first = window.map_or(0, |window| (i + 1).saturating_sub(window));
        first..(i + 1).max(prefix_len).min(self.n_keys)
    }
}

/// By the kernel of inference, parts of one kind in a row.
fn dense(q: &Tensor, kv: &Tensor, columns: Columns, parts: &[Part], heads: Heads, scores: &Scores) -> Tensor {
    let shape = DenseShape {
        n_kv_heads: heads.n_kv_heads,
        head_dim: heads.head_dim,
        q_stride: q.row_stride(),
        kv_stride: kv.row_stride(),
    };
    let width = heads.n_heads * heads.head_dim;
    Tensor::build([q.n_rows(), width], |out| {
        let (mut row, mut key) = (0, 0);
        let is_full =
            |part: &Part| part.seen == Seen::All || part.seen == Seen::Before { prefix_len: part.n_keys };
        for run in parts.chunk_by(|a, b| is_full(a) == is_full(b)) {
            let (n_rows, n_keys) = run.iter().fold((0, 0), |(t, s), p| (t + p.n_queries, s + p.n_keys));
            let sequences: Vec<DenseSequence> =
                run.iter().map(|p| DenseSequence { n_queries: p.n_queries, n_keys: p.n_keys }).collect();
            let mask = if run.iter().all(is_full) { Mask::Full } else { Mask::Causal };
            let from = |x: &'_ Tensor, at: usize, column: usize| at * x.row_stride() + column;
            let (k, v) = (from(kv, key, columns.k), from(kv, key, columns.v));
            let data = kv.strided_data();
            let (k, v) = (&data[k.min(data.len())..], &data[v.min(data.len())..]);
            let queries = &q.strided_data()[from(q, row, 0).min(q.strided_data().len())..];
            let options = scores.options(&heads);
            let out = &mut out[row * width..(row + n_rows) * width];
            attention::dense(queries, k, v, shape, &sequences, mask, &options, out);
            (row, key) = (row + n_rows, key + n_keys);
        }
    })
}

/// With whole matrices of weights, kept for the gradients.
fn recorded(
    q: &Tensor,
    kv: &Tensor,
    columns: Columns,
    parts: Vec<Part>,
    heads: Heads,
    scores: &Scores,
    precision: Precision,
) -> Tensor {
    let (h, d, group) = (heads.n_heads, heads.head_dim, heads.n_heads / heads.n_kv_heads);
    let mut weights: Vec<Vec<f32>> = Vec::with_capacity(parts.len() * h);
    // Derivatives of capped scores, 1 − tanh², where there is a cap.
    let mut slopes: Vec<Vec<f32>> = Vec::new();
    let out = Tensor::build([q.n_rows(), h * d], |out| {
        out.fill(0.0);
        let (mut row, mut key) = (0, 0);
        for part in &parts {
            for head in 0..h {
                let places = Places { columns, head, kv_head: head / group, row, key, d };
                let (mut p, slope) = weigh(q, kv, part, places, &heads, scores, precision);
                softmax::softmax(&mut p, part.n_keys.max(1));
                if part.n_keys > 0 && part.n_queries > 0 {
                    let a = View::new(&p, part.n_queries, part.n_keys);
                    let v = Operand::View(places.values(kv, part));
                    gemm(precision, 1.0, a, v, Update::Set, None, &mut out[row * h * d + head * d..], h * d);
                }
                weights.push(p);
                slopes.extend(slope);
            }
            (row, key) = (row + part.n_queries, key + part.n_keys);
        }
    });
    let relative = scores.relative.clone();
    let table = relative.as_ref().map(|relative| relative.table.tracked());
    let wants_table = table.as_ref().is_some_and(|table| table.is_wanted());
    if !(q.is_tracked() || kv.is_tracked() || wants_table) {
        return out;
    }
    let (to_q, to_kv, is_same) =
        (q.tracked(), kv.tracked(), q.row_len() == kv.row_len() && q.data().as_ptr() == kv.data().as_ptr());
    let (q, kv, scores) = (q.detached(), kv.detached(), scores.clone());
    tape::push(out, move |d_out, gradients| {
        let mut d_q = vec![0.0; q.n_rows() * q.row_len()];
        let mut d_kv = vec![0.0; if is_same { 0 } else { kv.n_rows() * kv.row_len() }];
        let mut d_table = relative.as_ref().map(|r| vec![0.0; r.table.n_rows() * r.table.row_len()]);
        let (mut row, mut key, mut index) = (0, 0, 0);
        for part in &parts {
            for head in 0..h {
                let places = Places { columns, head, kv_head: head / group, row, key, d };
                let p = &weights[index];
                let slope = slopes.get(index);
                index += 1;
                if part.n_keys == 0 || part.n_queries == 0 {
                    continue;
                }
                let (t, s) = (part.n_queries, part.n_keys);
                let d_out = View::strided(&d_out.data()[row * h * d + head * d..], t, d, h * d);
                // dP = dO Vᵀ, dV += Pᵀ dO
                let mut d_p = vec![0.0; t * s];
                let v = places.values(&kv, part).transposed();
                gemm(precision, 1.0, d_out, Operand::View(v), Update::Set, None, &mut d_p, s);
                let to = if is_same { &mut d_q } else { &mut d_kv };
                let (stride, at) = (kv.row_len(), key * kv.row_len() + places.kv_head * d);
                let p_t = View::new(p, t, s).transposed();
                gemm(
                    precision,
                    1.0,
                    p_t,
                    Operand::View(d_out),
                    Update::Add,
                    None,
                    &mut to[at + columns.v..],
                    stride,
                );
                softmax::backward(p, &mut d_p, s);
                if let (Some(sums), Some(table)) = (&mut d_table, &relative) {
                    for (i, d_p) in d_p.chunks_exact(s).enumerate() {
                        for j in part.keys_of(i, heads.window) {
                            sums[head * table.table.row_len() + scores.bias(head, i, j).1] += d_p[j];
                        }
                    }
                }
                if let Some(slope) = slope {
                    d_p.iter_mut().zip(slope).for_each(|(d, slope)| *d *= slope);
                }
                // dQ += scale · dS K, dK += scale · dSᵀ Q
                let keys = places.keys(&kv, part);
                let d_s = View::new(&d_p, t, s);
                let queries = places.queries(&q, part);
                let scale = heads.scale;
                gemm(
                    precision,
                    scale,
                    d_s.transposed(),
                    Operand::View(queries),
                    Update::Add,
                    None,
                    &mut to[at + columns.k..],
                    stride,
                );
                let at = row * q.row_len() + head * d;
                gemm(
                    precision,
                    scale,
                    d_s,
                    Operand::View(keys),
                    Update::Add,
                    None,
                    &mut d_q[at..],
                    q.row_len(),
                );
            }
            (row, key) = (row + part.n_queries, key + part.n_keys);
        }
        if let (Some(sums), Some(relative), Some(table)) = (d_table, &relative, table.as_ref()) {
            let shape = [relative.table.n_rows(), relative.table.row_len()];
            gradients.add(table, Tensor::from_vec(sums, shape));
        }
        gradients.add(&to_q, Tensor::from_vec(d_q, [q.n_rows(), q.row_len()]));
        if !is_same {
            gradients.add(&to_kv, Tensor::from_vec(d_kv, [kv.n_rows(), kv.row_len()]));
        }
    })
}

/// Where a head's numbers are.
#[derive(Debug, Clone, Copy)]
struct Places {
    columns: Columns,
    head: usize,
    kv_head: usize,
    /// The first rows of the sequence.
    row: usize,
    key: usize,
    d: usize,
}

impl Places {
    fn view<'a>(&self, x: &'a Tensor, n: usize, row: usize, column: usize) -> View<'a> {
        let stride = x.row_len();
        View::strided(&x.data()[row * stride + column..], n, self.d, stride)
    }

    /// [T, d]
    fn queries<'a>(&self, q: &'a Tensor, part: &Part) -> View<'a> {
        self.view(q, part.n_queries, self.row, self.head * self.d)
    }

    /// [S, d]
    fn keys<'a>(&self, kv: &'a Tensor, part: &Part) -> View<'a> {
        self.view(kv, part.n_keys, self.key, self.columns.k + self.kv_head * self.d)
    }

    /// [S, d]
    fn values<'a>(&self, kv: &'a Tensor, part: &Part) -> View<'a> {
        self.view(kv, part.n_keys, self.key, self.columns.v + self.kv_head * self.d)
    }
}

/// The scores of a head, −∞ where nothing is seen, [T, S], and the derivatives of the cap.
fn weigh(
    q: &Tensor,
    kv: &Tensor,
    part: &Part,
    places: Places,
    heads: &Heads,
    scores: &Scores,
    precision: Precision,
) -> (Vec<f32>, Option<Vec<f32>>) {
    let (t, s) = (part.n_queries, part.n_keys);
    let mut x = vec![0.0; t * s];
    if x.is_empty() {
        return (x, scores.soft_cap.map(|_| Vec::new()));
    }
    let keys = places.keys(kv, part).transposed();
    gemm(precision, heads.scale, places.queries(q, part), Operand::View(keys), Update::Set, None, &mut x, s);
    let slope = scores.soft_cap.map(|cap| {
        let capped = |x: &mut f32| {
            let tanh = (*x / cap).tanh();
            *x = cap * tanh;
            1.0 - tanh * tanh
        };
        x.iter_mut().map(capped).collect()
    });
    for (i, row) in x.chunks_exact_mut(s).enumerate() {
        let seen = part.keys_of(i, heads.window);
        for (j, x) in row.iter_mut().enumerate() {
            *x = if seen.contains(&j) { *x + scores.bias(places.head, i, j).0 } else { f32::NEG_INFINITY };
        }
    }
    (x, slope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise};

    const HEADS: Heads =
        Heads { n_heads: 4, n_kv_heads: 2, head_dim: 3, scale: 0.6, window: None, groups: None };

    fn kinds(table: &Tensor) -> Vec<Scores> {
        let relative = Some(Relative { table: table.clone(), zero: 2 });
        vec![
            Scores { relative, ..Scores::default() },
            Scores { alibi: Some(Arc::from([0.5, 0.25, 0.125, 0.0625])), ..Scores::default() },
            Scores { soft_cap: Some(0.7), ..Scores::default() },
            Scores {
                alibi: Some(Arc::from([0.7, 0.3, 0.2, 0.1])),
                alibi_bf16: Some(0.6),
                ..Scores::default()
            },
        ]
    }

    #[test]
    fn gradients_equal_central_differences() {
        for kind in 0..4 {
            for window in [None, Some(2)] {
                let heads = Heads { window, ..HEADS };
                let sequences = [
                    TrainSequence::causal(3),
                    TrainSequence { len: 4, prefix_len: 2 },
                    TrainSequence::full(2),
                ];
                let inputs = [noise(&[9, 24], 1), noise(&[4, 6], 2)];
                check(&inputs, &[], |x| {
                    within(&x[0], &sequences, heads, &kinds(&x[1])[kind], Precision::F32)
                });
            }
        }
        let sequences =
            [(2, 3), (1, 0), (4, 2)].map(|(n_queries, n_keys)| CrossSequence { n_queries, n_keys });
        check(&[noise(&[7, 12], 1), noise(&[5, 12], 2)], &[], |x| {
            cross(&x[0], &x[1], &sequences, HEADS, Precision::F32)
        });
    }

    #[test]
    fn what_is_recorded_equals_what_the_kernel_of_inference_computes() {
        let same = |a: &Tensor, b: &Tensor| {
            a.data().iter().zip(b.data()).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} {b}"));
        };
        let table = noise(&[4, 6], 2);
        let sequences = [TrainSequence::causal(40), TrainSequence::full(7), TrainSequence::full(3)];
        let (qkv, kv) = (noise(&[50, 24], 1), noise(&[23, 12], 3));
        for scores in kinds(&table) {
            let plain = within(&qkv, &sequences, HEADS, &scores, Precision::F32);
            let parts = sequences.map(|s| Part {
                n_queries: s.len,
                n_keys: s.len,
                seen: Seen::Before { prefix_len: s.prefix_len },
            });
            let whole = recorded(
                &qkv,
                &qkv,
                Columns { k: 12, v: 18 },
                parts.to_vec(),
                HEADS,
                &scores,
                Precision::F32,
            );
            same(&plain, &whole);
        }
        let sequences = [(40, 20), (10, 3)].map(|(n_queries, n_keys)| CrossSequence { n_queries, n_keys });
        let q = noise(&[50, 12], 4);
        let parts = sequences.map(|s| Part { n_queries: s.n_queries, n_keys: s.n_keys, seen: Seen::All });
        let whole = recorded(
            &q,
            &kv,
            Columns { k: 0, v: 6 },
            parts.to_vec(),
            HEADS,
            &Scores::default(),
            Precision::F32,
        );
        same(&cross(&q, &kv, &sequences, HEADS, Precision::F32), &whole);
    }
}
