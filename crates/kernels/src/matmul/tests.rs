//! Packed products against obvious ones, on every instruction set.

use super::*;
use crate::isa::Isa;
use crate::quant::quantize;
use proptest::prelude::*;

/// Numbers in -1..1 that look random.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// A weight's bytes in the file: noise, quantized.
fn weight(dtype: DType, n_rows: usize, n_cols: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; n_rows * dtype.bytes_of(n_cols).unwrap()];
    quantize(dtype, &noise(seed, n_rows * n_cols), None, &mut bytes);
    bytes
}

/// The activations as `dtype` sees them.
fn seen_by(dtype: DType, x: &[f32]) -> Vec<f32> {
    if dtype == DType::BF16 {
        return x.iter().map(|&x| crate::half::bf16_to_f32(crate::half::f32_to_bf16(x))).collect();
    }
    if !dtype.is_quantized() {
        return x.to_vec();
    }
    let block = |x: &[f32]| -> Vec<f32> {
        let amax = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let (scale, inverse) = (amax / 127.0, if amax > 0.0 { 127.0 / amax } else { 0.0 });
        x.iter().map(|x| (x * inverse).round_ties_even() * scale).collect()
    };
    x.chunks(32).flat_map(block).collect()
}

/// The products in double precision, and the sums of the magnitudes of their terms.
fn reference(dtype: DType, x: &[f32], bytes: &[u8], n_rows: usize, n_cols: usize) -> Vec<(f64, f64)> {
    let mut w = vec![0.0; n_rows * n_cols];
    dequantize(dtype, bytes, &mut w);
    let x = seen_by(dtype, x);
    let mut out = Vec::new();
    for x in x.chunks(n_cols) {
        for w in w.chunks(n_cols) {
            let terms = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
            out.push(terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs())));
        }
    }
    out
}

/// Columns that a type allows, about `n`.
fn columns(dtype: DType, n: usize) -> usize {
    if dtype.is_quantized() { n.div_ceil(dtype.block_len()) * dtype.block_len() } else { n }
}

/// Tests choose instruction set and threads of the process, so they run one at a time.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn every_type_packs_and_unpacks_to_the_same_bytes() {
    let _alone = alone();
    for dtype in DType::all() {
        for (n_rows, n_cols) in [(1, 256), (16, 512), (37, 256), (5, 100)] {
            let n_cols = columns(dtype, n_cols);
            let n_bytes = n_rows * dtype.bytes_of(n_cols).unwrap();
            // Any bits are a weight.
            let bytes: Vec<u8> = noise(7, n_bytes).iter().map(|x| (x * 1e6) as i32 as u8).collect();
            let packed = Packed::pack(dtype, n_rows, n_cols, &bytes);
            assert!(packed.unpack() == bytes, "{dtype} [{n_rows}, {n_cols}]");
            let full_groups =
                n_rows.next_multiple_of(16) * dtype.bytes_of(n_cols.next_multiple_of(2)).unwrap_or(0);
            assert!(packed.n_bytes() <= full_groups.max(n_bytes), "{dtype} takes {} bytes", packed.n_bytes());
        }
    }
}

#[test]
fn a_row_is_dequantized_exactly() {
    let _alone = alone();
    for dtype in DType::all() {
        let bytes = weight(dtype, 19, 256, 3);
        let mut all = vec![0.0; 19 * 256];
        dequantize(dtype, &bytes, &mut all);
        let packed = Packed::pack(dtype, 19, 256, &bytes);
        let mut row = vec![0.0; 256];
        for i in [0, 15, 16, 18] {
            packed.row(i, &mut row);
            assert_eq!(row, &all[i * 256..][..256], "{dtype} row {i}");
        }
    }
}

