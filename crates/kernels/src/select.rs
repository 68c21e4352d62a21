//! The greatest elements of a vector.

/// The index of the greatest element, the first of equals; 0 for an empty slice. NaN counts as less than any number.
pub fn argmax(x: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    // The maximum first, since that loop is vectorised, then the place.
    for &x in x {
        best.1 = if x > best.1 { x } else { best.1 };
    }
    best.0 = x.iter().position(|&x| x == best.1).unwrap_or(0);
    best.0
}

/// The `k` greatest elements as (index, value), greatest first, the first of equals before the others.
///
/// All of them if `k` exceeds the length. NaN counts as less than any number.
pub fn top_k(x: &[f32], k: usize) -> Vec<(usize, f32)> {
    let key = |x: f32| if x.is_nan() { f32::NEG_INFINITY } else { x };
    let mut all: Vec<(usize, f32)> = x.iter().copied().enumerate().collect();
    let order = |a: &(usize, f32), b: &(usize, f32)| key(b.1).total_cmp(&key(a.1)).then(a.0.cmp(&b.0));
    if k == 0 {
        return Vec::new();
    }
    if k < all.len() {
        all.select_nth_unstable_by(k - 1, order);
        all.truncate(k);
    }
    all.sort_unstable_by(order);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn the_first_of_the_greatest_wins_and_nan_never() {
        assert_eq!(argmax(&[]), 0);
        assert_eq!(argmax(&[1.0, 3.0, 3.0, f32::NAN]), 1);
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), 1);
        assert_eq!(argmax(&[-2.0, f32::INFINITY]), 1);
        assert_eq!(top_k(&[1.0, 3.0, f32::NAN, 3.0], 3), [(1, 3.0), (3, 3.0), (0, 1.0)]);
        assert_eq!(top_k(&[1.0], 0), []);
        assert_eq!(top_k(&[1.0, 2.0], 9), [(1, 2.0), (0, 1.0)]);
    }

    #[test]
    fn top_k_is_the_head_of_the_sorted_vector_and_argmax_its_first() {
        for n in [1, 15, 16, 17, 1000, 50_001] {
            let x: Vec<f32> = noise(n, n as u64).iter().map(|x| (x * 100.0).round()).collect();
            let mut sorted: Vec<(usize, f32)> = x.iter().copied().enumerate().collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
            assert_eq!(top_k(&x, 40), sorted[..n.min(40)]);
            assert_eq!(argmax(&x), sorted[0].0);
        }
    }
}
