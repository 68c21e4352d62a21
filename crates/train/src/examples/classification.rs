//! Texts, or pairs of texts, with a class or a number.
//!
//! An encoder reads `[CLS] A [SEP] B [SEP]` and is asked at its first row; a decoder reads A B EOS and is
//! asked at its last. Source: BERT, arXiv:1810.04805, §4.1; GPT, Radford et al. 2018, §3.3.

use crate::data::Row;
use crate::{Error, Example, Label, Sequence, Skip};
use rhetor_tokenizer::{Special, Tokenizer};
use std::collections::BTreeSet;

/// What labels mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// The names of the classes, by number.
    Classes(Vec<String>),
    /// Labels are numbers to predict.
    Numbers,
}

impl Labels {
    /// The classes of these rows, sorted by name; numbers by their value, so that 10 comes after 9.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Labels {
        let names = rows.into_iter().flat_map(|row| match row {
            Row::Classified { label, .. } => std::slice::from_ref(label),
            Row::Tagged { tags, .. } => tags.as_slice(),
            _ => &[],
        });
        let names: BTreeSet<&String> = names.collect();
        let mut names: Vec<String> = names.into_iter().cloned().collect();
        if names.iter().all(|name| name.parse::<i64>().is_ok()) {
            names.sort_by_key(|name| name.parse::<i64>().unwrap_or_default());
        }
        Labels::Classes(names)
    }

    /// The number of a class.
    pub fn class(&self, name: &str) -> Result<u32, Skip> {
        let Labels::Classes(names) = self else { return Err(Skip::UnknownLabel(name.to_string())) };
        let at = names.iter().position(|known| known == name);
        at.map(|at| at as u32).ok_or_else(|| Skip::UnknownLabel(name.to_string()))
    }

    fn label(&self, text: &str) -> Result<Label, Skip> {
        match self {
            Labels::Classes(_) => self.class(text).map(Label::Class),
            Labels::Numbers => match text.trim().parse::<f32>() {
                Ok(number) if number.is_finite() => Ok(Label::Number(number)),
                _ => Err(Skip::UnknownLabel(text.to_string())),
            },
        }
    }
}

/// Who reads the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// An encoder with `[CLS]` and `[SEP]`; RoBERTa's `<s>` and `</s>` have the same roles.
    Encoder {
        /// Begins the sequence.
        class: u32,
        /// Ends each text.
        separator: u32,
    },
    /// A decoder.
    Decoder {
        /// Begins the sequence, if the model wants it.
        bos: Option<u32>,
        /// Ends it.
        eos: u32,
    },
}

impl Reader {
    /// The reader that a vocabulary is made for.
    pub fn of(tokenizer: &Tokenizer) -> Result<Reader, Error> {
        match (tokenizer.class(), tokenizer.separator(), tokenizer.eos()) {
            (Some(class), Some(separator), _) => Ok(Reader::Encoder { class, separator }),
            (_, _, Some(eos)) => {
                Ok(Reader::Decoder { bos: tokenizer.bos().filter(|_| tokenizer.adds_bos()), eos })
            }
            _ => Err(Error::MissingToken { objective: "classification", token: "[CLS] or EOS".to_string() }),
        }
    }

    /// The reader that a model is made for: an encoder's vocabulary may serve a decoder, but not the other way round.
    pub fn of_model(tokenizer: &Tokenizer, is_encoder: bool) -> Result<Reader, Error> {
        let missing =
            |token: &str| Error::MissingToken { objective: "classification", token: token.to_string() };
        match (is_encoder, tokenizer.class(), tokenizer.separator()) {
            (true, Some(class), Some(separator)) => Ok(Reader::Encoder { class, separator }),
            (true, ..) => Err(missing("[CLS] or [SEP]")),
            (false, ..) => Ok(Reader::Decoder {
                bos: tokenizer.bos().filter(|_| tokenizer.adds_bos()),
                eos: tokenizer.eos().ok_or_else(|| missing("EOS"))?,
            }),
        }
    }

    /// Whether the whole sequence is judged at its first row, and not at its last.
    pub fn is_encoder(self) -> bool {
        matches!(self, Reader::Encoder { .. })
    }

