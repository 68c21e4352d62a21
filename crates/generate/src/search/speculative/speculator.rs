//! A drafter at work: what it guesses is cut to what pays.

use super::pace::Pace;
use super::{Asked, Drafter, Guess, Rates, SequenceId};
use std::time::Instant;

/// Tokens that a drafter that costs guesses ahead when it is tried again.
const N_RETRIED: usize = 3;

/// A drafter, and what guessing costs and gains.
pub(crate) struct Speculator {
    drafter: Box<dyn Drafter>,
    /// `None` = all guesses are used, whatever they cost.
    pace: Option<Pace>,
}

/// What goes into a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Proposal {
    /// What was guessed.
    pub guess: Guess,
    /// How many of its tokens are computed. The others only show, by the way, whether guesses are right.
    pub n_used: usize,
}

impl Speculator {
    /// A speculator that knows nothing of its drafter yet. `is_adaptive`: whether it leaves undone what does not pay.
    pub fn new(drafter: Box<dyn Drafter>, is_adaptive: bool) -> Speculator {
        Speculator { drafter, pace: is_adaptive.then(Pace::default) }
    }

    /// Guesses for a step that has `n_plain` rows of sequences that wait for their next tokens. One proposal for each of
    /// `asked`, and the seconds that it took.
    pub fn guess(&mut self, asked: &mut [Asked], n_plain: usize) -> (Vec<Proposal>, f64) {
        let none = (vec![Proposal::default(); asked.len()], 0.0);
        let is_first = self.pace.as_mut().is_some_and(|pace| pace.begin(n_plain));
        if asked.is_empty() || is_first {
            return none;
        }
        if let Some(pace) = self.pace.as_mut().filter(|_| self.drafter.is_costly())
            && !shorten(pace, asked, n_plain)
        {
            return none;
        }
        let began = Instant::now();
        let depth = asked.iter().map(|asked| asked.n_max).max().unwrap_or(0);
        let guesses = self.drafter.draft(asked);
        assert_eq!(guesses.len(), asked.len(), "one guess for each sequence");
        let seconds = began.elapsed().as_secs_f64();
        if let Some(pace) = &mut self.pace {
            pace.drafted(seconds / depth.max(1) as f64);
        }
        (self.cut(guesses, asked, n_plain), seconds)
    }

    /// What the drafter must see of every step: see [`Drafter::watches`].
    pub fn watches(&self) -> Option<&[usize]> {
        self.drafter.watches()
    }

    /// Shows the drafter what it [watches](Speculator::watches).
    pub fn see(&mut self, sequence: SequenceId, start: usize, features: &[&[f32]]) {
        self.drafter.see(sequence, start, features);
    }

    /// Keeps of all guesses the likeliest, as many as pay.
    fn cut(&self, guesses: Vec<Guess>, asked: &[Asked], n_plain: usize) -> Vec<Proposal> {
        let mut chances: Vec<(f64, usize)> = Vec::new();
        for (i, (guess, asked)) in guesses.iter().zip(asked).enumerate() {
            chances.extend(guess.chances(&asked.chances).map(|chance| (chance, i)));
        }
        // Of a guess, a token is never likelier than the one before it, and the order of equals stays.
        chances.sort_by(|a, b| b.0.total_cmp(&a.0));
        let by_chance: Vec<f64> = chances.iter().map(|(chance, _)| *chance).collect();
        let n = self.pace.as_ref().map_or(chances.len(), |pace| pace.n_guesses(n_plain, &by_chance));
        let mut proposals: Vec<Proposal> =
            guesses.into_iter().map(|guess| Proposal { guess, n_used: 0 }).collect();
        chances[..n].iter().for_each(|&(_, i)| proposals[i].n_used += 1);
        proposals
    }

    /// Notes that a step of `rows` rows, without prompts, took so long.
    pub fn stepped(&mut self, rows: usize, seconds: f64) {
        if let Some(pace) = &mut self.pace {
            pace.stepped(rows, seconds);
        }
    }
}

/// Lowers what a drafter that costs is asked for to what pays; false if nothing does.
fn shorten(pace: &mut Pace, asked: &mut [Asked], n_plain: usize) -> bool {
    let chances: Vec<f64> = asked.iter().map(|asked| asked.chances[Rates::ALL]).collect();
    let n_max = asked.iter().map(|asked| asked.n_max).max().unwrap_or(0);
    let depth = pace.depth(n_plain, &chances, n_max);
    if depth > 0 {
        pace.pays();
        asked.iter_mut().for_each(|asked| asked.n_max = asked.n_max.min(depth));
        return true;
    }
    // One sequence is enough to see whether guesses have become better.
    for (i, asked) in asked.iter_mut().enumerate() {
        asked.n_max = if i == 0 { asked.n_max.min(N_RETRIED) } else { 0 };
    }
    pace.is_retried()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Always(Vec<Guess>, bool);

    impl Drafter for Always {
        fn draft(&mut self, asked: &[Asked]) -> Vec<Guess> {
            let cut = |(guess, asked): (&Guess, &Asked)| Guess {
                tokens: guess.tokens.iter().copied().take(asked.n_max).collect(),
                classes: guess.classes.iter().copied().take(asked.n_max).collect(),
            };
            self.0.iter().zip(asked).map(cut).collect()
        }

        fn is_costly(&self) -> bool {
            self.1
        }
    }

    fn asked(chances: [f64; 5]) -> Asked {
        let sequence = SequenceId { job: 0, index: 0 };
        Asked { sequence, tokens: vec![1], n_max: 3, chances, span: 0 }
    }

    fn speculator(guesses: &[(&[u32], usize)], is_costly: bool) -> Speculator {
        let guess = |&(tokens, class): &(&[u32], usize)| Guess {
            tokens: tokens.to_vec(),
            classes: vec![class; tokens.len()],
        };
        Speculator::new(Box::new(Always(guesses.iter().map(guess).collect(), is_costly)), true)
    }

    #[test]
    fn the_likeliest_guesses_of_all_sequences_are_used() {
        let mut speculator = speculator(&[(&[7, 8, 9], 1), (&[5, 6], 3), (&[], 0)], false);
        let mut all = [0.9, 0.9, 0.0].map(|sure| asked([0.0, 0.5, 0.0, sure, 0.5]));
        for _ in 0..3 {
            assert!(speculator.guess(&mut all, 3).0.iter().all(|proposal| proposal.n_used == 0));
            speculator.stepped(3, 1.0);
        }
        for rows in 4..=6 {
            speculator.stepped(rows, 1.0);
        }
        // Those of 0.9, 0.81 and 0.5 fit into what costs nothing; what follows would double the price.
        (7..=8).for_each(|rows| speculator.stepped(rows, 2.0));
        let used: Vec<usize> = speculator.guess(&mut all, 3).0.iter().map(|p| p.n_used).collect();
        assert_eq!(used, [1, 2, 0]);
    }

    #[test]
    fn a_costly_drafter_that_is_mostly_wrong_is_not_asked_but_now_and_then() {
        let mut speculator = speculator(&[(&[7, 8, 9], 0)], true);
        let mut n_asked = 0;
        for _ in 0..1000 {
            let mut all = [asked([0.01; 5])];
            let proposal = speculator.guess(&mut all, 1).0.remove(0);
            n_asked += usize::from(!proposal.guess.tokens.is_empty());
            speculator.stepped(1 + proposal.n_used, 1.0 + proposal.n_used as f64);
        }
        assert!((1..=8).contains(&n_asked), "{n_asked} times");
    }
}
