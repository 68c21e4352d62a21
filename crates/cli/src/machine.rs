//! What this machine has.

use rhetor_kernels::gemm::{Operand, Precision, Update, View, gemm};
use std::time::Instant;

/// Memory of the machine, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All there is.
    pub total: u64,
    /// What programs can have without swapping.
    pub available: u64,
}

/// Memory of the machine; `None` where the system does not say it in `/proc/meminfo`.
pub fn memory() -> Option<Memory> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    };
    Some(Memory { total: field("MemTotal:")?, available: field("MemAvailable:")? })
}

/// The processor's name, where the system says it.
pub fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// Bytes that `n_threads` threads read from memory in a second, measured for a few hundredths of a second.
///
/// Decoding reads every weight once for each token, so this divided by the model's size bounds its speed.
pub fn read_bandwidth(n_threads: usize) -> f64 {
    const WORDS: usize = 8 << 20;
    let words = vec![1u64; WORDS];
    let chunk = WORDS.div_ceil(n_threads.max(1));
    let once = || {
        let start = Instant::now();
        let sum: u64 = std::thread::scope(|scope| {
            let parts: Vec<_> =
                words.chunks(chunk).map(|part| scope.spawn(move || part.iter().sum::<u64>())).collect();
            parts.into_iter().map(|part| part.join().unwrap_or(0)).sum()
        });
        std::hint::black_box(sum);
        (WORDS * 8) as f64 / start.elapsed().as_secs_f64()
    };
    // The best of a few: other programs can only make it slower.
    (0..4).map(|_| once()).fold(0.0, f64::max)
}

/// Bytes that `n_threads` threads read and write in a second while they copy, measured for a few hundredths of a second.
pub fn copy_bandwidth(n_threads: usize) -> f64 {
    const WORDS: usize = 4 << 20;
    let (from, mut to) = (vec![1u64; WORDS], vec![0u64; WORDS]);
    let chunk = WORDS.div_ceil(n_threads.max(1));
    let mut once = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for (from, to) in from.chunks(chunk).zip(to.chunks_mut(chunk)) {
                scope.spawn(move || to.copy_from_slice(from));
            }
        });
        std::hint::black_box(&to);
        (2 * WORDS * 8) as f64 / start.elapsed().as_secs_f64()
    };
    (0..4).map(|_| once()).fold(0.0, f64::max)
}

/// Operations that a product of two matrices of f32 does in a second, on the threads that are started; the best of a few.
pub fn gemm_flops() -> f64 {
    const N: usize = 512;
    let (a, b, mut c) = (vec![0.5f32; N * N], vec![0.25f32; N * N], vec![0.0f32; N * N]);
    let mut once = || {
        let start = Instant::now();
        let (a, b) = (View::new(&a, N, N), Operand::View(View::new(&b, N, N)));
        gemm(Precision::F32, 1.0, a, b, Update::Set, None, &mut c, N);
        std::hint::black_box(&c);
        (2 * N * N * N) as f64 / start.elapsed().as_secs_f64()
    };
    (0..6).map(|_| once()).fold(0.0, f64::max)
}

/// The instruction-set extensions that matter for rhetor and that this processor has.
pub fn cpu_features() -> Vec<&'static str> {
    let mut features = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! add {
            ($($name:tt)*) => {
                $(
                    if std::arch::is_x86_feature_detected!($name) {
                        features.push($name);
                    }
                )*
            };
        }
        add!("sse4.2" "avx" "f16c" "fma" "avx2" "avxvnni");
        add!("avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni" "avx512bf16");
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! add {
            ($($name:tt)*) => {
                $(
                    if std::arch::is_aarch64_feature_detected!($name) {
                        features.push($name);
                    }
                )*
            };
        }
        add!("neon" "dotprod" "i8mm" "bf16" "fp16");
    }
    features
}
