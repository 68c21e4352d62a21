//! What a step costs by its number of rows, and so how many guesses pay.
//!
//! A step of n sequences takes as long as it takes and gives n tokens; with guesses it has more rows, takes longer, and
//! gives as many tokens more as guesses are right. Both sides are measured, so that guessing ends by itself where it
//! loses: where guesses are wrong, where a model's rows are dear, and where so many sequences are in flight that the
//! step has enough rows without.
//!
//! Source: Leviathan et al., arXiv:2211.17192, §3.3 to 3.5, with measured times in the place of a cost coefficient.

use std::collections::BTreeMap;

/// Steps after which a measurement is forgotten: the context grows, and so does what a row costs.
const LIFE: u64 = 512;
/// The same where it was made only once or twice.
const LIFE_IN_DOUBT: u64 = 128;
/// Measurements of which the median counts.
const N_SAMPLES: usize = 5;
/// Measurements without guesses that are wanted before there are some.
const N_PLAIN: usize = 3;
/// What guesses must gain to be made: less than that is within what measurements are off.
const LEAST_GAIN: f64 = 1.1;
/// Steps from a failure of guesses that cost to the next attempt: at first, and after many failures.
const PAUSE: (u64, u64) = (64, 1024);

/// The last few of a series of measurements, in seconds.
#[derive(Debug, Clone, Default)]
struct Samples {
    seconds: Vec<f64>,
    n: usize,
    last_step: u64,
}

impl Samples {
    fn add(&mut self, seconds: f64, step: u64) {
        if self.seconds.len() < N_SAMPLES {
            self.seconds.push(seconds);
        } else {
            self.seconds[self.n % N_SAMPLES] = seconds;
        }
        self.n += 1;
        self.last_step = step;
    }

    fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() - 1) / 2]
    }
}

/// The times of an engine's steps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    step: u64,
    /// Of steps without prompts, by rows.
    by_rows: BTreeMap<usize, Samples>,
    /// Of a drafter's passes, one for each token that it guesses ahead.
    drafting: Samples,
    /// When guesses that cost and did not pay are tried again, and how long after that.
    retry: Option<(u64, u64)>,
}

impl Pace {
    /// Notes that a step of `rows` rows without prompts took so long.
    pub fn stepped(&mut self, rows: usize, seconds: f64) {
        let step = self.step;
        let samples = self.by_rows.entry(rows).or_default();
        if !is_fresh(samples, step) {
            *samples = Samples::default();
        }
        samples.add(seconds, step);
    }

    /// Notes that drafting took `seconds` for each token guessed ahead.
    pub fn drafted(&mut self, seconds: f64) {
        self.drafting.add(seconds, self.step);
    }

    /// Another step begins. Whether it must be made without guesses, because nobody knows what that costs with `n_plain` rows.
    pub fn begin(&mut self, n_plain: usize) -> bool {
        self.step += 1;
        let known = self.by_rows.get(&n_plain).filter(|samples| is_fresh(samples, self.step));
        known.is_none_or(|samples| samples.n < N_PLAIN)
    }

    /// What a step of `rows` rows costs: measured, or between two that were, or, a little beyond all that were, as much
    /// as the longest of them, so that it is tried. `None` = too far from all.
    fn seconds(&self, rows: usize) -> Option<f64> {
        let mut below = self.by_rows.range(..=rows).rev().filter(|(_, s)| is_fresh(s, self.step));
        let (&low, at_low) = below.next()?;
        let at_low = at_low.median();
        let mut above = self.by_rows.range(rows..).filter(|(_, s)| is_fresh(s, self.step));
        match above.next() {
            Some((&high, at_high)) if high > low => {
                let part = (rows - low) as f64 / (high - low) as f64;
                Some(at_low + part * (at_high.median() - at_low))
            }
            Some(_) => Some(at_low),
            None => (rows <= 2 * low + 4).then_some(at_low),
        }
    }

    /// How many guesses pay in a step of `n_plain` rows without them, if these are the probabilities that they are
    /// right, the greatest first.
    pub fn n_guesses(&self, n_plain: usize, chances: &[f64]) -> usize {
        let Some(plain) = self.seconds(n_plain) else { return chances.len() };
        let (mut best, mut best_speed) = (0, LEAST_GAIN * n_plain as f64 / plain);
        let mut tokens = n_plain as f64;
        for (i, chance) in chances.iter().enumerate() {
            tokens += chance;
            let Some(seconds) = self.seconds(n_plain + i + 1) else { break };
            if tokens / seconds > best_speed {
                (best, best_speed) = (i + 1, tokens / seconds);
            }
        }
        best
    }

