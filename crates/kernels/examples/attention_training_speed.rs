//! Times attention over whole sequences with its gradients, in milliseconds and in GFLOP/s of the causal
//! half.
//!
//! `cargo run --release -p rhetor-kernels --example attention_training_speed -- [PRECISIONS] [THREADS]
//! [SHAPES]`, lists with commas; a shape is SEQUENCESxTOKENSxHEADSxKV_HEADSxDIMENSIONS. Each number is the
//! best and the median of repeats; with one thread its own time counts, which is what a quiet machine would
//! need.

use rhetor_kernels::attention::training::{self, TrainSequence};
use rhetor_kernels::{gemm::Precision, threads};
use std::time::{Duration, Instant};

const SHAPES: &str = "1x1024x12x12x64,8x256x12x12x64,32x64x8x8x16,1x4096x8x2x128";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let list = |i: usize, default: &str| -> Vec<String> {
        args.get(i).map_or(default, |s| s.as_str()).split(',').map(str::to_owned).collect()
    };
    for text in list(2, SHAPES) {
        let sizes: Vec<usize> = text.split('x').map(|n| n.parse().expect("a size")).collect();
        let &[n, t, h, k, d] = &sizes[..] else { panic!("five sizes, got {text}") };
        let shape = training::TrainShape {
            n_heads: h,
            n_kv_heads: k,
            head_dim: d,
            stride: (h + 2 * k) * d,
            k_offset: h * d,
            v_offset: (h + k) * d,
            scale: 1.0 / (d as f32).sqrt(),
            window: None,
            groups: None,
        };
        let sequences = vec![TrainSequence::causal(t); n];
        let numbers = |n: usize| -> Vec<f32> { (0..n).map(|i| (i * 31 % 97) as f32 / 97.0 - 0.5).collect() };
        let (qkv, d_out) = (numbers(n * t * shape.stride), numbers(n * t * h * d));
        let (mut out, mut lse, mut d_qkv) = (d_out.clone(), vec![0.0; n * t * h], vec![0.0; qkv.len()]);
        for precision in list(0, "f32,bf16") {
            let which = if precision == "bf16" { Precision::Bf16 } else { Precision::F32 };
            for n_threads in list(1, "1,2") {
                threads::set_threads(n_threads.parse().expect("a number of threads"));
                let products = n * h * d * t * (t + 1);
                print!("{text:18} {precision:4} t{n_threads}");
                time("forward", 2 * products, || {
                    training::forward(which, &qkv, &shape, &sequences, None, &mut out, &mut lse)
                });
                time("backward", 5 * products, || {
                    let gradient = &mut d_qkv;
                    training::backward(
                        which, &qkv, &out, &d_out, &lse, &shape, &sequences, None, gradient, None,
                    )
                });
                println!();
            }
        }
    }
}

fn time(name: &str, flops: usize, mut work: impl FnMut()) {
    work();
    let (mut seconds, begun) = (Vec::new(), Instant::now());
    while seconds.len() < 7 || begun.elapsed().as_secs_f64() < 0.4 {
        let (start, cpu_start) = (Instant::now(), cpu_time());
        work();
        let time = if threads::threads() == 1 { cpu_time() - cpu_start } else { start.elapsed() };
        seconds.push(time.as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let (best, median) = (seconds[0], seconds[seconds.len() / 2]);
    print!(" | {name} {:7.3} {:7.3} ms {:6.1} GFLOP/s", best * 1e3, median * 1e3, flops as f64 / best / 1e9);
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
