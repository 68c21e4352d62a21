use super::*;
use crate::testing::noise;

/// A call in small.
#[derive(Clone)]
struct Case {
    shape: TrainShape,
    lengths: Vec<usize>,
    n_prefix: usize,
    /// How many rows of a sequence of that length see each other.
    prefix_len: fn(usize) -> usize,
}

/// Outputs and gradients.
struct Results {
    out: Vec<f64>,
    lse: Vec<f64>,
    d_qkv: Vec<f64>,
    d_prefix_k: Vec<f64>,
    d_prefix_v: Vec<f64>,
}

fn shape(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> TrainShape {
    let k_offset = n_heads * head_dim;
    let v_offset = k_offset + n_kv_heads * head_dim;
    TrainShape {
        n_heads,
        n_kv_heads,
        head_dim,
        stride: v_offset + n_kv_heads * head_dim + 1,
        k_offset,
        v_offset,
        scale: 0.7 / (head_dim as f32).sqrt(),
        window: None,
        groups: None,
    }
}

impl Case {
    fn n_rows(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn sequences(&self) -> Vec<TrainSequence> {
        let sequence = |&len: &usize| TrainSequence { len, prefix_len: (self.prefix_len)(len) };
        self.lengths.iter().map(sequence).collect()
    }

    fn qkv(&self) -> Vec<f64> {
        noise(self.n_rows() * self.shape.stride, 1).into_iter().map(f64::from).collect()
    }

    fn prefix(&self) -> [Vec<f64>; 2] {
        let n = self.n_prefix * self.shape.n_kv_heads * self.shape.head_dim;
        [noise(n, 2), noise(n, 3)].map(|x| x.into_iter().map(f64::from).collect())
    }

    fn d_out(&self) -> Vec<f32> {
        noise(self.n_rows() * self.shape.n_heads * self.shape.head_dim, 4)
    }

    /// Whether query `i` sees key `j` of its sequence of `n`.
    fn sees(&self, head: usize, n: usize, i: usize, j: usize) -> bool {
        let s = &self.shape;
        let (mut i, mut j) = (i, j);
        if let Some(groups) = s.groups {
            let shift = if head >= s.n_heads / 2 { groups.len / 2 } else { 0 };
            if groups.shift == Shift::Wrapped {
                // The roll by minus half a group, then groups from the start.
                (i, j) = ((i + n - shift) % n, (j + n - shift) % n);
                if i / groups.len != j / groups.len {
                    return false;
                }
            } else if (i + groups.len - shift) / groups.len != (j + groups.len - shift) / groups.len {
                return false;
            }
        }
        j < (i + 1).max((self.prefix_len)(n)) && s.window.is_none_or(|window| j + window > i)
    }

    /// The formulas, literally, in f64; the gradients from `d_out`.
    fn reference(&self, qkv: &[f64], prefix: &[Vec<f64>; 2]) -> Results {
        let s = &self.shape;
        let (h, kv, d) = (s.n_heads, s.n_kv_heads, s.head_dim);
        let d_out = self.d_out();
        let mut r = Results {
            out: vec![0.0; self.n_rows() * h * d],
            lse: vec![f64::NEG_INFINITY; self.n_rows() * h],
            d_qkv: vec![0.0; qkv.len()],
            d_prefix_k: vec![0.0; prefix[0].len()],
            d_prefix_v: vec![0.0; prefix[1].len()],
        };
        let mut first = 0;
        for &n in &self.lengths {
            for (i, head) in (0..n).flat_map(|i| (0..h).map(move |head| (i, head))) {
                let kv_head = head * kv / h;
                let q = (first + i) * s.stride + head * d;
                let at = (first + i) * h + head;
                // Where the keys and values are: in the prefix or in the buffer.
                let own = (0..n).filter(|&j| self.sees(head, n, i, j)).map(|j| (false, first + j));
                let keys: Vec<(bool, usize)> = (0..self.n_prefix).map(|j| (true, j)).chain(own).collect();
                let place = |&(in_prefix, j): &(bool, usize), offset: usize| {
                    if in_prefix { (j * kv + kv_head) * d } else { j * s.stride + offset + kv_head * d }
                };
                let k_of = |key: &(bool, usize), x: usize| {
                    if key.0 { prefix[0][place(key, 0) + x] } else { qkv[place(key, s.k_offset) + x] }
                };
                let v_of = |key: &(bool, usize), x: usize| {
                    if key.0 { prefix[1][place(key, 0) + x] } else { qkv[place(key, s.v_offset) + x] }
                };
                let scale = f64::from(s.scale);
                let score = |key| (0..d).map(|x| qkv[q + x] * k_of(key, x)).sum::<f64>() * scale;
                let scores: Vec<f64> = keys.iter().map(score).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                if keys.is_empty() {
                    continue;
                }
                r.lse[at] = max + sum.ln();
                let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp() / sum).collect();
                for x in 0..d {
                    r.out[at * d + x] = keys.iter().zip(&weights).map(|(key, p)| p * v_of(key, x)).sum();
                }
                let d_o = |x: usize| f64::from(d_out[at * d + x]);
                let d_weight = |key| (0..d).map(|x| d_o(x) * v_of(key, x)).sum::<f64>();
                let d_weights: Vec<f64> = keys.iter().map(d_weight).collect();
                let mean: f64 = d_weights.iter().zip(&weights).map(|(x, p)| x * p).sum();
                for ((key, p), d_p) in keys.iter().zip(&weights).zip(&d_weights) {
                    let d_score = p * (d_p - mean) * scale;
                    for x in 0..d {
                        r.d_qkv[q + x] += d_score * k_of(key, x);
                        let (d_key, d_value) = (d_score * qkv[q + x], p * d_o(x));
                        if key.0 {
                            r.d_prefix_k[place(key, 0) + x] += d_key;
                            r.d_prefix_v[place(key, 0) + x] += d_value;
                        } else {
                            r.d_qkv[place(key, s.k_offset) + x] += d_key;
                            r.d_qkv[place(key, s.v_offset) + x] += d_value;
                        }
                    }
                }
            }
            first += n;
        }
        r
    }

    /// What the kernel computes; gradients are added to ones.
    fn compute(&self, isa: Isa, precision: Precision) -> Results {
        let floats = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let (qkv, prefix, d_out) = (floats(&self.qkv()), self.prefix().map(|x| floats(&x)), self.d_out());
        let mut out = vec![f32::NAN; d_out.len()];
        let mut lse = vec![f32::NAN; self.n_rows() * self.shape.n_heads];
        let mut d_qkv = vec![1.0; qkv.len()];
        let (mut d_k, mut d_v) = (vec![1.0; prefix[0].len()], vec![1.0; prefix[0].len()]);
        let some = self.n_prefix > 0;
        let given = some.then_some(Prefix { k: &prefix[0], v: &prefix[1] });
        forward_on(isa, precision, &qkv, &self.shape, &self.sequences(), given, &mut out, &mut lse);
        let wanted = some.then_some(PrefixGradient { k: &mut d_k, v: &mut d_v });
        let (shape, sequences) = (&self.shape, &self.sequences());
        backward_on(isa, precision, &qkv, &out, &d_out, &lse, shape, sequences, given, &mut d_qkv, wanted);
        let doubles = |x: &[f32], minus: f64| x.iter().map(|&x| f64::from(x) - minus).collect::<Vec<f64>>();
        Results {
            out: doubles(&out, 0.0),
            lse: doubles(&lse, 0.0),
            d_qkv: doubles(&d_qkv, 1.0),
            d_prefix_k: doubles(&d_k, 1.0),
            d_prefix_v: doubles(&d_v, 1.0),
        }
    }

    #[track_caller]
    fn check(&self) {
        let expected = self.reference(&self.qkv(), &self.prefix());
        for isa in Isa::available() {
            for (precision, bound) in [(Precision::F32, 2e-5), (Precision::Bf16, 4e-2)] {
                let got = self.compute(isa, precision);
                for (name, got, expected) in [
                    ("out", &got.out, &expected.out),
                    ("lse", &got.lse, &expected.lse),
                    ("d_qkv", &got.d_qkv, &expected.d_qkv),
                    ("d_prefix_k", &got.d_prefix_k, &expected.d_prefix_k),
                    ("d_prefix_v", &got.d_prefix_v, &expected.d_prefix_v),
                ] {
                    let size =
                        expected.iter().filter(|x| x.is_finite()).fold(1.0f64, |max, x| max.max(x.abs()));
                    for (i, (x, y)) in got.iter().zip(expected).enumerate() {
                        let close = x == y || (x - y).abs() <= bound * size;
                        assert!(close, "{} {precision:?} {name} {i}: {x}, not {y}, of {size}", isa.name());
                    }
                }
            }
        }
    }
}

#[test]
fn outputs_and_gradients_agree_with_the_formulas_at_odd_lengths() {
    for (n_heads, n_kv_heads, d) in [(2, 2, 16), (4, 2, 5), (3, 1, 64), (1, 1, 80)] {
        for lengths in [vec![1], vec![7, 0, 1, 64], vec![65, 3], vec![130], vec![200, 5]] {
            Case { shape: shape(n_heads, n_kv_heads, d), lengths, n_prefix: 0, prefix_len: |_| 0 }.check();
        }
    }
}

#[test]
fn windows_rows_that_see_each_other_and_prefixes_agree_with_the_formulas() {
    for prefix_len in [|_| 0, |n| n, |n: usize| n / 2, |n: usize| n.min(67)] as [fn(usize) -> usize; 4] {
        for window in [None, Some(1), Some(20), Some(150)] {
            for n_prefix in [0, 1, 195] {
                let shape = TrainShape { window, ..shape(4, 2, 9) };
                Case { shape, lengths: vec![70, 2, 260], n_prefix, prefix_len }.check();
            }
        }
    }
}

#[test]
fn groups_agree_with_the_formulas() {
    for (len, shift) in
        [(4, Shift::Cut), (10, Shift::Cut), (3, Shift::Cut), (4, Shift::Wrapped), (6, Shift::Wrapped)]
    {
        let shape = TrainShape { groups: Some(Groups { len, shift }), ..shape(6, 2, 8) };
        let lengths = if shift == Shift::Cut { vec![33, 1, 10] } else { vec![24, 12] };
        for prefix_len in [|_| 0, |n| n, |n: usize| n / 2] as [fn(usize) -> usize; 3] {
            // Wrapped groups have no first rows.
            if shift == Shift::Cut || prefix_len(8) != 4 {
                Case { shape, lengths: lengths.clone(), n_prefix: 3, prefix_len }.check();
            }
        }
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let window = Some(3);
    let case = Case {
        shape: TrainShape { window, ..shape(2, 1, 3) },
        lengths: vec![4, 3],
        n_prefix: 2,
        prefix_len: |_| 2,
    };
    let (qkv, prefix, d_out) = (case.qkv(), case.prefix(), case.d_out());
    let loss = |qkv: &[f64], prefix: &[Vec<f64>; 2]| -> f64 {
        case.reference(qkv, prefix).out.iter().zip(&d_out).map(|(x, &y)| x * f64::from(y)).sum()
    };
    let got = case.compute(isa::active(), Precision::F32);
    let slope = |f: &dyn Fn(f64) -> f64| (f(1e-5) - f(-1e-5)) / 2e-5;
    for (i, gradient) in got.d_qkv.iter().enumerate() {
        let expected = slope(&|by| {
            let mut moved = qkv.clone();
            moved[i] += by;
            loss(&moved, &prefix)
        });
        assert!((gradient - expected).abs() < 2e-5, "{i}: {gradient}, not {expected}");
    }
    for (which, gradients) in [&got.d_prefix_k, &got.d_prefix_v].into_iter().enumerate() {
        for (i, gradient) in gradients.iter().enumerate() {
            let expected = slope(&|by| {
                let mut moved = prefix.clone();
                moved[which][i] += by;
                loss(&qkv, &moved)
            });
            assert!((gradient - expected).abs() < 2e-5, "prefix {which} {i}: {gradient}, not {expected}");
        }
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let case =
        Case { shape: shape(6, 3, 16), lengths: vec![100, 40, 70], n_prefix: 5, prefix_len: |n| n / 3 };
    let compute = |n_threads: usize| {
        threads::set_threads(n_threads);
        let r = case.compute(isa::active(), Precision::F32);
        [r.out, r.lse, r.d_qkv, r.d_prefix_k, r.d_prefix_v]
    };
    let expected = compute(1);
    assert!(compute(2) == expected && compute(3) == expected);
}

#[test]
fn shifted_sparse_attention_gives_the_outputs_of_its_authors() {
    let bytes = include_bytes!("../../../fixtures/longlora/golden.bin");
    let numbers: Vec<f32> =
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
    let (t, row) = (16, 4 * 8);
    let tensors: Vec<&[f32]> = numbers.chunks_exact(t * row).collect();
    let qkv: Vec<f32> = (0..t)
        .flat_map(|i| tensors[..3].iter().flat_map(move |x| x[i * row..(i + 1) * row].iter().copied()))
        .collect();
    for (shift, expected) in [(Shift::Cut, tensors[3]), (Shift::Wrapped, tensors[4])] {
        let shape = TrainShape {
            stride: 3 * row,
            scale: 1.0 / 8f32.sqrt(),
            groups: Some(Groups { len: 4, shift }),
            ..shape(4, 4, 8)
        };
        let (mut out, mut lse) = (vec![0.0; t * row], vec![0.0; t * 4]);
        forward(Precision::F32, &qkv, &shape, &[TrainSequence::causal(t)], None, &mut out, &mut lse);
        crate::testing::assert_close(&out, expected, 1e-5);
    }
}
