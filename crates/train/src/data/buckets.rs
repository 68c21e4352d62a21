//! Batches of examples of like length: sorted within windows of a few batches, so that the order stays random
//! at large.

use super::order::Order;
use crate::random::{keyed, shuffle};

/// How examples are put into batches by length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    /// The order in which windows take their items.
    pub order: Order,
    /// Examples of a batch.
    pub batch: usize,
    /// Batches of a window; 1 = the order as it is.
    pub window: usize,
    /// Seed of the order of the batches within a window.
    pub seed: u64,
}

impl Buckets {
    /// Windows of an epoch.
    pub fn n_windows(&self) -> u64 {
        self.order.n().div_ceil((self.batch * self.window) as u64)
    }

    /// The batches of window `index` of `epoch`; `length_of` says how long an item is. The last batch of an
    /// epoch may be smaller than the others. A pure function: a resumed run asks for the window in which it
    /// stopped.
    ///
    /// Panics if the epoch has no such window.
    #[track_caller]
    pub fn batches(&self, epoch: u64, index: u64, length_of: impl Fn(u64) -> usize) -> Vec<Vec<u64>> {
        assert!(index < self.n_windows(), "window {index} of {}", self.n_windows());
        let size = (self.batch * self.window) as u64;
        let positions = index * size..((index + 1) * size).min(self.order.n());
        let mut items: Vec<(usize, u64)> = positions
            .map(|position| self.order.item(epoch, position))
            .map(|item| (length_of(item), item))
            .collect();
        if self.window > 1 {
            items.sort_by_key(|(length, _)| *length);
        }
        let mut batches: Vec<Vec<u64>> =
            items.chunks(self.batch).map(|batch| batch.iter().map(|(_, item)| *item).collect()).collect();
        if self.window > 1 {
            shuffle(&mut batches, &mut keyed(self.seed, epoch, index));
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::Shuffle;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn batches_of_like_length_hold_every_item_once() {
        let length_of = |item: u64| (item * 7919 % 100) as usize;
        let order = Order::new(2, 1003, Shuffle::Each);
        let spread = |window| {
            let buckets = Buckets { order, batch: 8, window, seed: 2 };
            let batches: Vec<Vec<u64>> =
                (0..buckets.n_windows()).flat_map(|index| buckets.batches(1, index, length_of)).collect();
            let items: BTreeSet<u64> = batches.iter().flatten().copied().collect();
            assert_eq!((items.len(), batches.iter().map(Vec::len).sum::<usize>()), (1003, 1003));
            let spreads = batches.iter().map(|batch| {
                let lengths = batch.iter().map(|&item| length_of(item));
                lengths.clone().max().unwrap() - lengths.min().unwrap()
            });
            spreads.sum::<usize>() / batches.len()
        };
        assert!(spread(1) > 60 && spread(16) < 12, "{} and {}", spread(1), spread(16));
    }
}
