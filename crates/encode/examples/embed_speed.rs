//! How fast texts become vectors: `embed_speed MODEL_DIR [THREADS] [f32|bf16] [SECONDS]`.
//!
//! Prints sentences per second for batches of 32 texts of 128 and of 16 tokens, and the CPU time of one sentence.

use rhetor_encode::{Embedder, ReaderOptions, Text};
use rhetor_formats::Checkpoint;
use rhetor_kernels::gemm::Precision;
use rhetor_kernels::threads;
use rhetor_tokenizer::Tokenizer;
use std::path::Path;
use std::time::{Duration, Instant};

const BATCH: usize = 32;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let model = args.first().expect("a model's directory");
    threads::set_threads(args.get(1).map_or(2, |n| n.parse().expect("a number of threads")));
    let precision = match args.get(2).map_or("f32", String::as_str) {
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        other => panic!("{other} is neither f32 nor bf16"),
    };
    let seconds: f64 = args.get(3).map_or(3.0, |s| s.parse().expect("seconds"));
    let checkpoint = Checkpoint::open(Path::new(model)).unwrap_or_else(|error| panic!("{error}"));
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap_or_else(|error| panic!("{error}"));
    let options = ReaderOptions { task: None, precision };
    let embedder =
        Embedder::open(&checkpoint, tokenizer, options, false).unwrap_or_else(|error| panic!("{error}"));
    for len in [128, 16] {
        let text = |i: usize| Text {
            ids: (0..len).map(|j| (1000 + (i * 131 + j * 17) % 20_000) as u32).collect(),
            ..Text::default()
        };
        let texts: Vec<Text> = (0..BATCH).map(text).collect();
        embedder.embed_tokens(&texts, 0);
        let (start, before) = (Instant::now(), cpu_seconds());
        let (mut n, mut best) = (0, Duration::MAX);
        while start.elapsed().as_secs_f64() < seconds {
            let one = Instant::now();
            embedder.embed_tokens(&texts, 0);
            best = best.min(one.elapsed());
            n += BATCH;
        }
        println!(
            "{len} tokens: {:.1} sentences/s, {:.1} in the best batch, {:.3} ms of CPU for each",
            n as f64 / start.elapsed().as_secs_f64(),
            BATCH as f64 / best.as_secs_f64(),
            (cpu_seconds() - before) * 1e3 / n as f64,
        );
    }
}

/// Seconds that the threads of this process have computed, where the system tells it; else 0.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
