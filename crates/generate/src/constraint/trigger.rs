//! A constraint that begins late: after what a model thinks before it speaks.

use crate::sampling::Mask;
use rhetor_tokenizer::Tokenizer;
use std::sync::Arc;

/// A text that the model writes before its grammar begins, such as `</think>`. Until then every token is free but the
/// ends: an answer that never begins satisfies no grammar.
#[derive(Debug, Clone)]
pub(crate) struct Trigger {
    words: Arc<Words>,
    /// The last bytes written, fewer than the text has.
    tail: Vec<u8>,
}

/// What each token writes; control tokens as the vocabulary spells them.
#[derive(Debug)]
struct Words {
    text: Vec<u8>,
    words: Vec<Box<[u8]>>,
}

impl Trigger {
    /// A trigger for `text`, which is not empty.
    pub fn new(text: &str, tokenizer: &Tokenizer) -> Trigger {
        let word = |id: u32| match tokenizer.token_bytes(id) {
            bytes if !bytes.is_empty() && !tokenizer.is_special(id) => bytes.into(),
            _ => tokenizer.piece(id).unwrap_or_default().as_bytes().into(),
        };
        let words = (0..tokenizer.n_tokens() as u32).map(word).collect();
        let words = Words { text: text.as_bytes().to_vec(), words };
        Trigger { words: Arc::new(words), tail: Vec::new() }
    }

    /// Where `text` ends in what was written and `word`, counted from the beginning of `word`.
    fn end_in(&self, word: &[u8]) -> Option<usize> {
        let text = &self.words.text;
        let all = [&self.tail[..], word].concat();
        let at = all.windows(text.len()).position(|window| window == text)?;
        Some(at + text.len() - self.tail.len())
    }

    /// Every token but `stops`, and but those that would write more than white space behind the text: that would be the
    /// answer, and unchecked.
    pub fn mask(&self, stops: &[u32]) -> Mask {
        let n_tokens = self.words.words.len();
        let mut mask = Mask::new(vec![u32::MAX; n_tokens.div_ceil(32)], n_tokens);
        stops.iter().for_each(|&stop| mask.forbid(stop));
        for (id, word) in self.words.words.iter().enumerate() {
            if let Some(end) = self.end_in(word)
                && !word[end..].trim_ascii().is_empty()
            {
                mask.forbid(id as u32);
            }
        }
        mask
    }

    /// Takes a token; true if the text is complete.
    pub fn commit(&mut self, token: u32) -> bool {
        let words = self.words.clone();
        let word = words.words.get(token as usize).map_or(&[][..], |word| word);
        if self.end_in(word).is_some() {
            return true;
        }
        self.tail.extend_from_slice(word);
        let n_kept = words.text.len() - 1;
        self.tail.drain(..self.tail.len().saturating_sub(n_kept));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_tests::letters;

    #[test]
    fn a_text_that_comes_in_pieces_is_recognised_and_nothing_but_space_may_follow_in_its_token() {
        let tokenizer = letters();
        let id = |c: &str| tokenizer.id(c).unwrap();
        let mut trigger = Trigger::new("ab", &tokenizer);
        let mask = trigger.mask(&[1]);
        assert!(!mask.allows(1), "the end waits for an answer");
        assert!(mask.allows(id("a")) && mask.allows(id("z")) && mask.allows(2));
        let heard: Vec<bool> = ["b", "a", "a", "b"].map(|c| trigger.commit(id(c))).to_vec();
        assert_eq!(heard, [false, false, false, true]);
        let mut special = Trigger::new("<|x|>", &tokenizer);
        assert!(special.commit(2), "a control token is recognised by its spelling");
        // In a vocabulary with a token `|>x`, that token would begin the answer.
        let mut inner = Trigger::new("<", &tokenizer);
        assert!(!inner.mask(&[]).allows(2), "`<|x|>` writes more than `<`");
        assert!(inner.commit(id("<")));
    }
}
