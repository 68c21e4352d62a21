//! Words with tags: the first piece of each word carries its tag, the others none. Source: BERT,
//! arXiv:1810.04805, §5.3.

use super::classification::{Labels, Reader};
use crate::data::Row;
use crate::{Example, IGNORE, Label, Skip};
use rhetor_tokenizer::{Special, Tokenizer};

/// The example of a tagged sentence of at most `max_len` rows; words that do not fit are left out whole.
///
/// Where words are divided by spaces in the vocabulary's texts (GPT-2's kind), each word but the first gets
/// one.
pub fn examples(
    row: &Row,
    tokenizer: &Tokenizer,
    reader: Reader,
    labels: &Labels,
    max_len: usize,
) -> Result<Vec<Example>, Skip> {
    let Row::Tagged { words, tags } = row else {
        return Err(Skip::WrongKind { expected: "tagged words", got: row.kind() });
    };
    if words.len() != tags.len() {
        return Err(Skip::Contradiction(format!("{} words and {} tags", words.len(), tags.len())));
    }
    let n_before = match reader {
        Reader::Encoder { .. } => 1,
        Reader::Decoder { bos, .. } => usize::from(bos.is_some()),
    };
    let spaced = matches!(reader, Reader::Decoder { .. });
    let (mut ids, mut classes) = (Vec::new(), Vec::new());
    for (i, (word, tag)) in words.iter().zip(tags).enumerate() {
        let space = if spaced && i > 0 { " " } else { "" };
        let mut pieces = tokenizer.encode(&format!("{space}{word}"), Special::Literal);
        if pieces.is_empty() {
            // A word of which the tokenizer leaves nothing still has its tag.
            pieces.extend(tokenizer.unknown());
        }
        if ids.len() + pieces.len() + n_before + 1 > max_len {
            break;
        }
        let class = labels.class(tag)?;
        classes.extend((0..pieces.len()).map(|piece| if piece == 0 { class } else { IGNORE }));
        ids.extend(pieces);
    }
    let sequence = reader.sequence(ids, None, max_len)?;
    let mut tagged = vec![IGNORE; n_before];
    tagged.extend(classes);
    tagged.resize(sequence.len(), IGNORE);
    Ok(vec![Example { sequences: vec![sequence], label: Label::Tokens(tagged) }])
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{byte_level, word_pieces};
    use super::*;

    fn shown(tokenizer: &Tokenizer, max_len: usize) -> String {
        let words = ["tokenization", "of", "dogs"].map(str::to_string).to_vec();
        let tags = ["N", "P", "N"].map(str::to_string).to_vec();
        let row = Row::Tagged { words, tags };
        let labels = Labels::of([&row]);
        let reader = Reader::of(tokenizer).unwrap();
        let example = examples(&row, tokenizer, reader, &labels, max_len).unwrap().remove(0);
        let Label::Tokens(classes) = example.label else { panic!("{:?}", example.label) };
        assert_eq!(classes.len(), example.sequences[0].len());
        let pairs = example.sequences[0].tokens.iter().zip(classes).map(|(&id, class)| {
            let piece = tokenizer.piece(id).unwrap();
            if class == IGNORE { piece.to_string() } else { format!("{piece}/{class}") }
        });
        pairs.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_first_piece_of_a_word_carries_its_tag() {
        let shown_by_pieces = shown(&word_pieces(), 100);
        let words: Vec<&str> = shown_by_pieces.split(' ').filter(|piece| piece.contains('/')).collect();
        assert_eq!(words.len(), 3, "{shown_by_pieces}");
        assert!(
            shown_by_pieces.starts_with("[CLS] ") && shown_by_pieces.ends_with(" [SEP]"),
            "{shown_by_pieces}"
        );
        assert!(!words.iter().any(|word| word.starts_with("##")), "{shown_by_pieces}");
        let shown_by_bytes = shown(&byte_level(), 100);
        assert!(shown_by_bytes.contains(" Ġof/1 ") || shown_by_bytes.contains(" Ġ/1 "), "{shown_by_bytes}");
        assert!(shown_by_bytes.ends_with(" <|endoftext|>"), "{shown_by_bytes}");
    }

    #[test]
    fn words_that_do_not_fit_are_left_out_whole() {
        let all = shown(&word_pieces(), 100);
        let n_all = all.split(' ').count();
        let cut = shown(&word_pieces(), n_all - 1);
        assert_eq!(cut.matches('/').count(), 2, "{cut}");
        assert!(cut.ends_with(" [SEP]"));
    }

    #[test]
    fn unknown_tags_and_unequal_lists_are_skipped() {
        let tokenizer = word_pieces();
        let reader = Reader::of(&tokenizer).unwrap();
        let labels = Labels::Classes(vec!["N".into()]);
        let made = |words: &[&str], tags: &[&str]| {
            let [words, tags] = [words, tags].map(|list| list.iter().map(|text| text.to_string()).collect());
            examples(&Row::Tagged { words, tags }, &tokenizer, reader, &labels, 100)
        };
        assert_eq!(made(&["a"], &["V"]), Err(Skip::UnknownLabel("V".into())));
        assert_eq!(made(&["a"], &[]), Err(Skip::Contradiction("1 words and 0 tags".into())));
        assert_eq!(made(&[], &[]), Err(Skip::Empty));
    }
}
