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
            if state % 61 == 0 { 0.0 } else { x }
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
