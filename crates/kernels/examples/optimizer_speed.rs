//! Times the kernels of training on tensors from memory: optimizers in ns per parameter, others in ns per element.
//!
//! `cargo run --release -p rhetor-kernels --example optimizer_speed -- [FILTER] [THREADS]`. Each line gives the best and the
//! median of many repeats; other work on the machine makes a median worse, hardly ever the best.

use rhetor_kernels::cross_entropy::{self, CrossEntropy};
use rhetor_kernels::optimizer::{Adafactor, Adam8bit, AdamW, Lion, Muon, Sgd, State8bit};
use rhetor_kernels::{
    activation, add, dropout, embedding, half, layer_norm, quant::nf4, reduce, rms_norm, threads,
};
use std::time::{Duration, Instant};

/// Parameters: 128 MB of values, far beyond any cache.
const N: usize = 32 << 20;

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let n_threads = std::env::args().nth(2).map_or(2, |s| s.parse().expect("a number of threads"));
    threads::set_threads(n_threads);
    let bench = |name: &str, n: usize, run: &mut dyn FnMut()| {
        let mut seconds: Vec<f64> = Vec::new();
        let begun = Instant::now();
        while seconds.len() < 5 || begun.elapsed() < Duration::from_millis(1500) {
            let start = Instant::now();
            run();
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let ns = |s: f64| s * 1e9 / n as f64;
        println!("{name:24} {:6.3} {:6.3} ns", ns(seconds[0]), ns(seconds[seconds.len() / 2]));
    };
    let wanted = |name: &str| name.contains(&filter);
    let fill =
        |n: usize, step: usize| (0..n).map(|i| (i * step % 1013) as f32 / 506.0 - 1.0).collect::<Vec<f32>>();

    if ["copy", "adamw", "adam8bit", "lion", "sgd", "adafactor", "muon"].into_iter().any(wanted) {
        let (mut values, gradients) = (fill(N, 7), fill(N, 11));
        let (mut m, mut v) = (fill(N, 13), vec![0.5f32; N]);
        if wanted("copy") {
            // What the machine can do: two reads and a write, 12 bytes an element.
            bench("copy: add", N, &mut || add::add(&mut values, &gradients));
        }
        if wanted("adamw") {
            let options = AdamW { step: 10, ..AdamW::default() };
            bench("adamw", N, &mut || options.update(&mut values, &gradients, &mut m, &mut v));
        }
        if wanted("lion") {
            bench("lion", N, &mut || Lion::default().update(&mut values, &gradients, &mut m));
        }
        if wanted("sgd") {
            let options = Sgd { momentum: 0.9, ..Sgd::default() };
            bench("sgd", N, &mut || options.update(&mut values, &gradients, &mut m));
        }
        if wanted("muon") {
            bench("muon direction", N, &mut || Muon::default().direction(&gradients, &mut m, &mut v));
        }
        if wanted("adafactor") {
            let (mut r, mut c) = (vec![0.1; 8192], vec![0.1; N / 8192]);
            let options = Adafactor { step: 10, ..Adafactor::default() };
            bench("adafactor", N, &mut || options.update_matrix(&mut values, &gradients, &mut r, &mut c));
        }
        if wanted("adam8bit") {
            let mut codes = [vec![0u8; N], vec![0u8; N]];
            let mut scales = [vec![0f32; N / 256], vec![0f32; N / 256]];
            let options = Adam8bit(AdamW { step: 10, ..AdamW::default() });
            bench("adam8bit", N, &mut || {
                let [m, v] = &mut codes;
                let [m_scales, v_scales] = &mut scales;
                let (m, v) =
                    (State8bit { codes: m, scales: m_scales }, State8bit { codes: v, scales: v_scales });
                options.update(&mut values, &gradients, m, v);
            });
        }
    }
    // Activations: 512 tokens of a small model.
    let (n_rows, d, vocab) = (512, 768, 50_257);
    let n = n_rows * d;
    let (x, dy, weight) = (fill(n, 7), fill(n, 11), fill(d, 13));
    let (mut out, mut sums, mut sums2) = (vec![0f32; n], vec![0f32; d], vec![0f32; d]);
    if wanted("norm") {
        bench("rms_norm", n, &mut || rms_norm::rms_norm(&x, &weight, 1e-5, &mut out));
        bench("rms_norm backward", n, &mut || {
            rms_norm::backward(&x, &weight, 1e-5, &dy, &mut out, Some(&mut sums))
        });
        bench("layer_norm", n, &mut || layer_norm::layer_norm(&x, &weight, None, 1e-5, &mut out));
        bench("layer_norm backward", n, &mut || {
            layer_norm::backward(&x, &weight, 1e-5, &dy, &mut out, Some(&mut sums), Some(&mut sums2))
        });
    }
    if wanted("activation") {
        for kind in
            [activation::Activation::Gelu, activation::Activation::GeluTanh, activation::Activation::Silu]
        {
            out.copy_from_slice(&dy);
            bench(&format!("activation {kind:?}"), n, &mut || activation::backward(kind, &x, &mut out));
            let mut d_gate_up = vec![0f32; n];
            let d_out = &dy[..n / 2];
            bench(&format!("gated {kind:?}"), n / 2, &mut || {
                activation::gated_backward(kind, &x, d / 2, d_out, &mut d_gate_up)
            });
        }
    }
    if wanted("columns") {
        bench("columns: sums", n, &mut || add::column_sums(&x, &mut sums));
        bench("columns: products", n, &mut || add::column_products(&x, &dy, &mut sums));
    }
    if wanted("reduce") {
        let x = fill(N, 7);
        bench("reduce squares", N, &mut || assert!(reduce::sum_of_squares(&x) > 0.0));
        bench("reduce not finite", N, &mut || assert!(reduce::first_not_finite(&x).is_none()));
    }
    if wanted("dropout") {
        bench("dropout", n, &mut || {
            out.copy_from_slice(&x);
            dropout::apply(&mut out, 0.1, 1, 2)
        });
        bench("dropout: copy alone", n, &mut || out.copy_from_slice(&x));
    }
    if wanted("embedding") {
        let ids: Vec<u32> = (0..n_rows as u32).map(|i| i * 97 % vocab as u32).collect();
        let mut table = vec![0f32; vocab * d];
        bench("embedding", n, &mut || embedding::scatter_add(&ids, &dy, &mut table));
    }
    if wanted("half") {
        let mut bits = vec![0u16; n];
        bench("half to bf16", n, &mut || half::narrow_bf16(&x, &mut bits));
        bench("half from bf16", n, &mut || half::widen_bf16(&bits, &mut out));
    }
    if wanted("nf4") {
        let (rows, cols) = (2048, 2048);
        let weight = nf4::Nf4::quantize(rows, cols, &fill(rows * cols, 7));
        let mut row = vec![0f32; cols];
        bench("nf4 read, one thread", rows * cols, &mut || (0..rows).for_each(|i| weight.read(i, &mut row)));
        let values = fill(rows * cols, 7);
        bench("nf4 quantize", rows * cols, &mut || drop(nf4::quantize(&values, 64)));
    }
    if wanted("cross") {
        let n_rows = 64;
        let logits: Vec<f32> = fill(n_rows * vocab, 7).iter().map(|x| 8.0 * x).collect();
        let (teacher, mut d) = (logits.clone(), logits.clone());
        let targets: Vec<u32> = (0..n_rows as u32).map(|i| i * 97 % vocab as u32).collect();
        let (mut losses, mut lse) = (vec![0f32; n_rows], vec![0f32; n_rows]);
        let options = CrossEntropy { smoothing: 0.0, z_loss: 0.0 };
        bench("cross-entropy", n_rows * vocab, &mut || {
            cross_entropy::rows(&mut d, vocab, &targets, None, 1.0, options, &mut losses)
        });
        bench("cross: losses only", n_rows * vocab, &mut || {
            cross_entropy::losses_only(&logits, vocab, &targets, options, &mut losses)
        });
        bench("cross: log_probs", n_rows * vocab, &mut || {
            cross_entropy::log_probs(&logits, vocab, &targets, &mut losses, &mut lse)
        });
        bench("cross: distill", n_rows * vocab, &mut || {
            cross_entropy::distill(&mut d, &teacher, vocab, 2.0, None, 1.0, &mut losses)
        });
    }
}
