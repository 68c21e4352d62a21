//! The circuits of heads: which tokens they look for, what they write, and how heads of two layers compose.
//!
//! A head reads the residual stream through W_Q, W_K and W_V, each [d, D], and writes to it through W_O, [D, d]. What it looks
//! for is W_QK = W_Qᵀ W_K, what it moves is W_OV = W_O W_V. Source: A Mathematical Framework for Transformer
//! Circuits (Elhage et al., 2021), "QK and OV circuits" and "composition". Norms and rotary positions are left out.

use rhetor_kernels::gemm::{Operand, Precision, Update, View, gemm};
use rhetor_tensor::Tensor;
use std::sync::{Arc, Mutex};

use super::eigenvalues::eigenvalues;
use super::heads::shuffle_front;
use super::maps::batch;
use super::{AnalysisError, check};
use crate::layers::{Attended, Linear, Pass, Probe};
use crate::model::{Batch, Model};

/// The matrices of every head of a model, in f32.
pub struct Circuits {
    layers: Vec<Layer>,
    hidden_size: usize,
}

/// The matrices of one layer.
struct Layer {
    /// W_Q of the query heads, W_K and W_V of the key and value heads: [(H + 2K)·d, D]
    qkv: Vec<f32>,
    /// W_O of all heads, transposed: [H·d, D]
    output: Vec<f32>,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

/// How what one head writes is read by a head of a later layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Composition {
    /// It changes what the later head asks for.
    Query,
    /// It changes where the later head looks.
    Key,
    /// It changes what the later head moves.
    Value,
}

/// A pair of heads that compose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Composed {
    /// Layer and head that writes.
    pub from: (usize, usize),
    /// Layer and head that reads.
    pub to: (usize, usize),
    /// By what.
    pub by: Composition,
    /// ‖W_to W_from‖ / (‖W_to‖ ‖W_from‖) in Frobenius norms, less what random matrices have: 1/√D.
    pub score: f32,
}

/// What a sample of tokens says of the way from embeddings to logits: Eᵀ U, [D, D], over the tokens of the sample.
pub(super) struct Sample(Vec<f32>);

/// Tokens of a sample.
const SAMPLE_LEN: usize = 512;

impl Circuits {
    /// Reads the matrices of a decoder's heads, with its adapters.
    ///
    /// Errors: the model is no decoder.
    pub fn of(model: &Model) -> Result<Circuits, AnalysisError> {
        check(model)?;
        let reader = Arc::new(Reader::default());
        model.forward_probed(&Batch::whole(&[0]), reader.clone());
        let layers = std::mem::take(&mut *reader.0.lock().expect("no probe panics"));
        if layers.is_empty() {
            return Err(AnalysisError::NotADecoder { family: model.config().family });
        }
        Ok(Circuits { layers, hidden_size: model.config().hidden_size })
    }

