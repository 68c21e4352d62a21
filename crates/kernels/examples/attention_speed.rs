//! Speed of attention: decode in GB/s of keys and values, prefill in GFLOP/s of the causal triangle.
//!
//! `cargo run --release -p rhetor-kernels --example attention_speed [THREADS...] [135M | 1.1B | 8B | MHA]`

use rhetor_kernels::attention::{AttentionOptions, Span, paged};
use rhetor_kernels::kv::{KvPages, KvType, PAGE_LEN};
use rhetor_kernels::threads;
use std::time::Instant;

/// Query heads, kv heads, dimensions of a head.
type Heads = (usize, usize, usize);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let given: Vec<usize> = words.iter().filter_map(|n| n.parse().ok()).collect();
    let wanted = |name: &str| words.iter().all(|word| word.parse::<usize>().is_ok() || word == name);
    for n_threads in if given.is_empty() { vec![1, 2] } else { given } {
        threads::set_threads(n_threads);
        println!("{n_threads} threads");
        for (name, heads) in
            [("135M", (9, 3, 64)), ("1.1B", (32, 4, 64)), ("8B", (32, 8, 128)), ("MHA", (12, 12, 64))]
        {
            for kind in KvType::ALL.into_iter().filter(|_| wanted(name)) {
                let decode: Vec<String> = [256, 2048, 6144].map(|n| decode(heads, kind, n)).into();
                let prefill: Vec<String> =
                    [(0, 512), (1536, 512)].map(|span| prefill(heads, kind, span)).into();
                println!(
                    "{name:5} {:4} decode {}  prefill {}",
                    kind.name(),
                    decode.join(" "),
                    prefill.join(" ")
                );
            }
        }
    }
}

/// Enough layers that no cache holds them, filled with something.
fn layers((_, n_kv_heads, d): Heads, kind: KvType, n: usize, n_layers: usize) -> (Vec<KvPages>, Vec<u32>) {
    let table: Vec<u32> = (0..n.div_ceil(PAGE_LEN) as u32).collect();
    let row: Vec<f32> = (0..n * n_kv_heads * d).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect();
    let layer = || {
        let mut kv = KvPages::new(kind, n_kv_heads, d, table.len());
        kv.write(&table, 0, &row, &row, n_kv_heads * d, n);
        kv
    };
    ((0..n_layers).map(|_| layer()).collect(), table)
}

/// The least seconds of all runs on all layers: what a quiet machine does.
fn time(layers: &[KvPages], mut run: impl FnMut(&KvPages)) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..9 * 30 / layers.len().clamp(1, 30) {
        for kv in layers {
            let (start, cpu) = (Instant::now(), cpu_seconds());
            run(kv);
            let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            // Long runs on a busy machine are interrupted; where the system counts, their own time is told.
            best = best.min(if threads::threads() == 1 && wall > 10e-3 && cpu > 0.0 { cpu } else { wall });
        }
    }
    best
}

/// Seconds that this thread has run, or 0 where the system does not tell.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn decode(heads: Heads, kind: KvType, depth: usize) -> String {
    let width = heads.0 * heads.2;
    // The shallowest stays in the L2 cache and shows the arithmetic, the others come from memory.
    let (layers, table) = layers(heads, kind, depth, if depth < 1000 { 1 } else { 30 });
    let options = AttentionOptions { n_heads: heads.0, scale: 0.125, ..Default::default() };
    let (q, mut out) = (vec![0.1; width], vec![0.0; width]);
    let spans = [Span { table: &table, start: depth - 1, len: 1, tree: None }];
    let seconds = time(&layers, |kv| paged(&q, width, &spans, kv, &options, &mut out));
    let bytes = layers[0].n_bytes() as f64;
    format!("{depth}: {:.1} us {:.1} GB/s", seconds * 1e6, bytes / seconds / 1e9)
}

fn prefill(heads: Heads, kind: KvType, (start, len): (usize, usize)) -> String {
    let width = heads.0 * heads.2;
    let (layers, table) = layers(heads, kind, start + len, 15);
    let options = AttentionOptions { n_heads: heads.0, scale: 0.125, ..Default::default() };
    let (q, mut out) = (vec![0.1; width * len], vec![0.0; width * len]);
    let spans = [Span { table: &table, start, len, tree: None }];
    let seconds = time(&layers, |kv| paged(&q, width, &spans, kv, &options, &mut out));
    let keys = len * start + len * (len + 1) / 2;
    format!("{len}@{start}: {:.0} us {:.0} GFLOP/s", seconds * 1e6, (4 * keys * width) as f64 / seconds / 1e9)
}
