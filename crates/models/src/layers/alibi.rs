//! Slopes of attention with linear biases.

/// The slope of each of `n_heads` heads: 2^(−8/H), 2^(−16/H), ... for a power of two; else those of the power of two
/// below, and then every second one of those of twice as many heads. `[H]`
///
/// Source: Train Short, Test Long, arXiv:2108.12409, section 3, and its code for other numbers.
pub fn slopes(n_heads: usize) -> Vec<f32> {
    let of_power = |n: usize| (1..=n).map(move |i| (-8.0 * i as f64 / n as f64).exp2() as f32);
    let below = 1 << n_heads.ilog2();
    of_power(below).chain(of_power(2 * below).step_by(2)).take(n_heads).collect()
}

#[cfg(test)]
mod tests {
    use super::slopes;

    #[test]
    fn slopes_of_6_heads_are_those_of_4_and_two_of_8() {
        assert_eq!(slopes(4), [0.25, 0.0625, 0.015625, 0.00390625]);
        assert_eq!(slopes(6), [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
        assert_eq!(slopes(1), [0.00390625]);
    }
}
