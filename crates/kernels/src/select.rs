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
