//! Prefix language modelling: a text is cut at random, and its second part is predicted from the first, whose
//! rows see each other in both directions. Source: T5, arXiv:1910.10683, §3.2.1 and §3.2.2; Liu et al.,
//! arXiv:1801.10198.

use crate::random::below;
use crate::{Example, Sequence};
use rhetor_generate::Rng;

/// Where `n` tokens are cut: every place that leaves a token on both sides is as likely as any other.
fn cut(n: usize, rng: &mut Rng) -> usize {
    assert!(n >= 2, "a prefix of {n} tokens");
    1 + below(rng, n - 1)
}

/// One sequence for a decoder: the prefix is given, the rest predicted. Panics if there are fewer than two
/// tokens.
pub fn corrupt(tokens: &[u32], rng: &mut Rng) -> Example {
    let at = cut(tokens.len(), rng);
    let mut sequence = Sequence::completion(tokens, at);
    sequence.prefix_len = at;
    Example::of(sequence)
}

/// The prefix for an encoder, the rest for a decoder that begins with `start`. Panics if there are fewer than
/// two tokens.
pub fn encoder_decoder(tokens: &[u32], start: u32, rng: &mut Rng) -> Example {
    let (prefix, rest) = tokens.split_at(cut(tokens.len(), rng));
    Example::of(Sequence::written(prefix.to_vec(), start, rest.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IGNORE;
    use crate::random::keyed;

    #[test]
    fn what_follows_the_prefix_is_predicted() {
        let tokens: Vec<u32> = (10..20).collect();
        let mut seen = [0; 10];
        for item in 0..900 {
            let sequence = corrupt(&tokens, &mut keyed(0, 0, item)).sequences.remove(0);
            let at = sequence.prefix_len;
            assert_eq!(sequence.tokens, tokens[..9]);
            assert!(sequence.targets[..at - 1].iter().all(|&target| target == IGNORE));
            assert_eq!(sequence.targets[at - 1..], tokens[at..]);
            seen[at] += 1;
        }
        assert!(seen[0] == 0 && seen[1..].iter().all(|n| (60..145).contains(n)), "{seen:?}");
    }

    #[test]
    fn both_parts_together_are_the_text() {
        let example = encoder_decoder(&[5, 6, 7, 8], 0, &mut keyed(0, 0, 3));
        let [written] = &example.sequences[..] else { panic!("{example:?}") };
        assert_eq!([&written.source[..], &written.targets].concat(), [5, 6, 7, 8]);
        assert_eq!((written.prefix_len, written.tokens[0]), (0, 0));
    }
}
