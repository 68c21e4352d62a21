//! Times products with packed weights, by type: one token from memory in GB/s, eight, and a prompt in Tera-op/s.
//!
//! `cargo run --release -p rhetor-kernels --example matmul_speed -- [TYPES] [TOKENS] [THREADS] [ROWSxCOLUMNS]`, lists with commas.
//! Each line gives the best and the median of interleaved repeats; weights come from memory, not from the caches.

use rhetor_kernels::{DType, matmul, threads};
use std::time::{Duration, Instant};

/// Bytes of weights that a round walks through, beyond any cache.
const ROUND: usize = 192 << 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let list = |i: usize, default: &str| -> Vec<String> {
        args.get(i).map_or(default, |s| s.as_str()).split(',').map(str::to_owned).collect()
    };
    let all: Vec<String> = DType::all().map(|dtype| dtype.name().to_owned()).collect();
    let types = list(0, &all.join(","));
    let tokens: Vec<usize> =
        list(1, "1,8,512").iter().map(|s| s.parse().expect("a number of tokens")).collect();
    let n_threads: Vec<usize> =
        list(2, "1,2").iter().map(|s| s.parse().expect("a number of threads")).collect();
    let shape = list(3, "2048x2048");
    let (n_rows, n_cols) = shape[0].split_once('x').expect("ROWSxCOLUMNS");
    let (n_rows, n_cols): (usize, usize) = (n_rows.parse().expect("rows"), n_cols.parse().expect("columns"));
    for name in types {
        let dtype = DType::from_name(&name).expect("a type's name");
        let n_bytes = n_rows * dtype.bytes_of(n_cols).expect("whole blocks");
        let n_weights = ROUND.div_ceil(n_bytes);
        // Small codes and scales, so that no product overflows.
        let bytes: Vec<u8> = (0..n_bytes).map(|i| (i * 31 % 27) as u8).collect();
        let start = Instant::now();
        let weights: Vec<_> =
            (0..n_weights).map(|_| matmul::Packed::pack(dtype, n_rows, n_cols, &bytes)).collect();
        let packed = (n_bytes * n_weights) as f64 / start.elapsed().as_secs_f64() / 1e9;
        print!("{name:7} pack {packed:5.2} GB/s");
        for &n_tokens in &tokens {
            for &n in &n_threads {
                threads::set_threads(n);
                let x: Vec<f32> = (0..n_tokens * n_cols).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect();
                let mut out = vec![0.0; n_tokens * n_rows];
                let mut seconds: Vec<f64> = Vec::new();
                let begun = Instant::now();
                while seconds.len() < 7 || begun.elapsed().as_secs_f64() < 0.5 {
                    let weight = &weights[seconds.len() % n_weights];
                    let (start, cpu_start) = (Instant::now(), cpu_time());
                    matmul::matmul(&x, &[weight], None, &mut out);
                    // With one thread its own time is what a quiet machine would need.
                    let time = if n == 1 { cpu_time() - cpu_start } else { start.elapsed() };
                    seconds.push(time.as_secs_f64());
                }
                seconds.sort_by(f64::total_cmp);
                let rate = |s: f64| match n_tokens {
                    0..=16 => n_bytes as f64 / s / 1e9,
                    _ => 2.0 * (n_tokens * n_rows * n_cols) as f64 / s / 1e12,
                };
                let unit = if n_tokens <= 16 { "GB/s" } else { "Top/s" };
                let (best, median) = (rate(seconds[0]), rate(seconds[seconds.len() / 2]));
                print!(" | T{n_tokens} t{n} {best:5.2} {median:5.2} {unit}");
            }
        }
        println!();
    }
}

/// The time that this thread has been running.
fn cpu_time() -> Duration {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, to: *mut Timespec) -> i32;
    }
    const THREAD_CPU_TIME: i32 = 3;
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the C library's function fills in the struct, which has its layout on 64-bit Linux.
    unsafe { clock_gettime(THREAD_CPU_TIME, &mut time) };
    Duration::new(time.seconds as u64, time.nanoseconds as u32)
}
