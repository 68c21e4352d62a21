//! Several data sets as one stream, each with its weight.

use super::order::{Cursor, Order};
use crate::Error;
use crate::random::keyed;
use serde::{Deserialize, Serialize};

/// Data sets and how often each is drawn from. As in The Pile (arXiv:2101.00027, §2) and LLaMA
/// (arXiv:2302.13971, §2.1), the source of every item is drawn by weight, so that small sources are read more
/// often than large ones.
#[derive(Debug, Clone)]
pub struct Mixture {
    seed: u64,
    orders: Vec<Order>,
    /// Sums of the weights up to each source, the last 1.
    ends: Vec<f64>,
}

/// Where a mixture stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MixtureCursor {
    /// Items given.
    pub n_drawn: u64,
    /// Where each source stands.
    pub sources: Vec<Cursor>,
}

impl Mixture {
    /// Mixes sources by weight; weights count relative to each other.
    pub fn new(seed: u64, sources: Vec<(Order, f64)>) -> Result<Mixture, Error> {
        let total: f64 = sources.iter().map(|(_, weight)| weight).sum();
        let is_right = |weight: f64| weight.is_finite() && weight >= 0.0;
        let are_right = sources.iter().all(|(_, weight)| is_right(*weight));
        if !are_right || total <= 0.0 || !total.is_finite() {
            let weights: Vec<f64> = sources.iter().map(|(_, weight)| *weight).collect();
            let reason = format!("weights must be numbers from 0 with a sum above 0, got {weights:?}");
            return Err(Error::InvalidOption { option: "weights", reason });
        }
        let mut sum = 0.0;
        let ends = sources.iter().map(|(_, weight)| {
            sum += weight / total;
            sum
        });
        let mut ends: Vec<f64> = ends.collect();
        // Rounding must not leave a gap below 1, nor give it to a source of weight 0.
        let last = sources.iter().rposition(|(_, weight)| *weight > 0.0).expect("the sum is above 0");
        ends[last..].fill(1.0);
        Ok(Mixture { seed, orders: sources.into_iter().map(|(order, _)| order).collect(), ends })
    }

    /// The source and the item in it that come next, and moves the cursor behind them.
    pub fn next(&self, cursor: &mut MixtureCursor) -> (usize, u64) {
        cursor.sources.resize(self.orders.len(), Cursor::default());
        let draw = keyed(self.seed, u64::MAX, cursor.n_drawn).uniform();
        let source = self.ends.partition_point(|&end| end <= draw);
        cursor.n_drawn += 1;
        (source, self.orders[source].next(&mut cursor.sources[source]))
    }

    /// How often each source was read through so far.
    pub fn epochs(&self, cursor: &MixtureCursor) -> Vec<f64> {
        let epochs = |(order, at): (&Order, &Cursor)| at.epoch as f64 + at.position as f64 / order.n() as f64;
        self.orders.iter().zip(&cursor.sources).map(epochs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::Shuffle;
    use super::*;

    fn mixture() -> Mixture {
        let source = |n| Order::new(1, n, Shuffle::Each);
        Mixture::new(1, vec![(source(10), 1.0), (source(1000), 3.0), (source(5), 0.0)]).unwrap()
    }

    #[test]
    fn sources_come_as_often_as_their_weights_say() {
        let (mixture, mut cursor) = (mixture(), MixtureCursor::default());
        let mut counts = [0; 3];
        for _ in 0..40_000 {
            counts[mixture.next(&mut cursor).0] += 1;
        }
        assert!((9_700..10_300).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
        assert!((mixture.epochs(&cursor)[0] - f64::from(counts[0]) / 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_resumed_mixture_goes_on_as_the_uninterrupted_one() {
        let (mixture, mut cursor) = (mixture(), MixtureCursor::default());
        let all: Vec<(usize, u64)> = (0..50).map(|_| mixture.next(&mut cursor)).collect();
        let mut cursor = MixtureCursor::default();
        let mut resumed: Vec<(usize, u64)> = (0..10).map(|_| mixture.next(&mut cursor)).collect();
        let saved = serde_json::to_string(&cursor).unwrap();
        cursor = serde_json::from_str(&saved).unwrap();
        resumed.extend((10..50).map(|_| mixture.next(&mut cursor)));
        assert_eq!(all, resumed);
    }

    #[test]
    fn weights_that_say_nothing_are_refused() {
        for weights in [vec![0.0, 0.0], vec![-1.0, 2.0], vec![f64::NAN], vec![]] {
            let sources =
                weights.into_iter().map(|weight| (Order::new(0, 1, Shuffle::Off), weight)).collect();
            assert!(matches!(Mixture::new(0, sources), Err(Error::InvalidOption { option: "weights", .. })));
        }
    }
}
