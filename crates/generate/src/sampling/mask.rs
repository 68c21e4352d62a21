//! Which tokens a constraint leaves to choose from.

/// Tokens that may be chosen: a bit for each token of the vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    words: Vec<u32>,
    n_tokens: usize,
}

impl Mask {
    /// A mask over `n_tokens` tokens: token `i` is bit `i % 32` of word `i / 32`; words that are missing allow nothing.
    pub fn new(mut words: Vec<u32>, n_tokens: usize) -> Mask {
        words.resize(n_tokens.div_ceil(32), 0);
        if !n_tokens.is_multiple_of(32)
            && let Some(last) = words.last_mut()
        {
            *last &= (1 << (n_tokens % 32)) - 1;
        }
        Mask { words, n_tokens }
    }

    /// Allows a token; one beyond the vocabulary stays forbidden.
    pub fn allow(&mut self, id: u32) {
        if (id as usize) < self.n_tokens {
            self.words[id as usize / 32] |= 1 << (id % 32);
        }
    }

    /// Forbids a token.
    pub fn forbid(&mut self, id: u32) {
        if (id as usize) < self.n_tokens {
            self.words[id as usize / 32] &= !(1 << (id % 32));
        }
    }

    /// Whether a token may be chosen.
    pub fn allows(&self, id: u32) -> bool {
        (id as usize) < self.n_tokens && self.words[id as usize / 32] >> (id % 32) & 1 == 1
    }

    /// How many tokens may be chosen.
    pub fn n_allowed(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether every token may be chosen.
    pub fn allows_all(&self) -> bool {
        self.n_allowed() == self.n_tokens
    }

    /// Replaces `masked` by `logits: [V]`, with −∞ for each token that may not be chosen.
    pub(super) fn apply(&self, logits: &[f32], masked: &mut Vec<f32>) {
        masked.clear();
        masked.reserve(logits.len());
        for (word, chunk) in self.words.iter().zip(logits.chunks(32)) {
            match *word {
                0 => masked.resize(masked.len() + chunk.len(), f32::NEG_INFINITY),
                u32::MAX => masked.extend_from_slice(chunk),
                word => masked.extend(
                    chunk
                        .iter()
                        .enumerate()
                        .map(|(bit, &logit)| if word >> bit & 1 == 1 { logit } else { f32::NEG_INFINITY }),
                ),
            }
        }
        masked.resize(logits.len(), f32::NEG_INFINITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_allowed_becomes_minus_infinity_and_the_rest_stays() {
        let logits: Vec<f32> = (0..70).map(|i| i as f32).collect();
        let mut mask = Mask::new(vec![0, u32::MAX, u32::MAX], 70);
        mask.allow(3);
        mask.forbid(69);
        mask.allow(70);
        let mut masked = vec![5.0; 3];
        mask.apply(&logits, &mut masked);
        assert_eq!(masked.len(), 70);
        for (id, &logit) in masked.iter().enumerate() {
            let allowed = id == 3 || (32..69).contains(&id);
            assert_eq!(logit, if allowed { id as f32 } else { f32::NEG_INFINITY }, "token {id}");
            assert_eq!(mask.allows(id as u32), allowed);
        }
        assert_eq!((mask.n_allowed(), mask.allows_all(), mask.allows(70)), (38, false, false));
        assert!(Mask::new(vec![u32::MAX; 2], 33).allows_all());
    }
}