    /// Every pair of heads of an earlier and a later layer, by each way to compose, strongest first.
    pub fn compositions(&self) -> Vec<Composed> {
        let d = self.hidden_size;
        let baseline = (d as f32).sqrt().recip();
        let mut found = Vec::new();
        for (b, later) in self.layers.iter().enumerate() {
            let readers: Vec<Reading> = (0..later.n_heads).map(|head| later.reading(head, d)).collect();
            for (a, earlier) in self.layers[..b].iter().enumerate() {
                for from in 0..earlier.n_heads {
                    let (o, v) = (earlier.o(from, d), earlier.v(from, d));
                    let (h, grams) = (earlier.head_dim, [gram(o, d), gram(v, d)]);
                    let norm = frobenius(None, &grams[0], &grams[1], h);
                    for (to, reading) in readers.iter().enumerate() {
                        for (by, read, out, whole) in &reading.0 {
                            let inner = product(read, o, d); // [d, d]
                            let composed = frobenius(Some(&inner), out, &grams[1], h);
                            let score = composed / (whole * norm).max(f32::MIN_POSITIVE) - baseline;
                            found.push(Composed { from: (a, from), to: (b, to), by: *by, score });
                        }
                    }
                }
            }
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found
    }

    /// Eᵀ U over up to 512 tokens of `choice`, both centred; the embeddings are what enters the first block.
    pub(super) fn sample(
        &mut self,
        model: &Model,
        choice: &[u32],
        seed: u64,
    ) -> Result<Sample, AnalysisError> {
        let mut tokens = choice.to_vec();
        shuffle_front(&mut tokens, SAMPLE_LEN, seed, u64::MAX);
        tokens.truncate(SAMPLE_LEN);
        let (n, d) = (tokens.len(), self.hidden_size);
        let entering = Arc::new(Entering::default());
        let sequences: Vec<Vec<u32>> = tokens.iter().map(|&token| vec![token]).collect();
        model.forward_probed(&batch(model, &sequences)?, entering.clone());
        let mut embeddings = entering.0.lock().expect("no probe panics").take().unwrap_or_default();
        let output = model.output();
        let mut unembeddings = vec![0.0; n * d];
        for (row, &token) in unembeddings.chunks_exact_mut(d).zip(&tokens) {
            output.weights[0].row(token as usize, row);
        }
        centre(&mut embeddings, d);
        centre(&mut unembeddings, d);
        let mut between = vec![0.0; d * d];
        let (e, u) = (View::new(&embeddings, n, d).transposed(), View::new(&unembeddings, n, d));
        gemm(Precision::F32, 1.0, e, Operand::View(u), Update::Set, None, &mut between, d);
        Ok(Sample(between))
    }

    /// Σλ / Σ|λ| of the head's circuit from embeddings to logits; 0 if nothing goes through.
    pub(super) fn copying(&self, layer: usize, head: usize, sample: &Sample) -> f32 {
        let (d, layer) = (self.hidden_size, &self.layers[layer]);
        let h = layer.head_dim;
        // U O V Eᵀ has the eigenvalues of V (Eᵀ U) O, which is only [d, d].
        let mut through = vec![0.0; h * d];
        let (v, between) = (View::new(layer.v(head, d), h, d), View::new(&sample.0, d, d));
        gemm(Precision::F32, 1.0, v, Operand::View(between), Update::Set, None, &mut through, d);
        let circuit = product(&through, layer.o(head, d), d);
        let Some(values) = eigenvalues(&circuit, h) else { return 0.0 };
        let sizes: f64 = values.iter().map(|(re, im)| re.hypot(*im)).sum();
        if sizes == 0.0 { 0.0 } else { (values.iter().map(|(re, _)| re).sum::<f64>() / sizes) as f32 }
    }
}

/// For each way to compose: what reads [d, D], the Gram matrix of what it is read into [d, d], and the norm of both.
struct Reading([(Composition, Vec<f32>, Vec<f32>, f32); 3]);

impl Layer {
    fn q(&self, head: usize, d: usize) -> &[f32] {
        &self.qkv[head * self.head_dim * d..][..self.head_dim * d]
    }

    fn k(&self, head: usize, d: usize) -> &[f32] {
        self.q(self.n_heads + head / (self.n_heads / self.n_kv_heads), d)
    }

    fn v(&self, head: usize, d: usize) -> &[f32] {
        self.q(self.n_heads + self.n_kv_heads + head / (self.n_heads / self.n_kv_heads), d)
    }

    /// Transposed.
    fn o(&self, head: usize, d: usize) -> &[f32] {
        &self.output[head * self.head_dim * d..][..self.head_dim * d]
    }

