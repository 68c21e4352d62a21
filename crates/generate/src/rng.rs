//! The source of random choices: one reproducible stream for each completion.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};

/// Random numbers of one completion. They depend on the seed alone, never on other requests in flight.
#[derive(Debug, Clone)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream of completion `index` of a request with `seed`: that of completion 0 with `seed + index`.
    pub fn new(seed: u64, index: usize) -> Rng {
        Rng(ChaCha8Rng::seed_from_u64(seed.wrapping_add(index as u64)))
    }

    /// A number from 0 (included) to 1 (excluded), of 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_named_by_seed_plus_index() {
        let draw = |seed, index| {
            let mut rng = Rng::new(seed, index);
            [rng.uniform(), rng.uniform(), rng.uniform()]
        };
        assert_eq!(draw(7, 0), draw(7, 0));
        assert_eq!(draw(7, 2), draw(9, 0));
        assert_ne!(draw(7, 0), draw(8, 0));
        assert_eq!(draw(u64::MAX, 1), draw(0, 0));
    }

    #[test]
    fn draws_are_uniform_between_zero_and_one() {
        let mut rng = Rng::new(1, 0);
        let draws: Vec<f64> = (0..10_000).map(|_| rng.uniform()).collect();
        assert!(draws.iter().all(|x| (0.0..1.0).contains(x)));
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }
}
