//! Numbers that add up to 1.

/// Softmax of one row, in f64. `[n]` → `[n]`
pub(crate) fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    let mut weights: Vec<f64> = logits.iter().map(|&x| f64::from(x - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    weights
}

/// 1 / (1 + e^-x)
pub(crate) fn sigmoid(x: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(x)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_do_not_overflow() {
        let got = softmax(&[1000.0, 1000.0, -1000.0]);
        assert_eq!(got, [0.5, 0.5, 0.0]);
        assert_eq!((sigmoid(0.0), sigmoid(-1000.0), sigmoid(1000.0)), (0.5, 0.0, 1.0));
    }
}
