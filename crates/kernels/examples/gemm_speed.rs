//! Times products of matrices in the three orientations of a linear layer, `Y = X Wᵀ` with T tokens, in
//! GFLOP/s.
//!
//! `cargo run --release -p rhetor-kernels --example gemm_speed -- [PRECISIONS] [THREADS]
//! [TOKENSxINPUTSxOUTPUTS] [TYPES]`, lists with commas. Each line gives the best and the median of repeats:
//! forward, gradient of the input, gradient of the weight. With one thread its own time counts, which is what
//! a quiet machine would need. For each of the quantized types follows the gradient of the input of a weight
//! of that type.

use rhetor_kernels::gemm::{Operand, Precision, Update, View, gemm};
use rhetor_kernels::{DType, matmul::Packed, threads};
use std::time::{Duration, Instant};

const SHAPES: &str = "1024x768x3072,1024x3072x768,1024x768x768,4096x288x768,1024x768x50257,2048x128x344,\
                      2048x768x16,2048x16x768,8192x768x768,64x768x768,8x768x3072,1x768x3072";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let list = |i: usize, default: &str| -> Vec<String> {
        args.get(i).map_or(default, |s| s.as_str()).split(',').map(|s| s.trim().to_owned()).collect()
    };
    for shape in list(2, SHAPES) {
        let sizes: Vec<usize> = shape.split('x').map(|n| n.parse().expect("a size")).collect();
        let &[t, k, n] = &sizes[..] else { panic!("TOKENSxINPUTSxOUTPUTS, got {shape}") };
        let numbers = |n: usize| -> Vec<f32> { (0..n).map(|i| (i * 31 % 97) as f32 / 97.0 - 0.5).collect() };
        let (x, w, dy) = (numbers(t * k), numbers(n * k), numbers(t * n));
        let types = list(3, "").into_iter().filter(|name| !name.is_empty());
        let weights: Vec<(String, Packed)> = types
            .map(|name| {
                let dtype = DType::from_name(&name).expect("a type's name");
                let bytes: Vec<u8> =
                    (0..n * dtype.bytes_of(k).expect("whole blocks")).map(|i| (i * 31 % 27) as u8).collect();
                (name, Packed::pack(dtype, n, k, &bytes))
            })
            .collect();
        let (mut y, mut dx, mut dw) = (numbers(t * n), numbers(t * k), numbers(n * k));
        for precision in list(0, "f32,bf16") {
            let which = if precision == "bf16" { Precision::Bf16 } else { Precision::F32 };
            for n_threads in list(1, "1,2") {
                threads::set_threads(n_threads.parse().expect("a number of threads"));
                let (vx, vw, vdy) = (View::new(&x, t, k), View::new(&w, n, k), View::new(&dy, t, n));
                print!("{shape:16} {precision:4} t{n_threads}");
                time(" Y", t * k * n, || {
                    gemm(which, 1.0, vx, vw.transposed().into(), Update::Set, None, &mut y, n)
                });
                time("dX", t * k * n, || gemm(which, 1.0, vdy, vw.into(), Update::Set, None, &mut dx, k));
                time("dW", t * k * n, || {
                    gemm(which, 1.0, vdy.transposed(), vx.into(), Update::Add, None, &mut dw, k)
                });
                for (name, weight) in &weights {
                    let rows = Operand::Rows(weight);
                    time(name, t * k * n, || gemm(which, 1.0, vdy, rows, Update::Set, None, &mut dx, k));
                }
                println!();
            }
        }
    }
}

fn time(name: &str, n_products: usize, mut work: impl FnMut()) {
    work();
    let (mut seconds, begun) = (Vec::new(), Instant::now());
    while seconds.len() < 5 || begun.elapsed().as_secs_f64() < 0.3 {
        let (start, cpu_start) = (Instant::now(), cpu_time());
        work();
        let time = if threads::threads() == 1 { cpu_time() - cpu_start } else { start.elapsed() };
        seconds.push(time.as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let rate = |s: f64| 2.0 * n_products as f64 / s / 1e9;
    print!(" | {name} {:6.1} {:6.1}", rate(seconds[0]), rate(seconds[seconds.len() / 2]));
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
