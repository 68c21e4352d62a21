//! Random choices that depend on their key alone: the seed, the epoch and the item, never on what was drawn
//! before.
//!
//! That is what makes a resumed run draw what the uninterrupted one would have drawn.

use rhetor_generate::Rng;

/// The stream of one item in one epoch of a run.
pub fn keyed(seed: u64, epoch: u64, item: u64) -> Rng {
    Rng::new(mix(mix(mix(seed) ^ epoch) ^ item), 0)
}

/// A bijection of 64 bits whose every output bit depends on every input bit (the finaliser of SplitMix64,
/// Steele et al. 2014, applied to the next state).
pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A number from 0 to `n` - 1. Panics if there is none.
#[track_caller]
pub(crate) fn below(rng: &mut Rng, n: usize) -> usize {
    assert!(n > 0, "a number below 0 was asked for");
    // A uniform number has 53 bits; data sets have fewer items, and the bias of rounding is below 2^-20 for
    // them.
    ((rng.uniform() * n as f64) as usize).min(n - 1)
}

/// Puts `items` into random order (Fisher and Yates).
pub(crate) fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for i in (1..items.len()).rev() {
        items.swap(i, below(rng, i + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_the_key_names_another_stream() {
        let draw = |seed, epoch, item| keyed(seed, epoch, item).uniform();
        assert_eq!(draw(1, 2, 3), draw(1, 2, 3));
        let others = [draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4), draw(2, 1, 3), draw(1, 3, 2)];
        assert!(others.iter().all(|&other| other != draw(1, 2, 3)));
    }

    #[test]
    fn every_order_of_three_comes_up_equally_often() {
        let mut counts = std::collections::BTreeMap::new();
        for item in 0..6000 {
            let mut order = [0, 1, 2];
            shuffle(&mut order, &mut keyed(0, 0, item));
            *counts.entry(order).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|&n| (880..1120).contains(&n)), "{counts:?}");
    }
}
