//! Dropout, with random numbers that are a pure function of seed, stream and element.
//!
//! The generator is Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011,
//! section 3.3): no state, so the backward pass, a recomputed block and any number of threads draw the same
//! mask.

use crate::arch::vector::{Vector, per_isa};
use crate::{isa, rows};

/// Elements whose words are drawn together: word w of counter 16 b + l belongs to element 64 b + 16 w + l.
const BLOCK: usize = 64;

/// Sets each element of `x` to 0 with probability `p` and multiplies the others by 1 / (1 − p).
///
/// Whether element i stays depends on (`seed`, `stream`, i) alone, so the same call on dy is the gradient.
/// Give each place and step of a run a `stream` of its own. Source: arXiv:1207.0580, in its inverted form.
/// Panics unless 0 <= p <= 1.
#[track_caller]
pub fn apply(x: &mut [f32], p: f32, seed: u64, stream: u64) {
    assert!((0.0..=1.0).contains(&p), "probability {p}");
    if p == 0.0 {
        return;
    }
    let isa = isa::active();
    rows::for_each_block(x, BLOCK, |first, x| drop_block(isa, x, p, seed, stream, first as u64));
}

per_isa! {
    fn drop_block(x: &mut [f32], p: f32, seed: u64, stream: u64, first_block: u64) = drop_body
}

/// Plain Rust on 16 lanes, which the compiler turns into the instruction set's vectors.
#[inline(always)]
fn drop_body<V: Vector>(x: &mut [f32], p: f32, seed: u64, stream: u64, first_block: u64) {
    // A word below this is a zero; at p = 1 none must escape.
    let limit = (f64::from(p) * 4_294_967_296.0) as u64;
    let (last_dropped, factor) = match limit {
        0 => return,
        4_294_967_296.. => (u32::MAX, 0.0),
        _ => ((limit - 1) as u32, (1.0 / (1.0 - f64::from(p))) as f32),
    };
    let (blocks, rest) = x.as_chunks_mut::<BLOCK>();
    for (i, x) in blocks.iter_mut().enumerate() {
        drop_64(x, last_dropped, factor, seed, stream, first_block + i as u64);
    }
    if !rest.is_empty() {
        let mut x = [0f32; BLOCK];
        x[..rest.len()].copy_from_slice(rest);
        drop_64(&mut x, last_dropped, factor, seed, stream, first_block + blocks.len() as u64);
        rest.copy_from_slice(&x[..rest.len()]);
    }
}

#[inline(always)]
fn drop_64(x: &mut [f32; BLOCK], last_dropped: u32, factor: f32, seed: u64, stream: u64, block: u64) {
    let first = block * 16;
    // 16 counters beginning at a multiple of 16 differ in their lowest four bits only.
    let low = std::array::from_fn(|l| first as u32 + l as u32);
    let fixed = [(first >> 32) as u32, stream as u32, (stream >> 32) as u32];
    let words = philox([low, [fixed[0]; 16], [fixed[1]; 16], [fixed[2]; 16]], seed);
    for (x, &word) in x.iter_mut().zip(words.as_flattened()) {
        // All bits or none: a choice of numbers would become a jump for each.
        let mask = u32::from(word > last_dropped).wrapping_neg();
        *x = f32::from_bits((*x * factor).to_bits() & mask);
    }
}

/// Philox4x32-10 of 16 counters side by side. Words are kept in 64 bits, which is what the multiplier takes
/// and gives.
#[inline(always)]
fn philox(counters: [[u32; 16]; 4], seed: u64) -> [[u32; 16]; 4] {
    let mut c = counters.map(|words| words.map(u64::from));
    let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
    for _ in 0..10 {
        let [c0, c1, c2, c3] = c;
        for l in 0..16 {
            let a = (c0[l] & LOW) * 0xd251_1f53;
            let b = (c2[l] & LOW) * 0xcd9e_8d57;
            // The high halves of words 1 and 3 are never looked at.
            c[0][l] = (b >> 32) ^ c1[l] ^ u64::from(k0);
            c[1][l] = b;
            c[2][l] = (a >> 32) ^ c3[l] ^ u64::from(k1);
            c[3][l] = a;
        }
        k0 = k0.wrapping_add(0x9e37_79b9);
        k1 = k1.wrapping_add(0xbb67_ae85);
    }
    c.map(|words| words.map(|word| word as u32))
}

