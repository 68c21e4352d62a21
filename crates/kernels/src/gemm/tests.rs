use super::*;
use crate::half::{bf16_to_f32, f32_to_bf16};
use crate::isa::Isa;
use crate::testing::noise;

impl View<'_> {
    /// Element (i, j).
    fn at(&self, i: usize, j: usize) -> f32 {
        let at = i * self.row_stride + j * self.col_stride;
        match self.elements {
            Elements::F32(x) => x[at],
            Elements::Bf16(x) => bf16_to_f32(x[at]),
        }
    }
}

/// A product to be computed, in one of its forms.
struct Case {
    m: usize,
    k: usize,
    n: usize,
    a_transposed: bool,
    b_transposed: bool,
}

/// The formula in f64, and the sum of the products' sizes, to which errors are relative.
#[allow(clippy::too_many_arguments)]
pub(super) fn reference(
    precision: Precision,
    alpha: f32,
    a: View,
    b: View,
    update: Update,
    bias: Option<&[f32]>,
    out: &[f32],
    out_stride: usize,
) -> Vec<(f64, f64)> {
    let round =
        |x: f32| f64::from(if precision == Precision::Bf16 { bf16_to_f32(f32_to_bf16(x)) } else { x });
    let (m, k, n) = (a.n_rows(), a.n_cols(), b.n_cols());
    let element = |i: usize, j: usize| {
        let (mut sum, mut size) = (0.0, 0.0);
        for p in 0..k {
            let product = f64::from(alpha) * round(a.at(i, p)) * round(b.at(p, j));
            sum += product;
            size += product.abs();
        }
        let old = if update == Update::Add { f64::from(out[i * out_stride + j]) } else { 0.0 };
        let bias = bias.map_or(0.0, |bias| f64::from(bias[j]));
        (old + (sum + bias), size + old.abs() + bias.abs())
    };
    (0..m * n).map(|at| element(at / n, at % n)).collect()
}

/// Runs a case on every instruction set, with combinations of precision, update, bias and alpha.
fn check_case(case: &Case) {
    let &Case { m, k, n, a_transposed, b_transposed } = case;
    // Rows of both factors lie apart, with what is no number between them.
    let apart = |n_rows: usize, n_cols: usize, seed: u64| {
        let mut data = noise(n_rows * (n_cols + 1), seed);
        data.chunks_mut(n_cols + 1).for_each(|row| row[n_cols] = f32::NAN);
        data
    };
    let (a_rows, a_cols) = if a_transposed { (k, m) } else { (m, k) };
    let (b_rows, b_cols) = if b_transposed { (n, k) } else { (k, n) };
    let (a, b) = (apart(a_rows, a_cols, 1), apart(b_rows, b_cols, 2));
    let a = View::strided(&a, a_rows, a_cols, a_cols + 1);
    let b = View::strided(&b, b_rows, b_cols, b_cols + 1);
    let a = if a_transposed { a.transposed() } else { a };
    let b = if b_transposed { b.transposed() } else { b };
    let bias = noise(n, 3);
    let stride = n + 3;
    for (precision, update, bias, alpha) in [
        (Precision::F32, Update::Set, None, 1.0),
        (Precision::F32, Update::Add, Some(&bias[..]), -0.5),
        (Precision::Bf16, Update::Set, Some(&bias[..]), 2.0),
        (Precision::Bf16, Update::Add, None, 1.0),
    ] {
        let before = match update {
            Update::Set => vec![f32::NAN; m * stride],
            Update::Add => noise(m * stride, 4),
        };
        let expected = reference(precision, alpha, a, b, update, bias, &before, stride);
        for isa in Isa::available() {
            let mut out = before.clone();
            gemm_on(isa, &threads_run, precision, alpha, a, b.into(), update, bias, &mut out, stride);
            for (at, &(value, size)) in expected.iter().enumerate() {
                let got = f64::from(out[at / n * stride + at % n]);
                // Each rounding of a partial sum is at most 6e-8 of the sizes; they are few hundred at most
                // in a row.
                let bound = size.max(1e-30) * 6e-8 * (4.0 + (k as f64).sqrt());
                assert!(
                    (got - value).abs() <= bound,
                    "{} [{m}, {k}] [{k}, {n}], transposed {a_transposed} {b_transposed}, {precision:?} {update:?} \
                     at {at}: {got}, not {value}",
                    isa.name()
                );
            }
            for (row, old) in out.chunks(stride).zip(before.chunks(stride)) {
                let bits = |x: &[f32]| x[n..].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(row), bits(old), "what is not the output's was written");
            }
        }
    }
}

fn check_orientations(m: usize, k: usize, n: usize) {
    for orientation in 0..4 {
        let (a_transposed, b_transposed) = (orientation & 1 == 1, orientation & 2 == 2);
        check_case(&Case { m, k, n, a_transposed, b_transposed });
    }
}

