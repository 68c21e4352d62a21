//! Questions that a text answers in its own words: windows over the text, and where the answer lies in each.
//!
//! Source: BERT, arXiv:1810.04805, §4.2 and §4.3, and its run_squad.py: `[CLS] question [SEP] window [SEP]`,
//! windows of 384 tokens every 128, questions of at most 64; a window without the answer points at `[CLS]`.

use crate::data::{Answer, Row};
use crate::{Error, Example, Label, Sequence, Skip};
use rhetor_tokenizer::{Special, Tokenizer};
use std::ops::Range;

/// How long questions and windows are, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowOptions {
    /// The most rows of a sequence.
    pub max_len: usize,
    /// Tokens from the beginning of one window to the beginning of the next.
    pub stride: usize,
    /// The most tokens of a question; the others are cut off.
    pub question_max: usize,
}

impl Default for WindowOptions {
    fn default() -> WindowOptions {
        WindowOptions { max_len: 384, stride: 128, question_max: 64 }
    }
}

/// A window over a text, and what its rows stand for.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// The sequence, and where the answer lies in it.
    pub example: Example,
    /// For each row, the bytes of the text that it stands for; none for the question and control tokens.
    pub places: Vec<Option<Range<usize>>>,
}

/// Makes windows for one vocabulary.
#[derive(Debug, Clone, Copy)]
pub struct Questions {
    options: WindowOptions,
    class: u32,
    separator: u32,
}

impl Questions {
    /// Fails if the vocabulary has no `[CLS]` or `[SEP]`, or windows would have no room.
    pub fn new(tokenizer: &Tokenizer, options: WindowOptions) -> Result<Questions, Error> {
        let missing =
            |token: &str| Error::MissingToken { objective: "question answering", token: token.to_string() };
        if options.stride == 0 || options.max_len <= options.question_max + 3 {
            let reason =
                format!("windows have a stride and room for text after the question, got {options:?}");
            return Err(Error::InvalidOption { option: "max-len", reason });
        }
        Ok(Questions {
            options,
            class: tokenizer.class().ok_or_else(|| missing("[CLS]"))?,
            separator: tokenizer.separator().ok_or_else(|| missing("[SEP]"))?,
        })
    }

    /// The windows over the text of a question. The first of its answers is the one that is learnt.
    pub fn windows(&self, row: &Row, tokenizer: &Tokenizer) -> Result<Vec<Window>, Skip> {
        let Row::Question { context, question, answers } = row else {
            return Err(Skip::WrongKind { expected: "questions", got: row.kind() });
        };
        let text = placed(context, tokenizer);
        if text.ids.is_empty() {
            return Err(Skip::Empty);
        }
        let answer =
            answers.first().map(|answer| answer_tokens(context, answer, &text, tokenizer)).transpose()?;
        let mut head = vec![self.class];
        head.extend(tokenizer.encode(question, Special::Literal).into_iter().take(self.options.question_max));
        head.push(self.separator);
        let room = self.options.max_len - head.len() - 1;
        let mut windows = Vec::new();
        let mut start = 0;
        loop {
            let end = (start + room).min(text.ids.len());
            windows.push(self.window(&head, &text, start..end, answer.as_ref()));
            if end == text.ids.len() {
                return Ok(windows);
            }
            start += self.options.stride.min(room);
        }
    }

    fn window(
        &self,
        head: &[u32],
        text: &Placed,
        range: Range<usize>,
        answer: Option<&Range<usize>>,
    ) -> Window {
        let mut tokens = head.to_vec();
        tokens.extend_from_slice(&text.ids[range.clone()]);
        tokens.push(self.separator);
        let mut segments = vec![0; head.len()];
        segments.resize(tokens.len(), 1);
        let mut places = vec![None; head.len()];
        places.extend(text.places[range.clone()].iter().cloned().map(Some));
        places.push(None);
        let inside = answer.filter(|answer| range.start <= answer.start && answer.end <= range.end);
        let row = |at: usize| (head.len() + at - range.start) as u32;
        let (start, end) = inside.map_or((0, 0), |answer| (row(answer.start), row(answer.end - 1)));
        let mut sequence = Sequence::encoder(tokens);
        sequence.segments = Some(segments);
        Window { example: Example { sequences: vec![sequence], label: Label::Span { start, end } }, places }
    }
}

/// The tokens of a text with the bytes of the text that each stands for.
struct Placed {
    ids: Vec<u32>,
    places: Vec<Range<usize>>,
}

/// Encodes a text piece by piece: words, and each character that is neither letter nor digit, and each
/// ideograph, as BERT's tokenizer divides them before it looks for pieces. All tokens of a piece stand for
/// all of it.
fn placed(text: &str, tokenizer: &Tokenizer) -> Placed {
    let mut placed = Placed { ids: Vec::new(), places: Vec::new() };
    for piece in pieces(text) {
        let ids = tokenizer.encode(&text[piece.clone()], Special::Literal);
        placed.places.extend(ids.iter().map(|_| piece.clone()));
        placed.ids.extend(ids);
    }
    placed
}

fn pieces(text: &str) -> Vec<Range<usize>> {
    let mut pieces: Vec<Range<usize>> = Vec::new();
    let mut in_word = false;
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        let is_part = (c.is_alphanumeric() || is_mark(c)) && !is_ideograph(c);
        match pieces.last_mut() {
            _ if c.is_whitespace() => {}
            Some(word) if is_part && in_word => word.end = end,
            _ => pieces.push(at..end),
        }
        in_word = is_part;
    }
    pieces
}

/// Marks that combine with the letter before them, in the blocks that hold nothing else.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}')
}