#[test]
fn every_instruction_set_is_within_a_millionth_of_the_reference() {
    let _alone = alone();
    for isa in Isa::available() {
        assert!(crate::isa::force(isa));
        for dtype in DType::all() {
            for (n_rows, n_cols, n_tokens) in
                [(1, 1, 1), (16, 64, 3), (50, 300, 13), (130, 576, 16), (33, 512, 77)]
            {
                let n_cols = columns(dtype, n_cols);
                let bytes = weight(dtype, n_rows, n_cols, 1);
                let x = noise(2, n_tokens * n_cols);
                let packed = Packed::pack(dtype, n_rows, n_cols, &bytes);
                let mut out = vec![f32::NAN; n_tokens * n_rows];
                matmul(&x, &[&packed], None, &mut out);
                let expected = reference(dtype, &x, &bytes, n_rows, n_cols);
                for (i, (&got, (want, size))) in out.iter().zip(expected).enumerate() {
                    let error = (f64::from(got) - want).abs();
                    assert!(
                        error <= 1e-6 * size + 1e-9,
                        "{isa:?} {dtype} [{n_rows}, {n_cols}] x {n_tokens}: output {i} is {got}, not {want}"
                    );
                }
            }
        }
    }
    crate::isa::force(Isa::available().last().unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_result_depends_on_row_and_token_alone(
        dtype in prop::sample::select(DType::all().collect::<Vec<_>>()),
        n_rows in 1usize..150,
        n_cols in 1usize..700,
        n_tokens in 1usize..90,
        n_threads in 1usize..4,
        seed in 0u64..1000,
    ) {
        let _alone = alone();
        let n_cols = columns(dtype, n_cols);
        let bytes = weight(dtype, n_rows, n_cols, seed);
        let packed = Packed::pack(dtype, n_rows, n_cols, &bytes);
        let x = noise(seed + 1, n_tokens * n_cols);
        let bias = noise(seed + 2, n_rows);
        for isa in Isa::available() {
            crate::isa::force(isa);
            threads::set_threads(n_threads);
            let mut all = vec![0.0; n_tokens * n_rows];
            matmul(&x, &[&packed], Some(&bias), &mut all);
            threads::set_threads(1);
            let mut one = vec![0.0; n_rows];
            for (x, all) in x.chunks(n_cols).zip(all.chunks(n_rows)) {
                matmul(x, &[&packed], Some(&bias), &mut one);
                prop_assert_eq!(&one, all);
            }
        }
    }
}

#[test]
fn weights_that_share_their_input_are_laid_side_by_side() {
    let _alone = alone();
    let (n_cols, n_tokens) = (512, 5);
    let weights: Vec<Packed> =
        [(DType::Q4K, 48), (DType::Q6K, 17), (DType::F32, 70), (DType::BF16, 3), (DType::Q8_0, 16)]
            .map(|(dtype, n)| Packed::pack(dtype, n, n_cols, &weight(dtype, n, n_cols, n as u64)))
            .into();
    let weights: Vec<&Packed> = weights.iter().collect();
    let n_rows: usize = weights.iter().map(|w| w.n_rows()).sum();
    let x = noise(5, n_tokens * n_cols);
    let bias = noise(6, n_rows);
    let mut all = vec![0.0; n_tokens * n_rows];
    matmul(&x, &weights, Some(&bias), &mut all);
    let mut first = 0;
    for weight in weights {
        let n = weight.n_rows();
        let mut alone = vec![0.0; n_tokens * n];
        matmul(&x, &[weight], Some(&bias[first..first + n]), &mut alone);
        for (alone, all) in alone.chunks(n).zip(all.chunks(n_rows)) {
            assert_eq!(alone, &all[first..first + n], "{}", weight.dtype());
        }
        first += n;
    }
}

#[test]
fn a_token_with_nan_or_infinity_spoils_no_other() {
    let _alone = alone();
    for dtype in DType::all() {
        let packed = Packed::pack(dtype, 20, 256, &weight(dtype, 20, 256, 9));
        let mut x = noise(10, 3 * 256);
        let mut clean = vec![0.0; 3 * 20];
        matmul(&x, &[&packed], None, &mut clean);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            x[256 + 100] = bad;
            let mut out = vec![0.0; 3 * 20];
            matmul(&x, &[&packed], None, &mut out);
            assert_eq!(out[..20], clean[..20], "{dtype}");
            assert_eq!(out[40..], clean[40..], "{dtype}");
            assert!(out[20..40].iter().all(|y| !y.is_finite()), "{dtype}: {bad} gives {:?}", &out[20..40]);
        }
    }
}

#[test]
fn activations_of_any_magnitude_are_multiplied() {
    let _alone = alone();
    let packed = Packed::pack(DType::Q8_0, 16, 32, &weight(DType::Q8_0, 16, 32, 4));
    for magnitude in [0.0, 1e-45, 1e-40, 1e-30, 1e30, 1e37] {
        let mut out = vec![f32::NAN; 16];
        matmul(&[magnitude; 32], &[&packed], None, &mut out);
        assert!(out.iter().all(|y| y.is_finite()), "{magnitude}: {out:?}");
    }
}

#[test]
fn general_products_take_packed_weights_as_the_numbers_that_they_stand_for() {
    use crate::gemm::{Operand, Precision, Update, View, gemm};
    let (t, n_rows, n_cols) = (5, 37, 512);
    let (x, dy) = (noise(1, t * n_cols), noise(2, t * n_rows));
    for dtype in DType::all() {
        let bytes = weight(dtype, n_rows, n_cols, 3);
        let mut w = vec![0.0; n_rows * n_cols];
        dequantize(dtype, &bytes, &mut w);
        let (packed, w) = (Packed::pack(dtype, n_rows, n_cols, &bytes), View::new(&w, n_rows, n_cols));
        let product = |a: View, b: Operand| {
            let mut out = vec![0.0; t * b.n_cols()];
            gemm(Precision::F32, 1.0, a, b, Update::Set, None, &mut out, b.n_cols());
            out
        };
        let (x, dy) = (View::new(&x, t, n_cols), View::new(&dy, t, n_rows));
        assert_eq!(
            product(x, Operand::RowsTransposed(&packed)),
            product(x, w.transposed().into()),
            "{dtype}"
        );
        assert_eq!(product(dy, Operand::Rows(&packed)), product(dy, w.into()), "{dtype}");
    }
}