    /// A text or a pair as one sequence of at most `max_len` rows; the longer of a pair loses its end first.
    pub fn sequence(
        self,
        mut a: Vec<u32>,
        mut b: Option<Vec<u32>>,
        max_len: usize,
    ) -> Result<Sequence, Skip> {
        let n_control = match self {
            Reader::Encoder { .. } => 2 + usize::from(b.is_some()),
            Reader::Decoder { bos, .. } => 1 + usize::from(bos.is_some()),
        };
        let room = max_len.saturating_sub(n_control);
        let n_b = b.as_ref().map_or(0, Vec::len);
        // Taking tokens one by one from the longer leaves both of one length, or the shorter whole.
        let n_a =
            if a.len() + n_b <= room { a.len() } else { a.len().min(room.saturating_sub(n_b.min(room / 2))) };
        a.truncate(n_a);
        if let Some(b) = &mut b {
            b.truncate(room - n_a);
        }
        if a.is_empty() {
            return Err(Skip::Empty);
        }
        let (mut tokens, mut segments) = (Vec::new(), None);
        match self {
            Reader::Encoder { class, separator } => {
                tokens.push(class);
                tokens.extend(a);
                tokens.push(separator);
                let n_first = tokens.len();
                if let Some(b) = b {
                    tokens.extend(b);
                    tokens.push(separator);
                }
                let mut marks = vec![0; n_first];
                marks.resize(tokens.len(), 1);
                segments = Some(marks);
            }
            Reader::Decoder { bos, eos } => {
                tokens.extend(bos);
                tokens.extend(a);
                tokens.extend(b.into_iter().flatten());
                tokens.push(eos);
            }
        }
        let is_encoder = matches!(self, Reader::Encoder { .. });
        let mut sequence = Sequence::encoder(tokens);
        sequence.segments = segments;
        sequence.prefix_len = if is_encoder { sequence.len() } else { 0 };
        Ok(sequence)
    }
}

/// The example of a classified text.
pub fn examples(
    row: &Row,
    tokenizer: &Tokenizer,
    reader: Reader,
    labels: &Labels,
    max_len: usize,
) -> Result<Vec<Example>, Skip> {
    let Row::Classified { text, text_pair, label } = row else {
        return Err(Skip::WrongKind { expected: "classified texts", got: row.kind() });
    };
    let label = labels.label(label)?;
    let encode = |text: &str| tokenizer.encode(text, Special::Literal);
    let pair = text_pair.as_deref().map(encode);
    Ok(vec![Example { sequences: vec![reader.sequence(encode(text), pair, max_len)?], label }])
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{byte_level, word_pieces};
    use super::*;
    use rhetor_tokenizer::ControlTokens;

    fn row(text: &str, pair: Option<&str>, label: &str) -> Row {
        Row::Classified { text: text.into(), text_pair: pair.map(str::to_string), label: label.into() }
    }

    #[test]
    fn an_encoder_reads_segments_and_a_decoder_reads_to_eos() {
        let labels = Labels::Classes(vec!["no".into(), "yes".into()]);
        let tokenizer = word_pieces();
        let reader = Reader::of(&tokenizer).unwrap();
        let example = examples(&row("the dog", Some("the fox"), "yes"), &tokenizer, reader, &labels, 100)
            .unwrap()
            .remove(0);
        let sequence = &example.sequences[0];
        let pieces: Vec<&str> = sequence.tokens.iter().map(|&id| tokenizer.piece(id).unwrap()).collect();
        assert_eq!((pieces[0], *pieces.last().unwrap()), ("[CLS]", "[SEP]"));
        let n_first = sequence.segments.as_ref().unwrap().iter().filter(|&&segment| segment == 0).count();
        assert_eq!((pieces[n_first - 1], sequence.prefix_len), ("[SEP]", sequence.len()));
        assert_eq!(example.label, Label::Class(1));
        let tokenizer = byte_level();
        let reader = Reader::of(&tokenizer).unwrap();
        let example =
            examples(&row("the dog", None, "no"), &tokenizer, reader, &labels, 100).unwrap().remove(0);
        assert_eq!(
            tokenizer.decode(&example.sequences[0].tokens, ControlTokens::Show),
            "the dog<|endoftext|>"
        );
        assert_eq!((example.label, example.sequences[0].prefix_len), (Label::Class(0), 0));
    }

    #[test]
    fn the_longer_of_a_pair_loses_its_end_first() {
        let reader = Reader::Encoder { class: 0, separator: 1 };
        let lengths = |a: usize, b: usize, max_len| {
            let sequence = reader.sequence(vec![5; a], Some(vec![6; b]), max_len).unwrap();
            assert!(sequence.len() <= max_len);
            [5, 6].map(|id| sequence.tokens.iter().filter(|&&token| token == id).count())
        };
        assert_eq!(lengths(10, 3, 12), [6, 3]);
        assert_eq!(lengths(3, 10, 12), [3, 6]);
        assert_eq!(lengths(10, 10, 12), [5, 4]);
        assert_eq!(lengths(2, 2, 12), [2, 2]);
        assert_eq!(reader.sequence(vec![5], None, 2), Err(Skip::Empty));
    }

    #[test]
    fn labels_are_numbered_by_name_or_by_value() {
        let rows = ["10", "9", "2"].map(|label| row("a", None, label));
        assert_eq!(Labels::of(&rows), Labels::Classes(vec!["2".into(), "9".into(), "10".into()]));
        let rows = ["b", "a", "b"].map(|label| row("a", None, label));
        let labels = Labels::of(&rows);
        assert_eq!((labels.class("a"), labels.class("b")), (Ok(0), Ok(1)));
        assert_eq!(labels.class("c"), Err(Skip::UnknownLabel("c".into())));
        assert_eq!(Labels::Numbers.label("2.5"), Ok(Label::Number(2.5)));
        assert!(Labels::Numbers.label("nan").is_err() && Labels::Numbers.label("x").is_err());
    }
}