const LOW: u64 = 0xffff_ffff;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::noise;

    /// The known answers of Random123, file `kat_vectors`, line `philox4x32 10`.
    #[test]
    fn the_generator_gives_the_known_answers() {
        let cases: [([u32; 4], u64, [u32; 4]); 3] = [
            ([0; 4], 0, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], u64::MAX, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                0x299f_31d0_a409_3822,
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, seed, expected) in cases {
            let words = philox(counter.map(|word| [word; 16]), seed);
            assert_eq!(words.map(|word| word[3]), expected);
        }
    }

    fn mask(n: usize, p: f32, seed: u64, stream: u64) -> Vec<f32> {
        let mut x = vec![1.0; n];
        apply(&mut x, p, seed, stream);
        x
    }

    #[test]
    fn the_rate_is_p_and_what_stays_is_scaled() {
        let n = 1_000_000;
        for p in [0.05f32, 0.1, 0.5, 0.9] {
            let x = mask(n, p, 1, 2);
            let dropped = x.iter().filter(|&&x| x == 0.0).count() as f64;
            // Four standard deviations.
            let deviation = (f64::from(p) * (1.0 - f64::from(p)) * n as f64).sqrt();
            assert!((dropped - f64::from(p) * n as f64).abs() < 4.0 * deviation, "{p}: {dropped} of {n}");
            assert!(x.iter().all(|&x| x == 0.0 || (x - 1.0 / (1.0 - p)).abs() < 1e-6));
        }
        assert_eq!(mask(100, 0.0, 1, 2), [1.0; 100]);
        assert_eq!(mask(100, 1.0, 1, 2), [0.0; 100]);
    }

    #[test]
    fn streams_and_seeds_and_neighbours_are_independent() {
        let n = 200_000;
        let x = mask(n, 0.5, 1, 2);
        let shifted: Vec<f32> = x[1..].iter().chain([&1.0]).copied().collect();
        for (name, other) in [
            ("stream", mask(n, 0.5, 1, 3)),
            ("high stream", mask(n, 0.5, 1, 2 + (1 << 32))),
            ("seed", mask(n, 0.5, 2, 2)),
            ("high seed", mask(n, 0.5, 1 + (1 << 32), 2)),
            ("neighbour", shifted),
        ] {
            let equal = x.iter().zip(&other).filter(|(x, y)| x == y).count() as f64;
            assert!((equal / n as f64 - 0.5).abs() < 4.0 * 0.5 / (n as f64).sqrt(), "{name}: {equal} of {n}");
        }
    }

    #[test]
    fn an_element_depends_on_its_index_alone() {
        let all = mask(100_001, 0.3, 7, 8);
        for n in [1, 63, 64, 65, 1000, 99_999] {
            assert!(mask(n, 0.3, 7, 8) == all[..n]);
        }
        for n_threads in [1, 2, 3] {
            crate::threads::set_threads(n_threads);
            assert!(mask(100_001, 0.3, 7, 8) == all);
        }
        for isa in Isa::available() {
            let mut x = vec![1.0; 1000];
            drop_block(isa, &mut x, 0.3, 7, 8, 0);
            assert!(x == all[..1000]);
        }
    }

    #[test]
    fn the_same_call_on_the_gradient_is_the_backward_pass() {
        let (mut x, mut d) = (noise(1000, 1), vec![2.0; 1000]);
        let before = x.clone();
        apply(&mut x, 0.3, 5, 6);
        apply(&mut d, 0.3, 5, 6);
        for i in 0..1000 {
            assert!((x[i] - before[i] * d[i] / 2.0).abs() < 1e-6);
        }
    }
}
