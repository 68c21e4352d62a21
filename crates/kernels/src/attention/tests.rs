use super::*;
use crate::testing::{assert_close, noise};

/// softmax(q kᵀ · scale + bias) v for one row, literally, in f64: `keys` gives position, key and value of each visible key.
fn reference(
    q: &[f32],
    keys: &[(usize, Vec<f32>, Vec<f32>)],
    position: usize,
    head: usize,
    options: &AttentionOptions,
) -> Vec<f32> {
    let score = |j: usize, k: &[f32]| {
        let dot: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
        let mut s = dot * f64::from(options.scale);
        if let Some(cap) = options.soft_cap {
            s = f64::from(cap) * (s / f64::from(cap)).tanh();
        }
        if let Some(slopes) = options.alibi {
            s += match options.alibi_bf16 {
                None => f64::from(slopes[head]) * j as f64,
                Some(factor) => {
                    let rounded = half::bf16_to_f32(half::f32_to_bf16(slopes[head] * j as f32));
                    f64::from(factor) * f64::from(rounded)
                }
            };
        }
        if let Some(bias) = options.relative {
            let n = bias.table.len() / options.n_heads;
            let at = (bias.zero as isize + j as isize - position as isize).clamp(0, n as isize - 1);
            s += f64::from(bias.table[head * n + at as usize]);
        }
        s
    };
    let scores: Vec<f64> = keys.iter().map(|(j, k, _)| score(*j, k)).collect();
    let max = scores.iter().copied().fold(f64::MIN, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut out = vec![0.0; q.len()];
    for (p, (_, _, v)) in weights.iter().zip(keys) {
        out.iter_mut().zip(v).for_each(|(out, v)| *out += p / sum * f64::from(*v));
    }
    out.iter().map(|&x| x as f32).collect()
}

/// A sequence whose keys and values are in pages of a mixed-up order.
struct Case {
    n_heads: usize,
    n_kv_heads: usize,
    d: usize,
    q: Vec<f32>,
    kv: KvPages,
    table: Vec<u32>,
}

impl Case {
    fn new(kind: KvType, (n_heads, n_kv_heads, d): (usize, usize, usize), n: usize) -> Case {
        let n_pages = n.div_ceil(PAGE_LEN);
        let table: Vec<u32> = (0..n_pages as u32).rev().collect();
        let mut kv = KvPages::new(kind, n_kv_heads, d, n_pages);
        // What a page held before must not matter.
        let stale = vec![f32::NAN; n_pages * PAGE_LEN * n_kv_heads * d];
        kv.write(&table, 0, &stale, &stale, n_kv_heads * d, n_pages * PAGE_LEN);
        let (k, v) = (noise(n * n_kv_heads * d, 1), noise(n * n_kv_heads * d, 2));
        kv.write(&table, 0, &k, &v, n_kv_heads * d, n);
        Case { n_heads, n_kv_heads, d, q: noise(n * n_heads * d, 3), kv, table }
    }

    fn options(&self) -> AttentionOptions<'static> {
        AttentionOptions { n_heads: self.n_heads, scale: 1.0 / (self.d as f32).sqrt(), ..Default::default() }
    }

    /// The rows of queries `range`, in spans of at most `span_len`.
    fn paged(&self, isa: Isa, options: &AttentionOptions, range: Range<usize>, span_len: usize) -> Vec<f32> {
        let width = self.n_heads * self.d;
        let mut out = vec![f32::NAN; range.len() * width];
        for start in range.clone().step_by(span_len) {
            let len = span_len.min(range.end - start);
            let spans = [Span { table: &self.table, start, len, tree: None }];
            let out = &mut out[(start - range.start) * width..][..len * width];
            paged_on(isa, &self.q[start * width..], width, &spans, &self.kv, options, out);
        }
        out
    }

    fn reference_row(&self, options: &AttentionOptions, i: usize) -> Vec<f32> {
        let first = options.window.map_or(0, |w| (i + 1).saturating_sub(w));
        let row = |head: usize| {
            let keys: Vec<_> = (first..=i)
                .map(|j| {
                    let (mut k, mut v) = (vec![0.0; self.d], vec![0.0; self.d]);
                    let kv_head = head * self.n_kv_heads / self.n_heads;
                    self.kv.read(self.table[j / PAGE_LEN], j % PAGE_LEN, kv_head, &mut k, &mut v);
                    (j, k, v)
                })
                .collect();
            reference(&self.q[(i * self.n_heads + head) * self.d..][..self.d], &keys, i, head, options)
        };
        (0..self.n_heads).flat_map(row).collect()
    }
}