    fn reading(&self, head: usize, d: usize) -> Reading {
        let (q, k, v, o) = (self.q(head, d), self.k(head, d), self.v(head, d), self.o(head, d));
        let of = |by, read: &[f32], out: &[f32]| {
            let (inner, out) = (gram(read, d), gram(out, d));
            let whole = frobenius(None, &out, &inner, self.head_dim);
            (by, read.to_vec(), out, whole)
        };
        Reading([of(Composition::Query, q, k), of(Composition::Key, k, q), of(Composition::Value, v, o)])
    }
}

/// a bᵀ of matrices with rows of `d`.
fn product(a: &[f32], b: &[f32], d: usize) -> Vec<f32> {
    let (m, n) = (a.len() / d, b.len() / d);
    let mut out = vec![0.0; m * n];
    let b = View::new(b, n, d).transposed();
    gemm(Precision::F32, 1.0, View::new(a, m, d), Operand::View(b), Update::Set, None, &mut out, n);
    out
}

/// a aᵀ of a matrix with rows of `d`.
fn gram(a: &[f32], d: usize) -> Vec<f32> {
    product(a, a, d)
}

/// ‖Lᵀ M R‖ for L and R with rows of any length, from L Lᵀ, R Rᵀ and M, all [d, d]; without M, ‖Lᵀ R‖.
fn frobenius(inner: Option<&[f32]>, left: &[f32], right: &[f32], d: usize) -> f32 {
    // tr(Mᵀ (L Lᵀ) M (R Rᵀ)) is the sum over elements of (L Lᵀ M) ∘ (M R Rᵀ); Gram matrices are their own transposes.
    let (a, b) = match inner {
        Some(inner) => {
            let mut turned = vec![0.0; d * d];
            (0..d * d).for_each(|at| turned[at % d * d + at / d] = inner[at]);
            (product(left, &turned, d), product(inner, right, d))
        }
        None => (left.to_vec(), right.to_vec()),
    };
    let sum: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    sum.max(0.0).sqrt() as f32
}

/// Subtracts from each column its mean.
fn centre(values: &mut [f32], d: usize) {
    let n = (values.len() / d).max(1) as f32;
    let mut mean = vec![0.0; d];
    for row in values.chunks_exact(d) {
        mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x / n);
    }
    values.chunks_exact_mut(d).for_each(|row| row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean));
}

/// The rows of a linear layer as it acts, [out, in] to a list, its bias left out.
fn matrix(linear: &Linear, n_in: usize, pass: &Pass) -> Vec<f32> {
    if linear.hooks.iter().all(|attached| !pass.adapters.has(attached.adapter)) {
        let n_out: usize = linear.weights.iter().map(|weight| weight.n_out()).sum();
        let mut rows = vec![0.0; n_out * n_in];
        let places = linear.weights.iter().flat_map(|w| (0..w.n_out()).map(move |i| (w, i)));
        rows.chunks_exact_mut(n_in).zip(places).for_each(|(row, (weight, i))| weight.row(i, row));
        return rows;
    }
    // With adapters: what it makes of each axis, less what it makes of nothing.
    let mut axes = vec![0.0; (n_in + 1) * n_in];
    (0..n_in).for_each(|i| axes[i * n_in + i] = 1.0);
    let y = linear.forward(&Tensor::from_vec(axes, [n_in + 1, n_in]), pass); // [in + 1, out]
    let nothing = y.row(n_in);
    (0..y.row_len())
        .flat_map(|o| (0..n_in).map(move |i| (o, i)))
        .map(|(o, i)| y.row(i)[o] - nothing[o])
        .collect()
}

#[derive(Default)]
struct Reader(Mutex<Vec<Layer>>);

impl Probe for Reader {
    fn attention(&self, seen: &Attended, mixed: Tensor) -> Tensor {
        let attention = seen.attention;
        let width = attention.n_heads * attention.head_dim;
        let d = attention.qkv.weights[0].n_in();
        let output = matrix(&attention.output, width, seen.pass); // [D, H·d]
        let output = (0..width).flat_map(|i| output[i..].iter().step_by(width).copied()).collect();
        self.0.lock().expect("no probe panics").push(Layer {
            qkv: matrix(&attention.qkv, d, seen.pass),
            output,
            n_heads: attention.n_heads,
            n_kv_heads: attention.n_kv_heads,
            head_dim: attention.head_dim,
        });
        mixed
    }
}

/// Keeps what enters the first block.
#[derive(Default)]
struct Entering(Mutex<Option<Vec<f32>>>);