    /// How many tokens a drafter that costs should guess ahead for each of the sequences whose guesses are right with
    /// these probabilities, at most `n_max`.
    pub fn depth(&self, n_plain: usize, chances: &[f64], n_max: usize) -> usize {
        let Some(plain) = self.seconds(n_plain) else { return n_max };
        let drafting = if self.drafting.n == 0 { 0.0 } else { self.drafting.median() };
        let (mut best, mut best_speed) = (0, LEAST_GAIN * n_plain as f64 / plain);
        let mut tokens = n_plain as f64;
        for depth in 1..=n_max {
            tokens += chances.iter().map(|chance| chance.powi(depth as i32)).sum::<f64>();
            let Some(seconds) = self.seconds(n_plain + chances.len() * depth) else { break };
            let speed = tokens / (seconds + depth as f64 * drafting);
            if speed > best_speed {
                (best, best_speed) = (depth, speed);
            }
        }
        best
    }

    /// Whether guesses that cost and do not seem to pay are to be tried in this step all the same.
    pub fn is_retried(&mut self) -> bool {
        let (at, pause) = *self.retry.get_or_insert((self.step + PAUSE.0, PAUSE.0));
        if self.step < at {
            return false;
        }
        let pause = (2 * pause).min(PAUSE.1);
        self.retry = Some((self.step + pause, pause));
        true
    }

    /// Guesses that cost pay.
    pub fn pays(&mut self) {
        self.retry = None;
    }
}

fn is_fresh(samples: &Samples, step: u64) -> bool {
    let life = if samples.n < N_PLAIN { LIFE_IN_DOUBT } else { LIFE };
    samples.n > 0 && step - samples.last_step <= life
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose steps cost `seconds(rows)`, measured three times for each of `rows`.
    fn pace(rows: impl IntoIterator<Item = usize>, seconds: impl Fn(usize) -> f64) -> Pace {
        let mut pace = Pace::default();
        for rows in rows {
            for _ in 0..3 {
                pace.begin(rows);
                pace.stepped(rows, seconds(rows));
            }
        }
        pace
    }

    fn chain(chance: f64, n: i32) -> Vec<f64> {
        (1..=n).map(|depth| chance.powi(depth)).collect()
    }

    #[test]
    fn rows_that_cost_nothing_are_all_used_and_dear_ones_none() {
        assert_eq!(pace([1, 7], |_| 1.0).n_guesses(1, &chain(0.5, 6)), 6);
        assert_eq!(pace([1, 7], |rows| rows as f64).n_guesses(1, &chain(0.9, 6)), 0);
        // Between: a row more costs a tenth, so that guesses right in more than a tenth of the cases pay.
        let pace = pace(1..=7, |rows| 0.9 + 0.1 * rows as f64);
        assert_eq!(pace.n_guesses(1, &chain(0.9, 6)), 6);
        assert_eq!(pace.n_guesses(1, &chain(0.3, 6)), 1);
        assert_eq!(pace.n_guesses(1, &chain(0.05, 6)), 0);
    }

    #[test]
    fn with_many_sequences_in_flight_guessing_ends() {
        // Up to 8 rows cost the same, then each costs its part.
        let pace = pace([1, 2, 4, 8, 12, 16, 32, 64], |rows| (rows.max(8)) as f64);
        assert_eq!(pace.n_guesses(1, &chain(0.6, 6)), 6);
        assert_eq!(pace.n_guesses(16, &[0.6; 16]), 0);
    }

    #[test]
    fn what_no_guess_costs_is_measured_first_and_again_when_it_is_old() {
        let mut pace = Pace::default();
        for _ in 0..3 {
            assert!(pace.begin(1));
            pace.stepped(1, 1.0);
        }
        for _ in 0..LIFE {
            assert!(!pace.begin(1));
            pace.stepped(4, 1.5);
        }
        assert!(pace.begin(1));
        assert!(pace.begin(2), "two rows were never measured");
    }

    #[test]
    fn one_slow_step_among_others_does_not_count() {
        let mut pace = pace([1], |_| 1.0);
        for seconds in [1.2, 50.0, 1.2] {
            pace.stepped(2, seconds);
        }
        assert_eq!(pace.seconds(2), Some(1.2));
        assert_eq!(pace.seconds(8), Some(1.2), "beyond what is known it is tried");
        assert_eq!(pace.seconds(9), None, "but not far beyond");
    }

    #[test]
    fn a_drafter_that_costs_is_asked_for_what_pays_and_tried_again_in_ever_longer_intervals() {
        let mut pace = pace(1..=7, |_| 1.0);
        assert_eq!(pace.depth(1, &[0.5], 6), 6, "nobody knows what drafting costs");
        pace.drafted(0.2);
        assert_eq!(pace.depth(1, &[0.9], 6), 6);
        assert_eq!(pace.depth(1, &[0.5], 6), 1);
        assert_eq!(pace.depth(1, &[0.1], 6), 0);
        let retries: Vec<u64> = (0..1000u64)
            .filter(|_| {
                pace.begin(1);
                pace.is_retried()
            })
            .map(|step| step + 1)
            .collect();
        assert_eq!(retries, [65, 193, 449, 961]);
        pace.pays();
        assert!(!pace.is_retried());
    }
}
