//! Which tokens belong to which part of a text.
//!
//! The parts are encoded one by one; if that gives the tokens of the whole, a token belongs to its part. If
//! tokens merge over a border, the whole counts, and tokens are laid over the text by their bytes.

use rhetor_tokenizer::Tokenizer;
use std::ops::Range;

/// The ids of `text` and, for each, whether it has a part in one of `ranges` (bytes of `text`, rising, apart
/// from each other).
///
/// `encode` gives the ids of any part of the text; `reveal` the text that ids stand for, where it is not the
/// same. None if the tokens cannot be laid over the text, as those of a tokenizer that changes it (lower
/// case, accents).
pub(crate) fn marked(
    tokenizer: &Tokenizer,
    text: &str,
    ranges: &[Range<usize>],
    encode: impl Fn(&str) -> Vec<u32>,
    reveal: impl Fn(&str) -> String,
) -> Option<(Vec<u32>, Vec<bool>)> {
    let whole = encode(text);
    let (mut ids, mut marks, mut at) = (Vec::with_capacity(whole.len()), Vec::with_capacity(whole.len()), 0);
    let parts = ranges.iter().flat_map(|range| [(range.start, false), (range.end, true)]);
    for (end, is_marked) in parts.chain([(text.len(), false)]) {
        if at < end {
            ids.extend(encode(&text[at..end]));
            marks.resize(ids.len(), is_marked);
        }
        at = end;
    }
    if ids == whole {
        return Some((ids, marks));
    }
    let place = |at: usize| reveal(&text[..at]).len();
    let ranges: Vec<Range<usize>> = ranges.iter().map(|range| place(range.start)..place(range.end)).collect();
    let spans = token_spans(tokenizer, &whole, &reveal(text))?;
    let has_part =
        |span: &Range<usize>| ranges.iter().any(|range| span.start < range.end && range.start < span.end);
    let marks = spans.iter().map(has_part).collect();
    Some((whole, marks))
}

/// The bytes of `text` that each token stands for.
///
/// A space that a token has and the text lacks is the one that SentencePiece puts before a word; white space
/// that the text has and no token is what a control token swallowed. None if they do not fit otherwise.
pub fn token_spans(tokenizer: &Tokenizer, ids: &[u32], text: &str) -> Option<Vec<Range<usize>>> {
    let (bytes, mut at) = (text.as_bytes(), 0);
    let mut spans = Vec::with_capacity(ids.len());
    for &id in ids {
        let token = tokenizer.token_bytes(id);
        let n_swallowed = || {
            let blank = bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            (1..=blank).find(|&n| bytes[at + n..].starts_with(token))
        };
        let (start, len) = if bytes[at..].starts_with(token) {
            (at, token.len())
        } else if let Some(word) = token.strip_prefix(b" ").filter(|word| bytes[at..].starts_with(word)) {
            (at, word.len())
        } else {
            (at + n_swallowed()?, token.len())
        };
        spans.push(start..start + len);
        at = start + len;
    }
    bytes[at..].iter().all(u8::is_ascii_whitespace).then_some(spans)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{byte_level, sentence_piece, word_pieces};
    use super::*;
    use rhetor_tokenizer::Special;

    /// The tokens of `text`, those marked in brackets; `^` in the text are the borders of the marked part.
    fn check(tokenizer: &Tokenizer, text: &str) -> Option<String> {
        let parts: Vec<&str> = text.split('^').collect();
        let range = parts[0].len()..parts[0].len() + parts[1].len();
        let encode = |text: &str| tokenizer.encode(text, Special::Parse);
        let (ids, marks) = marked(tokenizer, &parts.concat(), &[range], encode, str::to_string)?;
        assert_eq!(ids, encode(&parts.concat()), "the ids are those of the whole");
        let shown = ids.iter().zip(marks).map(|(&id, mark)| {
            let token = String::from_utf8_lossy(tokenizer.token_bytes(id)).replace(' ', "_");
            if mark { format!("[{token}]") } else { token }
        });
        Some(shown.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn tokens_are_marked_where_the_parts_say() {
        let tokenizer = byte_level();
        assert_eq!(check(&tokenizer, "a:^b^;c").unwrap(), "a : [b] ; c");
        assert_eq!(check(&tokenizer, "the^ thi^<|endoftext|>").unwrap(), "th e [_th] [i] <|endoftext|>");
        assert_eq!(check(&tokenizer, "the^ t^h<|endoftext|>").unwrap(), "th e [_th] <|endoftext|>");
    }

    #[test]
    fn a_token_that_lies_over_the_border_is_marked() {
        let tokenizer = byte_level();
        assert_eq!(tokenizer.encode("th", Special::Literal).len(), 1, "the fixture has the token");
        assert_eq!(check(&tokenizer, "t^he^;").unwrap(), "[th] [e] ;");
    }

    #[test]
    fn the_space_of_sentence_piece_is_no_part_of_the_text() {
        let tokenizer = sentence_piece();
        let shown = check(&tokenizer, "the ^dog^ .").unwrap();
        let marked: String = shown.split(' ').filter(|token| token.starts_with('[')).collect();
        assert_eq!(marked.replace(['[', ']', '_'], ""), "dog");
    }

    #[test]
    fn a_tokenizer_that_changes_the_text_is_laid_over_it_only_where_parts_agree() {
        let tokenizer = word_pieces();
        assert!(check(&tokenizer, "the ^dog^").is_some());
        assert_eq!(check(&tokenizer, "TH^E^ dog"), None);
    }
}
