//! Prompt look-up: what followed the last tokens when they stood in the text before.
//!
//! Of the suffixes of three, two and one tokens the longest is taken that is found earlier in prompt or answer, at its
//! last place; what followed there is the guess. A guess that reaches the end of the text goes on with itself, as a copy
//! in LZ77 does, so that a text that repeats itself is guessed as far as wanted. Costs no pass of any model.
//!
//! Source: Saxena, prompt-lookup-decoding (2023), whose look-up is that of transformers' `prompt_lookup_num_tokens`;
//! there the first place counts.

use super::{Asked, DRAFT_TOKENS, Drafter, Guess, Method};
use rhetor_catalog::{About, Source};

pub(super) const METHOD: Method = Method {
    about: About {
        name: "prompt-lookup",
        summary: "guesses what followed the last tokens earlier in the text",
        source: Source::Project("Saxena, prompt-lookup-decoding"),
        options: &[DRAFT_TOKENS],
    },
    needs: None,
    build: |_, _| Ok(Box::new(PromptLookup)),
};

/// The longest suffix that is looked for, in tokens.
const LONGEST: usize = 3;

/// The drafter `prompt-lookup`.
pub(crate) struct PromptLookup;

impl Drafter for PromptLookup {
    fn draft(&mut self, asked: &[Asked]) -> Vec<Guess> {
        asked.iter().map(|asked| look_up(&asked.tokens, asked.n_max)).collect()
    }

    fn is_costly(&self) -> bool {
        false
    }
}

/// What follows `tokens`, at most `n_max` tokens; their class is the length of the suffix found.
fn look_up(tokens: &[u32], n_max: usize) -> Guess {
    let Some((&last, before)) = tokens.split_last() else { return Guess::default() };
    // The end of the best place, and how long a suffix ends there.
    let (mut best, mut length) = (0, 0);
    for at in (0..before.len()).rev().filter(|&at| before[at] == last) {
        let pairs = tokens[..=at].iter().rev().zip(tokens.iter().rev());
        let n = pairs.take(LONGEST).take_while(|(a, b)| a == b).count();
        if n > length {
            (best, length) = (at + 1, n);
            if n == LONGEST {
                break;
            }
        }
    }
    if length == 0 {
        return Guess::default();
    }
    let period = tokens.len() - best;
    let copied = (0..n_max).map(|i| tokens[best + i % period]).collect();
    Guess { tokens: copied, classes: vec![length; n_max] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(tokens: &[u32], n: usize) -> (Vec<u32>, usize) {
        let guess = look_up(tokens, n);
        (guess.tokens, guess.classes.first().copied().unwrap_or(0))
    }

    #[test]
    fn the_longest_suffix_wins_over_a_later_place() {
        // 7 8 9 stood at the beginning, 8 9 and 9 later.
        assert_eq!(guess(&[7, 8, 9, 1, 2, 3, 8, 9, 4, 9, 5, 7, 8, 9], 3), (vec![1, 2, 3], 3));
        assert_eq!(guess(&[6, 8, 9, 1, 2, 9, 5, 7, 8, 9], 2), (vec![1, 2], 2));
    }

    #[test]
    fn of_equal_places_the_last_one_counts() {
        assert_eq!(guess(&[1, 2, 3, 10, 1, 2, 3, 20, 1, 2, 3], 2), (vec![20, 1], 3));
        assert_eq!(guess(&[3, 10, 3, 20, 3], 1), (vec![20], 1));
    }

    #[test]
    fn a_text_that_repeats_itself_is_guessed_as_far_as_wanted() {
        assert_eq!(guess(&[5, 5], 4), (vec![5; 4], 1));
        assert_eq!(guess(&[1, 2, 1, 2, 1], 5), (vec![2, 1, 2, 1, 2], 3));
    }

    #[test]
    fn a_token_that_never_stood_there_has_no_guess() {
        for tokens in [&[][..], &[1], &[1, 2, 3]] {
            assert_eq!(guess(tokens, 4), (vec![], 0));
        }
    }
}