impl Probe for Entering {
    fn residual(&self, depth: usize, x: Tensor) -> Tensor {
        if depth == 0 {
            *self.0.lock().expect("no probe panics") = Some(x.data().to_vec());
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Normal;

    fn noise(n: usize, stream: u64) -> Vec<f32> {
        let mut normal = Normal::new(5, stream);
        (0..n).map(|_| normal.next()).collect()
    }

    fn layer(h: usize, d: usize, stream: u64) -> Layer {
        Layer {
            qkv: noise(3 * h * d, stream),
            output: noise(h * d, stream + 1),
            n_heads: 1,
            n_kv_heads: 1,
            head_dim: h,
        }
    }

    /// aᵀ b of [h, D] and [h, D], written out.
    fn whole(a: &[f32], b: &[f32], d: usize) -> Vec<f32> {
        let h = a.len() / d;
        let at = |i: usize, j: usize| (0..h).map(|k| a[k * d + i] * b[k * d + j]).sum::<f32>();
        (0..d * d).map(|p| at(p / d, p % d)).collect()
    }

    fn norm(a: &[f32]) -> f32 {
        a.iter().map(|x| x * x).sum::<f32>().sqrt()
    }

    fn times(a: &[f32], b: &[f32], d: usize) -> Vec<f32> {
        (0..d * d).map(|p| (0..d).map(|k| a[p / d * d + k] * b[k * d + p % d]).sum()).collect()
    }

    #[test]
    fn compositions_are_the_norms_of_the_whole_products() {
        let (h, d) = (3, 8);
        let circuits = Circuits { layers: vec![layer(h, d, 1), layer(h, d, 3)], hidden_size: d };
        let [a, b] = circuits.layers.as_slice() else { unreachable!() };
        let ov = whole(a.o(0, d), a.v(0, d), d);
        let of = |read: &[f32], out: &[f32]| {
            let read = whole(out, read, d);
            norm(&times(&read, &ov, d)) / (norm(&read) * norm(&ov)) - (d as f32).sqrt().recip()
        };
        let expected = [
            (Composition::Query, of(b.q(0, d), b.k(0, d))),
            (Composition::Key, of(b.k(0, d), b.q(0, d))),
            (Composition::Value, of(b.v(0, d), b.o(0, d))),
        ];
        let found = circuits.compositions();
        assert_eq!(found.len(), 3);
        for (by, expected) in expected {
            let got = found.iter().find(|pair| pair.by == by).unwrap();
            assert_eq!((got.from, got.to), ((0, 0), (1, 0)));
            assert!((got.score - expected).abs() < 1e-5, "{by:?}: {} for {expected}", got.score);
        }
    }

    #[test]
    fn random_heads_do_not_compose_and_a_head_that_reads_what_another_writes_does() {
        let (h, d) = (4, 64);
        let (a, mut b) = (layer(h, d, 1), layer(h, d, 3));
        let random = Circuits { layers: vec![layer(h, d, 1), layer(h, d, 5)], hidden_size: d };
        assert!(
            random.compositions().iter().all(|pair| pair.score.abs() < 0.06),
            "{:?}",
            random.compositions()
        );
        let written = a.o(0, d).to_vec();
        b.qkv[h * d..2 * h * d].copy_from_slice(&written);
        let found = Circuits { layers: vec![a, b], hidden_size: d }.compositions();
        assert!(found[0].by == Composition::Key && found[0].score > 0.2, "{found:?}");
        assert!(found[1].score < 0.06);
    }

    #[test]
    fn a_circuit_that_writes_what_it_reads_copies() {
        let (h, d) = (4, 16);
        let mut layer = layer(h, d, 1);
        layer.output = layer.v(0, d).to_vec();
        let embeddings = noise(40 * d, 9);
        let e = View::new(&embeddings, 40, d);
        let mut between = vec![0.0; d * d];
        gemm(Precision::F32, 1.0, e.transposed(), Operand::View(e), Update::Set, None, &mut between, d);
        let mut circuits = Circuits { layers: vec![layer], hidden_size: d };
        let copying = circuits.copying(0, 0, &Sample(between.clone()));
        assert!((copying - 1.0).abs() < 1e-3, "{copying}");
        circuits.layers[0].output.iter_mut().for_each(|x| *x = -*x);
        assert!((circuits.copying(0, 0, &Sample(between)) + 1.0).abs() < 1e-3);
    }
}
