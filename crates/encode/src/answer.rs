//! Answers that stand in a text.
//!
//! A long text is read in windows that overlap. A part of it from row s to row e is as likely an answer as its beginning times its
//! end; equal answers add up. Source: transformers 4.57, `QuestionAnsweringPipeline`; DrQA, arXiv:1704.00051, section 3.2.

use rhetor_models::Task;
use rhetor_tokenizer::{Special, TokenSpan};
use std::ops::Range;

use crate::Error;
use crate::reader::{Reader, Text};
use crate::softmax::softmax;

/// How answers are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerOptions {
    /// How many are wanted.
    pub n: usize,
    /// The most tokens of an answer.
    pub max_answer_len: usize,
    /// The most tokens of a window, the question included; at most what the model reads.
    pub window: usize,
    /// Tokens that a window shares with the one before; `None` = half of the window, at most 128.
    pub stride: Option<usize>,
    /// Whether there may be none: then the empty answer is one of those that are weighed.
    pub may_be_none: bool,
}

impl Default for AnswerOptions {
    fn default() -> AnswerOptions {
        AnswerOptions { n: 1, max_answer_len: 15, window: 384, stride: None, may_be_none: false }
    }
}

/// A part of a text that answers a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// How likely it is; sums over windows and over places where it stands may be above 1.
    pub score: f64,
    /// Bytes of the context; empty if there is no answer.
    pub bytes: Range<usize>,
}

/// The tokens of the context that one window holds.
struct Window {
    text: Text,
    /// Of the context's tokens.
    tokens: Range<usize>,
    /// The row of the first of them.
    first: usize,
}

impl Reader {
    /// The likeliest answers to `question` in `context`, the likeliest first, at whole words.
    ///
    /// Errors: a model without such a head; a vocabulary that does not say where its tokens stand, or how pairs are put
    /// together; a question that leaves no room.
    pub fn answer(
        &self,
        question: &str,
        context: &str,
        options: AnswerOptions,
    ) -> Result<Vec<Answer>, Error> {
        self.check_head("an answer", Task::Span)?;
        let spans = self.tokenizer.encode_spans(context, Special::Literal)?;
        let windows = self.windows(question, &spans, options)?;
        let texts: Vec<Text> = windows.iter().map(|window| window.text.clone()).collect();
        let mut rows = vec![Vec::new(); windows.len()];
        self.read(&texts, |text| 0..text.ids.len(), |i, logits, _| rows[i] = logits.to_vec());
        let mut answers: Vec<Answer> = Vec::new();
        let mut none = f64::INFINITY;
        for (window, logits) in windows.iter().zip(&rows) {
            let [starts, ends] = [0, 1].map(|end| self.probabilities(window, logits, end));
            none = none.min(starts[0] * ends[0]);
            // Where words begin before their first token and end behind their last, equal parts come out: some are spare.
            for (s, e, score) in likeliest(window, &starts, &ends, 2 * options.n + 10, options.max_answer_len)
            {
                let bytes = word_start(&spans, &window.tokens, s)..word_end(&spans, &window.tokens, e);
                let text = context[bytes.clone()].to_lowercase();
                match answers.iter_mut().find(|answer| context[answer.bytes.clone()].to_lowercase() == text) {
                    Some(answer) => answer.score += score,
                    None => answers.push(Answer { score, bytes }),
                }
            }
        }
        if options.may_be_none {
            answers.push(Answer { score: none, bytes: 0..0 });
        }
        answers.sort_by(|a, b| b.score.total_cmp(&a.score));
        answers.truncate(options.n);
        Ok(answers)
    }

    fn windows(
        &self,
        question: &str,
        spans: &[TokenSpan],
        options: AnswerOptions,
    ) -> Result<Vec<Window>, Error> {
        let question = self.tokenizer.encode(question, Special::Literal);
        let around = self.join(&question, &[])?.ids.len();
        let size = options.window.min(self.max_len);
        let stride = options.stride.unwrap_or((size / 2).min(128));
        if around + stride >= size {
            let allowed = size.saturating_sub(around - question.len() + stride + 1);
            return Err(Error::TooLong { what: "the question", got: question.len(), max: size, allowed });
        }
        let room = size - around;
        let (mut windows, mut start) = (Vec::new(), 0);
        loop {
            let tokens = start..spans.len().min(start + room);
            let ids: Vec<u32> = spans[tokens.clone()].iter().map(|span| span.id).collect();
            let pair = self.join(&question, &ids)?;
            let text = Text { ids: pair.ids, segments: pair.segments, n_cut: 0 };
            let is_last = tokens.end == spans.len();
            windows.push(Window { text, tokens, first: pair.second.start });
            if is_last {
                return Ok(windows);
            }
            start += room - stride;
        }
    }

    /// The probability of each row as beginning (0) or end (1) of the answer: only rows of the context and the class token
    /// count.
    fn probabilities(&self, window: &Window, logits: &[f32], end: usize) -> Vec<f64> {
        let of_context = window.first..window.first + window.tokens.len();
        let counts =
            |(row, id): (usize, &u32)| of_context.contains(&row) || Some(*id) == self.tokenizer.class();
        let counts = window.text.ids.iter().enumerate().map(counts);
        let masked =
            counts.zip(logits.chunks_exact(2)).map(|(counts, row)| if counts { row[end] } else { -1e4 });
        softmax(&masked.collect::<Vec<f32>>())
    }
}

/// The `n` likeliest parts of a window, as the first and last of the context's tokens.
fn likeliest(
    window: &Window,
    starts: &[f64],
    ends: &[f64],
    n: usize,
    max_len: usize,
) -> Vec<(usize, usize, f64)> {
    let Window { tokens, first, .. } = window;
    let row = |token: usize| first + token - tokens.start;
    let mut parts: Vec<(usize, usize, f64)> = tokens
        .clone()
        .flat_map(|s| (s..tokens.end.min(s + max_len)).map(move |e| (s, e)))
        .map(|(s, e)| (s, e, starts[row(s)] * ends[row(e)]))
        .collect();
    parts.sort_by(|a, b| b.2.total_cmp(&a.2));
    parts.truncate(n);
    parts
}

/// Where the word of token `at` begins, as far as the window shows it.
fn word_start(spans: &[TokenSpan], window: &Range<usize>, at: usize) -> usize {
    let mut first = at;
    while first > window.start && spans[first - 1].word == spans[at].word {
        first -= 1;
    }
    spans[first].bytes.start
}

/// Where the word of token `at` ends, as far as the window shows it.
fn word_end(spans: &[TokenSpan], window: &Range<usize>, at: usize) -> usize {
    let mut last = at;
    while last + 1 < window.end && spans[last + 1].word == spans[at].word {
        last += 1;
    }
    spans[last].bytes.end
}