/// The ideographs that BERT puts spaces around.
fn is_ideograph(c: char) -> bool {
    matches!(c,
        '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{20000}'..='\u{2a6df}' | '\u{2a700}'..='\u{2ceaf}'
        | '\u{f900}'..='\u{faff}' | '\u{2f800}'..='\u{2fa1f}')
}

/// The tokens of an answer: those of the pieces that it touches, or fewer if its own tokens are found among
/// them.
fn answer_tokens(
    context: &str,
    answer: &Answer,
    text: &Placed,
    tokenizer: &Tokenizer,
) -> Result<Range<usize>, Skip> {
    let misplaced =
        || Skip::Contradiction(format!("{:?} does not stand at character {}", answer.text, answer.start));
    let start = context.char_indices().map(|(at, _)| at).nth(answer.start).ok_or_else(misplaced)?;
    if answer.text.is_empty() || !context[start..].starts_with(&answer.text) {
        return Err(misplaced());
    }
    let end = start + answer.text.len();
    let from = text.places.partition_point(|place| place.end <= start);
    let to = text.places.partition_point(|place| place.start < end);
    if from >= to {
        return Err(misplaced());
    }
    // `1870` within `(1870-1880)` or `steam` within `steamships`: run_squad.py's _improve_answer_span.
    let own = tokenizer.encode(&answer.text, Special::Literal);
    let found =
        (from..to).find(|&at| !own.is_empty() && at + own.len() <= to && text.ids[at..].starts_with(&own));
    Ok(found.map_or(from..to, |at| at..at + own.len()))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{byte_level, word_pieces};
    use super::*;

    fn row(context: &str, answers: &[(&str, usize)]) -> Row {
        let answers = answers.iter().map(|&(text, start)| Answer { text: text.into(), start }).collect();
        Row::Question { context: context.into(), question: "the dog?".into(), answers }
    }

    fn windows(row: &Row, options: WindowOptions) -> Result<Vec<Window>, Skip> {
        Questions::new(&word_pieces(), options).unwrap().windows(row, &word_pieces())
    }

    /// The text of the context at the rows to which a window points.
    fn answered<'a>(context: &'a str, window: &Window) -> &'a str {
        let Label::Span { start, end } = window.example.label else { panic!("{window:?}") };
        match (&window.places[start as usize], &window.places[end as usize]) {
            (Some(start), Some(end)) => &context[start.start..end.end],
            places => {
                assert_eq!((start, end), (0, 0), "{places:?}");
                ""
            }
        }
    }

    #[test]
    fn a_window_points_at_the_answer_in_the_text() {
        let context = "Über the lazy dog (1870-1880), the quick fox.";
        for (text, start) in [("lazy dog", 9), ("1870", 19), ("fox", 41), ("Über", 0), ("quick fox.", 35)] {
            let made = windows(&row(context, &[(text, start)]), WindowOptions::default()).unwrap();
            assert_eq!((made.len(), answered(context, &made[0])), (1, text));
            assert_eq!(made[0].places.len(), made[0].example.sequences[0].len());
        }
        let made = windows(&row(context, &[]), WindowOptions::default()).unwrap();
        assert_eq!(made[0].example.label, Label::Span { start: 0, end: 0 }, "the text does not say");
    }

    #[test]
    fn windows_overlap_and_only_those_with_the_whole_answer_point_at_it() {
        let context = "the lazy dog and the quick fox ".repeat(20);
        let start = context.len() - "quick fox ".len();
        let options = WindowOptions { max_len: 40, stride: 10, question_max: 8 };
        let made = windows(&row(&context, &[("quick fox", start)]), options).unwrap();
        assert!(made.len() > 5 && made.iter().all(|window| window.example.sequences[0].len() <= 40));
        let found = made.iter().filter(|window| !answered(&context, window).is_empty());
        let found: Vec<&str> = found.map(|window| answered(&context, window)).collect();
        assert!(
            !found.is_empty() && found.len() <= 3 && found.iter().all(|&text| text == "quick fox"),
            "{found:?}"
        );
        let all: Vec<&Range<usize>> = made.iter().flat_map(|window| window.places.iter().flatten()).collect();
        let n_covered = (0..context.len()).filter(|at| all.iter().any(|place| place.contains(at))).count();
        assert_eq!(n_covered, context.chars().filter(|c| !c.is_whitespace()).count(), "no word is left out");
    }

    #[test]
    fn pieces_are_words_marks_and_ideographs() {
        let text = "it's e\u{301}t 中文(1a)";
        let shown: Vec<&str> = pieces(text).into_iter().map(|piece| &text[piece]).collect();
        assert_eq!(shown, ["it", "'", "s", "e\u{301}t", "中", "文", "(", "1a", ")"]);
    }

    #[test]
    fn answers_that_are_not_there_are_skipped() {
        let made = windows(&row("the dog", &[("fox", 4)]), WindowOptions::default());
        assert_eq!(made, Err(Skip::Contradiction("\"fox\" does not stand at character 4".into())));
        assert!(windows(&row("the dog", &[("dog", 40)]), WindowOptions::default()).is_err());
        assert_eq!(windows(&row("", &[]), WindowOptions::default()), Err(Skip::Empty));
        assert!(matches!(
            Questions::new(&byte_level(), WindowOptions::default()),
            Err(Error::MissingToken { .. })
        ));
        let narrow = WindowOptions { max_len: 67, ..WindowOptions::default() };
        assert!(matches!(Questions::new(&word_pieces(), narrow), Err(Error::InvalidOption { .. })));
    }
}
