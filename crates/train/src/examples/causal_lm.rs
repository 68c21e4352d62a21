//! Next-token prediction of whole documents, one at a time. Source: GPT, Radford et al. 2018, §3.1, eq. 1.
//!
//! Large texts go through [`crate::data::TokenFile`] and [`crate::data::pack::Windows`] instead; this is for
//! documents that stay apart.

use crate::data::Row;
use crate::{Example, Sequence, Skip};
use rhetor_tokenizer::{Special, Tokenizer};

/// The examples of a document: BOS if the model begins texts with it, the text, EOS; cut into sequences of at
/// most `max_len` rows, each of which predicts the token after it.
///
/// A completion counts as one text.
pub fn examples(row: &Row, tokenizer: &Tokenizer, max_len: usize) -> Result<Vec<Example>, Skip> {
    let ids = document(row, tokenizer)?;
    let mut examples = Vec::new();
    let mut start = 0;
    while start + 1 < ids.len() {
        let end = (start + max_len + 1).min(ids.len());
        examples.push(Example::of(Sequence::next_token(&ids[start..end])));
        start = end - 1;
    }
    if examples.is_empty() { Err(Skip::Empty) } else { Ok(examples) }
}

/// The tokens of a document with those that begin and end it.
pub fn document(row: &Row, tokenizer: &Tokenizer) -> Result<Vec<u32>, Skip> {
    let mut ids: Vec<u32> = tokenizer.bos().filter(|_| tokenizer.adds_bos()).into_iter().collect();
    ids.extend(text_tokens(row, tokenizer)?);
    ids.extend(tokenizer.eos());
    Ok(ids)
}

/// The tokens of a row's text and no others.
pub(crate) fn text_tokens(row: &Row, tokenizer: &Tokenizer) -> Result<Vec<u32>, Skip> {
    let ids = match row {
        Row::Text(text) | Row::Classified { text, text_pair: None, .. } => {
            tokenizer.encode(text, Special::Literal)
        }
        Row::Classified { text, text_pair: Some(pair), .. } => {
            tokenizer.encode(&format!("{text}\n{pair}"), Special::Literal)
        }
        Row::Completion { prompt, completion } => {
            tokenizer.encode(&format!("{prompt}{completion}"), Special::Literal)
        }
        other => return Err(Skip::WrongKind { expected: "texts", got: other.kind() }),
    };
    if ids.is_empty() { Err(Skip::Empty) } else { Ok(ids) }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bracketed, byte_level};
    use super::*;

    #[test]
    fn every_token_of_a_document_is_predicted_once() {
        let tokenizer = byte_level();
        let row = Row::Text("the quick brown fox; the lazy dog".into());
        let whole = examples(&row, &tokenizer, 1000).unwrap();
        assert_eq!(
            bracketed(&tokenizer, &whole[0].sequences[0]),
            "th[e quick brown fox; the lazy dog<|endoftext|>]"
        );
        let parts = examples(&row, &tokenizer, 4).unwrap();
        let targets: Vec<u32> = parts.iter().flat_map(|part| part.sequences[0].targets.clone()).collect();
        assert_eq!(targets, whole[0].sequences[0].targets);
        assert!(parts.len() > 2 && parts.iter().all(|part| part.sequences[0].len() <= 4));
    }

    #[test]
    fn what_is_no_text_is_skipped_with_its_kind() {
        let chat = examples(&Row::Chat(Vec::new()), &byte_level(), 8);
        assert_eq!(chat, Err(Skip::WrongKind { expected: "texts", got: "chat" }));
        assert_eq!(examples(&Row::Text(String::new()), &byte_level(), 8), Err(Skip::Empty));
    }
}
