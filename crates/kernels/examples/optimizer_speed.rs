//! Times the kernels of training on tensors from memory: optimizers in ns per parameter, others in ns per
//! element.
//!
//! `cargo run --release -p rhetor-kernels --example optimizer_speed -- [FILTER] [THREADS]`. Each line gives
//! the best and the median of many repeats; other work on the machine makes a median worse, hardly ever the
//! best.

use rhetor_kernels::activation::{self, Activation};
use rhetor_kernels::cross_entropy::{self, CrossEntropy};
use rhetor_kernels::optimizer::{Adafactor, Adam8bit, AdamW, Lion, Muon, Sgd, State8bit};
use rhetor_kernels::{add, dropout, embedding, half, layer_norm, quant::nf4, reduce, rms_norm, threads};
use std::time::{Duration, Instant};

/// Parameters: 128 MB of values, far beyond any cache.
const N: usize = 32 << 20;

/// Runs what the user asked for.
struct Bench {
    filter: String,
}

impl Bench {
    fn run(&self, name: &str, n: usize, mut work: impl FnMut()) {
        if !name.contains(&self.filter) {
            return;
        }
        let mut seconds: Vec<f64> = Vec::new();
        let begun = Instant::now();
        while seconds.len() < 5 || begun.elapsed() < Duration::from_millis(1500) {
            let start = Instant::now();
            work();
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let ns = |s: f64| s * 1e9 / n as f64;
        println!("{name:24} {:6.3} {:6.3} ns", ns(seconds[0]), ns(seconds[seconds.len() / 2]));
    }
}

fn main() {
    let bench = Bench { filter: std::env::args().nth(1).unwrap_or_default() };
    threads::set_threads(std::env::args().nth(2).map_or(2, |s| s.parse().expect("a number of threads")));
    optimizers(&bench);
    operations(&bench);
    losses(&bench);
}

/// Numbers of -1..1.
fn fill(n: usize, step: usize) -> Vec<f32> {
    (0..n).map(|i| (i * step % 1013) as f32 / 506.0 - 1.0).collect()
}

fn optimizers(bench: &Bench) {
    let (mut values, gradients) = (fill(N, 7), fill(N, 11));
    let (mut m, mut v) = (fill(N, 13), vec![0.5f32; N]);
    // What the machine can do: two reads and a write, 12 bytes an element.
    bench.run("optimizer none: add", N, || add::add(&mut values, &gradients));
    let adamw = AdamW { step: 10, ..AdamW::default() };
    bench.run("optimizer adamw", N, || adamw.update(&mut values, &gradients, &mut m, &mut v));
    bench.run("optimizer lion", N, || Lion::default().update(&mut values, &gradients, &mut m));
    let sgd = Sgd { momentum: 0.9, ..Sgd::default() };
    bench.run("optimizer sgd", N, || sgd.update(&mut values, &gradients, &mut m));
    bench.run("optimizer muon direction", N, || Muon::default().direction(&gradients, &mut m, &mut v));
    let (mut r, mut c) = (vec![0.1; 8192], vec![0.1; N / 8192]);
    let adafactor = Adafactor { step: 10, ..Adafactor::default() };
    bench.run("optimizer adafactor", N, || adafactor.update_matrix(&mut values, &gradients, &mut r, &mut c));
    let mut codes = [vec![0u8; N], vec![0u8; N]];
    let mut scales = [vec![0f32; N / 256], vec![0f32; N / 256]];
    bench.run("optimizer adam8bit", N, || {
        let ([m, v], [m_scales, v_scales]) = (&mut codes, &mut scales);
        let (m, v) = (State8bit { codes: m, scales: m_scales }, State8bit { codes: v, scales: v_scales });
        Adam8bit(adamw).update(&mut values, &gradients, m, v);
    });
    bench.run("reduce squares", N, || assert!(reduce::sum_of_squares(&gradients) > 0.0));
    bench.run("reduce not finite", N, || assert!(reduce::first_not_finite(&gradients).is_none()));
}

/// Activations of 512 tokens of a small model, which stay in the caches.
fn operations(bench: &Bench) {
    let (n_rows, d, vocab_size) = (512, 768, 50_257);
    let n = n_rows * d;
    let (x, dy, weight) = (fill(n, 7), fill(n, 11), fill(d, 13));
    let (mut out, mut sums, mut sums2) = (vec![0f32; n], vec![0f32; d], vec![0f32; d]);
    bench.run("rms_norm", n, || rms_norm::rms_norm(&x, &weight, 1e-5, &mut out));
    bench.run("rms_norm backward", n, || {
        rms_norm::backward(&x, &weight, 1e-5, &dy, &mut out, Some(&mut sums))
    });
    bench.run("layer_norm", n, || layer_norm::layer_norm(&x, &weight, None, 1e-5, &mut out));
    bench.run("layer_norm backward", n, || {
        layer_norm::backward(&x, &weight, 1e-5, &dy, &mut out, Some(&mut sums), Some(&mut sums2))
    });
    for kind in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
        out.copy_from_slice(&dy);
        bench.run(&format!("backward {kind:?}"), n, || activation::backward(kind, &x, &mut out));
        let (d_out, d_gate_up) = (&dy[..n / 2], &mut out);
        bench.run(&format!("gated backward {kind:?}"), n / 2, || {
            activation::gated_backward(kind, &x, d / 2, d_out, d_gate_up)
        });
    }
    bench.run("column sums", n, || add::column_sums(&x, &mut sums));
    bench.run("column products", n, || add::column_products(&x, &dy, &mut sums));
    bench.run("dropout and a copy", n, || {
        out.copy_from_slice(&x);
        dropout::apply(&mut out, 0.1, 1, 2)
    });
    let ids: Vec<u32> = (0..n_rows as u32).map(|i| i * 97 % vocab_size as u32).collect();
    let mut table = vec![0f32; vocab_size * d];
    bench.run("embedding", n, || embedding::scatter_add(&ids, &dy, &mut table));
    let mut bits = vec![0u16; n];
    bench.run("half to bf16", n, || half::narrow_bf16(&x, &mut bits));
    bench.run("half from bf16", n, || half::widen_bf16(&bits, &mut out));
    let (n_rows, n_cols) = (2048, 2048);
    let values = fill(n_rows * n_cols, 7);
    let weight = nf4::Nf4::quantize(n_rows, n_cols, &values);
    let mut row = vec![0f32; n_cols];
    bench.run("nf4 read, one thread", n_rows * n_cols, || (0..n_rows).for_each(|i| weight.read(i, &mut row)));
    bench.run("nf4 quantize", n_rows * n_cols, || drop(nf4::quantize(&values, 64)));
}

/// Rows of logits as GPT-2 has them.
fn losses(bench: &Bench) {
    let (n_rows, vocab_size) = (64, 50_257);
    let n = n_rows * vocab_size;
    let logits: Vec<f32> = fill(n, 7).iter().map(|x| 8.0 * x).collect();
    let mut d = logits.clone();
    let targets: Vec<u32> = (0..n_rows as u32).map(|i| i * 97 % vocab_size as u32).collect();
    let (mut losses, mut lse) = (vec![0f32; n_rows], vec![0f32; n_rows]);
    let options = CrossEntropy { smoothing: 0.0, z_loss: 0.0 };
    bench.run("cross-entropy", n, || {
        cross_entropy::rows(&mut d, vocab_size, &targets, None, 1.0, options, &mut losses)
    });
    bench.run("cross-entropy, loss only", n, || {
        cross_entropy::losses_only(&logits, vocab_size, &targets, options, &mut losses)
    });
    bench.run("log_probs", n, || {
        cross_entropy::log_probs(&logits, vocab_size, &targets, &mut losses, &mut lse)
    });
    bench.run("distill", n, || {
        cross_entropy::distill(&mut d, &logits, vocab_size, 2.0, None, 1.0, &mut losses)
    });
}
