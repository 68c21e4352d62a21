//! Text to text for an encoder-decoder: it reads one text and writes another, which is learnt, and that it ends.
//!
//! The source gets the tokens that the vocabulary puts around a text, as when serving; what is written ends with EOS.
//! Source: T5, arXiv:1910.10683, section 2.4; Attention Is All You Need, arXiv:1706.03762, section 5.1.

use rhetor_tokenizer::{Special, Tokenizer};

use crate::data::Row;
use crate::{Example, Sequence, Skip};

/// Makes examples for one model.
#[derive(Debug, Clone, Copy)]
pub struct TextToText<'a> {
    /// Its vocabulary.
    pub tokenizer: &'a Tokenizer,
    /// What the decoder reads first.
    pub decoder_start: u32,
    /// Tokens of a source at most, and of what is written.
    pub max_len: usize,
}

impl TextToText<'_> {
    /// The example of a completion or a translation. Of a text that is too long the beginning is kept.
    pub fn examples(&self, row: &Row) -> Result<Vec<Example>, Skip> {
        let (source, target) = match row {
            Row::Completion { prompt, completion } => (prompt, completion),
            Row::Translation { source, target } => (source, target),
            other => {
                let expected = "completions or translations";
                return Err(Skip::WrongKind { expected, got: other.kind() });
            }
        };
        if target.is_empty() {
            return Err(Skip::Empty);
        }
        let source = self.cut(self.tokenizer.encode_with_specials(source, Special::Literal));
        let mut target = self.tokenizer.encode_with_specials(target, Special::Literal);
        if let Some(eos) = self.tokenizer.eos().filter(|eos| target.last() != Some(eos)) {
            target.push(eos);
        }
        target.truncate(self.max_len);
        match source.is_empty() {
            true => Err(Skip::Empty),
            false => Ok(vec![Example::of(Sequence::written(source, self.decoder_start, target))]),
        }
    }

    /// A source of at most the length allowed, with what stands after every text still at its end.
    fn cut(&self, mut ids: Vec<u32>) -> Vec<u32> {
        let n_around = self.tokenizer.encode_with_specials("", Special::Literal).len();
        if ids.len() > self.max_len && n_around < self.max_len {
            let end = ids.split_off(ids.len() - n_around);
            ids.truncate(self.max_len - n_around);
            ids.extend(end);
        }
        ids.truncate(self.max_len);
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{characters, sentence_piece};
    use super::*;

    fn pair(source: &str, target: &str) -> Row {
        Row::Completion { prompt: source.to_string(), completion: target.to_string() }
    }

    #[test]
    fn what_is_written_ends_with_eos_and_follows_the_start_token() {
        let tokenizer = characters();
        let maker = TextToText { tokenizer: &tokenizer, decoder_start: 0, max_len: 100 };
        let sequence = maker.examples(&pair("abc", "cb")).unwrap().remove(0).sequences.remove(0);
        let ids = |text: &str| tokenizer.encode(text, Special::Literal);
        let targets = [ids("cb"), vec![tokenizer.eos().unwrap()]].concat();
        assert_eq!(sequence.source, tokenizer.encode_with_specials("abc", Special::Literal));
        assert_eq!((&sequence.tokens[..], sequence.targets), (&[&[0], &targets[..2]].concat()[..], targets));
        assert!(sequence.prefix_len == 0 && sequence.segments.is_none());
    }

    #[test]
    fn a_long_source_keeps_its_beginning_and_what_ends_it() {
        let tokenizer = sentence_piece();
        let maker = TextToText { tokenizer: &tokenizer, decoder_start: 0, max_len: 6 };
        let whole = tokenizer.encode_with_specials("one two three four five six seven", Special::Literal);
        let row = Row::Translation { source: "one two three four five six seven".into(), target: "x".into() };
        let source = maker.examples(&row).unwrap().remove(0).sequences.remove(0).source;
        assert_eq!(source.len(), 6);
        let n_around = tokenizer.encode_with_specials("", Special::Literal).len();
        assert_eq!(source[..6 - n_around], whole[..6 - n_around]);
        assert_eq!(source[6 - n_around..], whole[whole.len() - n_around..]);
    }

    #[test]
    fn rows_without_two_texts_are_refused_by_kind() {
        let tokenizer = characters();
        let maker = TextToText { tokenizer: &tokenizer, decoder_start: 0, max_len: 6 };
        assert_eq!(maker.examples(&pair("abc", "")), Err(Skip::Empty));
        let refused = maker.examples(&Row::Text("abc".to_string())).unwrap_err();
        assert!(matches!(refused, Skip::WrongKind { got: "text", .. }));
    }
}
