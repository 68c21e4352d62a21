//! Which item comes when: a shuffle that is computed, not stored, so that any place in it can be returned to.

use crate::random::mix;
use serde::{Deserialize, Serialize};

/// Where a pass over a data set stands; all that a resumed run needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Passes completed.
    pub epoch: u64,
    /// Items of this pass that were given.
    pub position: u64,
}

/// In which order the items of a data set come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shuffle {
    /// As they stand in the data.
    Off,
    /// In another order in each epoch.
    Each,
}

/// The order of a data set of `n` items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    seed: u64,
    n: u64,
    shuffle: Shuffle,
}

impl Order {
    /// The order of `n` items under `seed`. Panics if there is none.
    #[track_caller]
    pub fn new(seed: u64, n: u64, shuffle: Shuffle) -> Order {
        assert!(n > 0, "an order of no items");
        Order { seed, n, shuffle }
    }

    /// Number of items.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// The item at `position` of `epoch`. Panics if the epoch has no such position.
    #[track_caller]
    pub fn item(&self, epoch: u64, position: u64) -> u64 {
        match self.shuffle {
            Shuffle::Off => {
                assert!(position < self.n, "position {position} of {}", self.n);
                position
            }
            Shuffle::Each => Permutation::new(self.seed, epoch, self.n).get(position),
        }
    }

    /// The item that comes next, and moves the cursor behind it.
    pub fn next(&self, cursor: &mut Cursor) -> u64 {
        if cursor.position >= self.n {
            *cursor = Cursor { epoch: cursor.epoch + 1, position: 0 };
        }
        let item = self.item(cursor.epoch, cursor.position);
        cursor.position += 1;
        item
    }
}

/// A random order of the numbers below `n` that takes no memory: a Feistel network over the next power of
/// four, walked until it hits a number below `n`. Source: Black and Rogaway, Ciphers with Arbitrary Finite
/// Domains, CT-RSA 2002, §4 (cycle walking) and §5 (generalized Feistel).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

const ROUNDS: usize = 6;

impl Permutation {
    /// The permutation of `epoch` under `seed`.
    pub fn new(seed: u64, epoch: u64, n: u64) -> Permutation {
        let bits = 64 - n.saturating_sub(1).leading_zeros();
        let mut key = mix(mix(seed) ^ epoch);
        let keys = std::array::from_fn(|_| {
            key = mix(key);
            key
        });
        Permutation { n, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// The number at `position`. Panics if there is no such position.
    #[track_caller]
    pub fn get(&self, position: u64) -> u64 {
        assert!(position < self.n, "position {position} of {}", self.n);
        let mut x = self.encipher(position);
        while x >= self.n {
            x = self.encipher(x);
        }
        x
    }

    fn encipher(&self, x: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_permutation_gives_every_number_once() {
        for n in [1, 2, 3, 4, 5, 15, 16, 17, 100, 1000, 65_537] {
            let order = Permutation::new(7, 1, n);
            let seen: BTreeSet<u64> = (0..n).map(|i| order.get(i)).collect();
            assert_eq!((seen.len() as u64, seen.last()), (n, Some(&(n - 1))), "{n}");
        }
        let huge = Permutation::new(7, 0, u64::MAX);
        assert_ne!(huge.get(0), huge.get(u64::MAX - 1));
    }

    #[test]
    fn a_permutation_looks_random() {
        // In a random order of n numbers, neighbours rise half of the time, and one number on average stays.
        let n = 20_000;
        let values: Vec<u64> = (0..n).map(|i| Permutation::new(3, 0, n).get(i)).collect();
        let n_rising = values.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((9_800..10_200).contains(&n_rising), "{n_rising}");
        assert!(values.iter().enumerate().filter(|(i, value)| *i as u64 == **value).count() < 8);
        let distance: f64 = values.iter().enumerate().map(|(i, &v)| (i as f64 - v as f64).abs()).sum();
        assert!((distance / n as f64 / n as f64 - 1.0 / 3.0).abs() < 0.01);
    }

    #[test]
    fn ten_items_and_the_rest_are_all_items() {
        let order = Order::new(5, 23, Shuffle::Each);
        let mut straight = Cursor::default();
        let all: Vec<u64> = (0..60).map(|_| order.next(&mut straight)).collect();
        let mut cursor = Cursor::default();
        let mut resumed: Vec<u64> = (0..10).map(|_| order.next(&mut cursor)).collect();
        let saved = serde_json::to_string(&cursor).unwrap();
        let mut cursor: Cursor = serde_json::from_str(&saved).unwrap();
        resumed.extend((10..60).map(|_| order.next(&mut cursor)));
        assert_eq!(all, resumed);
        assert_eq!(cursor, Cursor { epoch: 2, position: 14 });
        assert_ne!(all[..23], all[23..46], "each epoch has an order of its own");
        let plain = Order::new(5, 3, Shuffle::Off);
        let mut cursor = Cursor::default();
        assert_eq!([0; 5].map(|_| plain.next(&mut cursor)), [0, 1, 2, 0, 1]);
    }

    #[test]
    #[should_panic(expected = "position 3 of 3")]
    fn a_position_beyond_the_end_is_a_wrong_program() {
        Order::new(0, 3, Shuffle::Each).item(0, 3);
    }
}
