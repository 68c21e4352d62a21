//! How often guesses are right.

/// How much of a count is left after one trial more: some thirty trials are remembered.
const MEMORY: f64 = 0.97;
/// How many trials the rate of others is worth to one that has none of its own.
const PRIOR_TRIALS: f64 = 4.0;
/// The rate before there were any trials.
const FIRST: f64 = 0.5;

/// A rate that forgets.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Rate {
    hits: f64,
    trials: f64,
}

/// How often a guessed token was right after those before it were, by class of guess.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Rates([Rate; Rates::CLASSES + 1]);

impl Rates {
    /// Classes that a drafter may tell apart.
    pub const CLASSES: usize = 4;
    /// Where the rate of all classes together stands.
    pub const ALL: usize = Rates::CLASSES;

    /// Notes that a guess of a class was right, or not.
    pub fn learn(&mut self, class: usize, is_right: bool) {
        for class in [class, Rates::ALL] {
            let rate = &mut self.0[class];
            rate.hits = rate.hits * MEMORY + f64::from(u8::from(is_right));
            rate.trials = rate.trials * MEMORY + 1.0;
        }
    }

    /// By class, and of all: the probability that a guessed token is right, as far as this and `others` tell.
    pub fn chances(&self, others: &Rates) -> [f64; Rates::CLASSES + 1] {
        let of = |rate: &Rate, prior: f64| (rate.hits + PRIOR_TRIALS * prior) / (rate.trials + PRIOR_TRIALS);
        std::array::from_fn(|class| of(&self.0[class], of(&others.0[class], FIRST)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_sequence_is_thought_to_be_like_the_others_until_it_shows_what_it_is() {
        let (mut others, mut own) = (Rates::default(), Rates::default());
        assert_eq!(own.chances(&others), [0.5; 5]);
        (0..1000).for_each(|i| others.learn(2, i % 10 > 0));
        let chances = own.chances(&others);
        assert!((chances[2] - 0.9).abs() < 0.05 && chances[Rates::ALL] == chances[2], "{chances:?}");
        assert_eq!(chances[1], 0.5, "another class has learnt nothing");
        (0..100).for_each(|_| own.learn(2, false));
        assert!(own.chances(&others)[2] < 0.15);
    }
}