#[test]
fn every_instruction_set_orientation_and_size_agrees_with_the_formula() {
    let lengths = [0, 1, 4, 7, 8, 9, 15, 16, 17, 47, 48, 49, 100];
    for (i, &m) in lengths.iter().enumerate() {
        for (j, &n) in lengths.iter().enumerate() {
            check_orientations(m, [0, 1, 2, 3, 15, 16, 31, 32, 33, 65][(i + 7 * j) % 10], n);
        }
    }
}

#[test]
fn products_of_more_than_one_block_agree_with_the_formula() {
    check_orientations(5, 1700, 70);
    check_orientations(1601, 3, 33);
    check_orientations(9, 5, 1601);
    check_orientations(110, 700, 210);
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let (m, k, n) = (301, 901, 203);
    let (a, b) = (noise(m * k, 1), noise(k * n, 2));
    for precision in [Precision::F32, Precision::Bf16] {
        let product = |n_threads: usize| {
            threads::set_threads(n_threads);
            let mut out = noise(m * n, 3);
            let (a, b) = (View::new(&a, m, k), View::new(&b, n, k).transposed());
            gemm(precision, 1.0, a, b.into(), Update::Add, None, &mut out, n);
            out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let expected = product(1);
        assert!(product(2) == expected && product(3) == expected);
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    let (m, k, n) = (40, 900, 70);
    let (a, b) = (noise(m * k, 1), noise(k * n, 2));
    for isa in Isa::available() {
        for precision in [Precision::F32, Precision::Bf16] {
            let rows = |rows: std::ops::Range<usize>, n_cols: usize| {
                let mut out = vec![0.0; rows.len() * n_cols];
                let b = View::strided(&b, n, k, k).transposed().part(0..k, 0..n_cols);
                let a = View::new(&a[rows.start * k..rows.end * k], rows.len(), k);
                gemm_on(isa, &threads_run, precision, 1.0, a, b.into(), Update::Set, None, &mut out, n_cols);
                out
            };
            let all = rows(0..m, n);
            assert_eq!(rows(21..22, n), all[21 * n..22 * n]);
            assert_eq!(rows(21..30, n), all[21 * n..30 * n]);
            assert_eq!(rows(21..22, 33), all[21 * n..21 * n + 33]);
        }
    }
}

#[test]
fn nan_and_infinity_reach_their_row_or_column_and_no_other() {
    let (m, k, n) = (13, 37, 51);
    for isa in Isa::available() {
        for precision in [Precision::F32, Precision::Bf16] {
            let (mut a, mut b) = (vec![1.0; m * k], vec![1.0; k * n]);
            a[3 * k + 36] = f32::NAN;
            b[36 * n + 50] = f32::NEG_INFINITY;
            let mut out = vec![0.0; m * n];
            let (a, b) = (View::new(&a, m, k), View::new(&b, k, n));
            gemm_on(isa, &threads_run, precision, 1.0, a, b.into(), Update::Set, None, &mut out, n);
            for (at, &x) in out.iter().enumerate() {
                match (at / n, at % n) {
                    (3, _) => assert!(x.is_nan()),
                    (_, 50) => assert_eq!(x, f32::NEG_INFINITY),
                    _ => assert_eq!(x, k as f32),
                }
            }
        }
    }
}

/// Rows that are computed when asked for.
struct Computed<'a>(View<'a>);

impl Rows for Computed<'_> {
    fn n_rows(&self) -> usize {
        self.0.n_rows()
    }
    fn n_cols(&self) -> usize {
        self.0.n_cols()
    }
    fn read(&self, row: usize, out: &mut [f32]) {
        (0..out.len()).for_each(|col| out[col] = self.0.at(row, col));
    }
}

#[test]
fn elements_in_bf16_and_rows_decoded_on_demand_give_the_bits_of_those_in_memory() {
    let (m, k, n) = (33, 800, 1700);
    let bits = |n: usize, seed: u64| noise(n, seed).into_iter().map(f32_to_bf16).collect::<Vec<_>>();
    let (a, b) = (bits(m * k, 1), bits(k * n, 2));
    let floats = |bits: &[u16]| bits.iter().map(|&x| bf16_to_f32(x)).collect::<Vec<_>>();
    let (a32, b32) = (floats(&a), floats(&b));
    for precision in [Precision::F32, Precision::Bf16] {
        let product = |a: View, b: Operand| {
            let mut out = vec![0.0; m * n];
            gemm(precision, 1.0, a, b, Update::Set, None, &mut out, n);
            out
        };
        let expected = product(View::new(&a32, m, k), View::new(&b32, k, n).into());
        assert!(product(View::bf16(&a, m, k), View::bf16(&b, k, n).into()) == expected);
        assert!(product(View::bf16(&a, m, k), Operand::Rows(&Computed(View::new(&b32, k, n)))) == expected);
        let columns = View::new(&b32, k, n).transposed();
        assert!(product(View::bf16(&a, m, k), Operand::RowsTransposed(&Computed(columns))) == expected);
        let transposed = View::bf16(&b, n, k);
        let expected = product(View::bf16(&a, m, k), transposed.transposed().into());
        let rows = Computed(View::new(&b32, n, k));
        assert!(product(View::new(&a32, m, k), Operand::RowsTransposed(&rows)) == expected);
    }
}