const SHAPES: [(usize, usize, usize); 8] =
    [(9, 3, 64), (4, 4, 16), (7, 1, 100), (2, 2, 80), (8, 2, 128), (3, 1, 26), (1, 1, 1), (71, 1, 8)];

#[test]
fn every_instruction_set_and_storage_agrees_with_the_formula_to_two_millionths() {
    for shape in SHAPES {
        for kind in KvType::ALL {
            for n in [1, 33, 300] {
                let case = Case::new(kind, shape, n);
                for isa in Isa::available() {
                    let got = case.paged(isa, &case.options(), 0..n, n);
                    let width = case.n_heads * case.d;
                    for i in [0, n / 2, n - 1] {
                        assert_close(
                            &got[i * width..][..width],
                            &case.reference_row(&case.options(), i),
                            2e-6,
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn window_biases_and_cap_agree_with_the_formula_to_four_millionths() {
    let slopes: Vec<f32> = (0..6).map(|h| 0.5f32.powi(h + 1)).collect();
    let uneven: Vec<f32> = (0..6).map(|h| 0.7f32.powi(h + 1)).collect();
    let table = noise(6 * 9, 9);
    let case = Case::new(KvType::F32, (6, 2, 32), 600);
    let plain = case.options();
    let windows = [1, 4, 64, 100, 1000].map(|w| AttentionOptions { window: Some(w), ..plain });
    let others = [
        AttentionOptions { alibi: Some(&slopes), ..plain },
        AttentionOptions { alibi: Some(&uneven), alibi_bf16: Some(0.25), ..plain },
        AttentionOptions { soft_cap: Some(1.5), ..plain },
        AttentionOptions { relative: Some(RelativeBias { table: &table, zero: 6 }), ..plain },
        AttentionOptions { alibi: Some(&slopes), soft_cap: Some(2.0), window: Some(70), ..plain },
    ];
    for options in windows.iter().chain(&others) {
        for isa in Isa::available() {
            let got = case.paged(isa, options, 0..600, 600);
            for i in [0, 5, 63, 64, 99, 100, 255, 256, 257, 599] {
                assert_close(&got[i * 192..][..192], &case.reference_row(options, i), 4e-6);
            }
        }
    }
}

#[test]
fn a_row_is_the_same_bits_in_one_go_in_chunks_token_by_token_and_with_any_threads() {
    for (kind, shape, window) in [
        (KvType::F16, (9, 3, 64), None),
        (KvType::F32, (4, 1, 100), Some(70)),
        (KvType::Q8, (4, 4, 40), None),
        (KvType::F16, (71, 1, 16), Some(300)),
    ] {
        let n = 800;
        let case = Case::new(kind, shape, n);
        let options = AttentionOptions { window, ..case.options() };
        for isa in Isa::available() {
            let whole = case.paged(isa, &options, 0..n, n);
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            for span_len in [1, 3, 7, 16, 61, 256] {
                let range = if span_len < 16 { n - 40..n } else { 0..n };
                let width = case.n_heads * case.d;
                let got = case.paged(isa, &options, range.clone(), span_len);
                assert!(
                    bits(&got) == bits(&whole[range.start * width..]),
                    "{isa:?} {kind:?} spans of {span_len}"
                );
            }
        }
    }
}

#[test]
fn spans_of_one_call_do_not_see_each_other() {
    let case = Case::new(KvType::F16, (9, 3, 64), 700);
    let other = Case::new(KvType::F16, (9, 3, 64), 700);
    assert_eq!(case.q, other.q);
    let (options, width) = (case.options(), 9 * 64);
    let alone = case.paged(isa::active(), &options, 0..700, 700);
    let spans = [(699, 1), (100, 50), (0, 3), (600, 1)];
    let rows = spans.iter().flat_map(|&(start, len)| start..start + len);
    let q: Vec<f32> = rows.clone().flat_map(|i| case.q[i * width..][..width].to_vec()).collect();
    let spans = spans.map(|(start, len)| Span { table: &case.table, start, len, tree: None });
    let mut out = vec![f32::NAN; q.len()];
    paged(&q, width, &spans, &case.kv, &options, &mut out);
    for (row, i) in rows.enumerate() {
        assert!(out[row * width..][..width] == alone[i * width..][..width], "row {i}");
    }
}

#[test]
fn dense_agrees_with_the_formula_for_sequences_of_different_lengths() {
    let shape = DenseShape { n_kv_heads: 2, head_dim: 24, q_stride: 100, kv_stride: 50 };
    let sequences = [(5, 9), (1, 300), (70, 70), (4, 0), (9, 5)];
    let (n_queries, n_keys) = (89, 384);
    let (q, k, v) = (noise(n_queries * 100, 1), noise(n_keys * 50, 2), noise(n_keys * 50, 3));
    let options = AttentionOptions { n_heads: 4, scale: 0.3, ..Default::default() };
    let sequences = sequences.map(|(n_queries, n_keys)| DenseSequence { n_queries, n_keys });
    for mask in [Mask::Full, Mask::Causal] {
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; n_queries * 96];
            dense_on(isa, &q, &k, &v, shape, &sequences, mask, &options, &mut out);
            let (mut query, mut key) = (0, 0);
            for s in sequences {
                for t in 0..s.n_queries {
                    let end = match mask {
                        Mask::Full => s.n_keys,
                        Mask::Causal => (s.n_keys + t + 1).saturating_sub(s.n_queries),
                    };
                    for head in 0..4 {
                        let row = |x: &[f32], j: usize| x[(key + j) * 50 + head / 2 * 24..][..24].to_vec();
                        let keys: Vec<_> = (0..end).map(|j| (j, row(&k, j), row(&v, j))).collect();
                        let expected =
                            reference(&q[(query + t) * 100 + head * 24..][..24], &keys, 0, head, &options);
                        assert_close(&out[((query + t) * 4 + head) * 24..][..24], &expected, 2e-6);
                    }
                }
                (query, key) = (query + s.n_queries, key + s.n_keys);
            }
        }
    }
}

#[test]
fn a_query_that_sees_nothing_gives_zeros_and_infinite_scores_give_no_nan() {
    let shape = DenseShape { n_kv_heads: 1, head_dim: 2, q_stride: 2, kv_stride: 2 };
    let options = AttentionOptions { n_heads: 1, scale: 1.0, ..Default::default() };
    let sequences = [DenseSequence { n_queries: 2, n_keys: 1 }];
    let mut out = [f32::NAN; 4];
    dense(&[1.0; 4], &[1.0; 2], &[3.0, 4.0], shape, &sequences, Mask::Causal, &options, &mut out);
    assert_eq!(out, [0.0, 0.0, 3.0, 4.0]);
    let sequences = [DenseSequence { n_queries: 1, n_keys: 2 }];
    let keys = [f32::NEG_INFINITY, 0.0, 1.0, 0.0];
    dense(&[1.0; 2], &keys, &[5.0, 6.0, 7.0, 8.0], shape, &sequences, Mask::Full, &options, &mut out[..2]);
    assert_eq!(out[..2], [7.0, 8.0]);
    dense(
        &[1.0; 2],
        &[f32::NEG_INFINITY; 4],
        &[5.0; 4],
        shape,
        &sequences,
        Mask::Full,
        &options,
        &mut out[..2],
    );
    assert_eq!(out[..2], [0.0, 0.0]);
}

#[test]
fn a_nan_reaches_only_the_queries_that_see_it() {
    let mut case = Case::new(KvType::F32, (2, 1, 16), 100);
    case.kv.write(&case.table, 50, &[f32::NAN; 16], &[1.0; 16], 16, 1);
    for isa in Isa::available() {
        let out = case.paged(isa, &case.options(), 0..100, 100);
        assert!(out[..50 * 32].iter().all(|x| x.is_finite()) && out[50 * 32..].iter().all(|x| x.is_nan()));
    }
}

#[test]
fn great_scores_do_not_overflow() {
    let case = Case::new(KvType::F32, (2, 1, 16), 300);
    let options = AttentionOptions { scale: 1e30, ..case.options() };
    assert!(case.paged(isa::active(), &options, 0..300, 300).iter().all(|x| x.is_finite()));
}

/// Parents of a tree of 23 queries: several roots, levels mixed, and no query before its parent.
const PARENTS: [Option<usize>; 23] = [
    None,
    None,
    Some(0),
    Some(0),
    Some(1),
    None,
    Some(3),
    Some(2),
    Some(4),
    Some(4),
    Some(6),
    Some(10),
    Some(5),
    Some(11),
    Some(1),
    Some(13),
    Some(15),
    Some(9),
    Some(16),
    Some(0),
    Some(18),
    Some(12),
    Some(20),
];

#[test]
fn a_query_of_a_tree_sees_what_is_before_the_span_its_ancestors_and_itself() {
    let n_tree = PARENTS.len();
    let (mut depths, mut sees) = (vec![0; n_tree], vec![false; n_tree * n_tree]);
    for (i, parent) in PARENTS.iter().enumerate() {
        if let Some(parent) = *parent {
            depths[i] = depths[parent] + 1;
            sees.copy_within(parent * n_tree..(parent + 1) * n_tree, i * n_tree);
        }
        sees[i * n_tree + i] = true;
    }
    let tree = Tree { depths: &depths, sees: &sees };
    let slopes: Vec<f32> = (0..6).map(|h| 0.5f32.powi(h + 1)).collect();
    let table = noise(6 * 9, 9);
    for kind in [KvType::F32, KvType::F16] {
        // A span that begins in the middle of a page and crosses a chunk, and one that has nothing before it.
        for start in [245, 0] {
            let case = Case::new(kind, (6, 2, 32), start + n_tree);
            let plain = case.options();
            let all = [
                plain,
                AttentionOptions { window: Some(7), ..plain },
                AttentionOptions { window: Some(100), soft_cap: Some(2.0), ..plain },
                AttentionOptions { alibi: Some(&slopes), ..plain },
                AttentionOptions { relative: Some(RelativeBias { table: &table, zero: 6 }), ..plain },
            ];
            for options in &all {
                for isa in Isa::available() {
                    let mut out = vec![f32::NAN; n_tree * 192];
                    let span = Span { table: &case.table, start, len: n_tree, tree: Some(tree) };
                    paged_on(isa, &case.q[start * 192..], 192, &[span], &case.kv, options, &mut out);
                    for i in 0..n_tree {
                        let position = start + depths[i];
                        let first = options.window.map_or(0, |w| (position + 1).saturating_sub(w));
                        let ancestors = (0..=i).filter(|j| sees[i * n_tree + j]);
                        let slots = (0..start).map(|j| (j, j));
                        let slots = slots.chain(ancestors.map(|j| (start + depths[j], start + j)));
                        let slots: Vec<_> = slots.filter(|(at, _)| *at >= first).collect();
                        for head in 0..6 {
                            let key = |&(at, slot): &(usize, usize)| {
                                let (mut k, mut v) = (vec![0.0; 32], vec![0.0; 32]);
                                let page = case.table[slot / PAGE_LEN];
                                case.kv.read(page, slot % PAGE_LEN, head / 3, &mut k, &mut v);
                                (at, k, v)
                            };
                            let keys: Vec<_> = slots.iter().map(key).collect();
                            let q = &case.q[((start + i) * 6 + head) * 32..][..32];
                            let expected = reference(q, &keys, position, head, options);
                            assert_close(&out[(i * 6 + head) * 32..][..32], &expected, 4e-6);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_tree_that_is_one_path_gives_the_bits_of_a_sequence() {
    let n = 12;
    let depths: Vec<usize> = (0..n).collect();
    let sees: Vec<bool> = (0..n * n).map(|at| at % n <= at / n).collect();
    let case = Case::new(KvType::F16, (6, 2, 32), 300 + n);
    for window in [None, Some(5), Some(70)] {
        let options = AttentionOptions { window, ..case.options() };
        let tree = Some(Tree { depths: &depths, sees: &sees });
        let mut out = vec![f32::NAN; n * 192];
        let span = Span { table: &case.table, start: 300, len: n, tree };
        paged(&case.q[300 * 192..], 192, &[span], &case.kv, &options, &mut out);
        assert!(out == case.paged(isa::active(), &options, 300..300 + n, n), "window {window:?}");
    }
}

#[test]
#[should_panic(expected = "a span to position 33 in 1 pages")]
fn a_span_beyond_its_pages_panics() {
    let case = Case::new(KvType::F32, (1, 1, 4), 32);
    let spans = [Span { table: &case.table, start: 32, len: 1, tree: None }];
    paged(&[0.0; 4], 4, &spans, &case.kv, &case.options(), &mut [0.0; 4]);
}
