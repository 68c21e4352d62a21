//! What the tests of several operations share.

/// `n` reproducible numbers in -2..2, some of them 0.
pub(crate) fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let x = (state >> 40) as f32 / (1u32 << 22) as f32 - 2.0;
            if state.is_multiple_of(61) { 0.0 } else { x }
        })
        .collect()
}

/// Panics unless |got − expected| <= bound · max(1, |expected|) everywhere; NaN equals NaN, infinity itself.
#[track_caller]
pub(crate) fn assert_close(got: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(got.len(), expected.len());
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let same = got == expected || got.is_nan() && expected.is_nan();
        let close = (got - expected).abs() <= bound * expected.abs().max(1.0);
        assert!(same || close, "element {i}: got {got}, expected {expected}, bound {bound}");
    }
}

/// The gradient of `f` at `x` by central differences in f64, good to 1e-8 of the greatest value.
pub(crate) fn gradient(x: &[f32], f: impl Fn(&[f64]) -> f64) -> Vec<f32> {
    let mut at: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let step = 1e-5;
    (0..x.len())
        .map(|i| {
            let middle = at[i];
            at[i] = middle + step;
            let above = f(&at);
            at[i] = middle - step;
            let below = f(&at);
            at[i] = middle;
            ((above - below) / (2.0 * step)) as f32
        })
        .collect()
}

/// Numbers as f64.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Σ x y.
pub(crate) fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}
