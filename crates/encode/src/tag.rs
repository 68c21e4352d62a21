//! Tags of tokens, and of the words that neighbours with one tag are.
//!
//! Source: transformers, `TokenClassificationPipeline`; the marks B- and I- are those of CoNLL-2003.

use rhetor_models::Task;
use rhetor_tokenizer::{Special, TokenSpan};
use std::ops::Range;

use crate::Error;
use crate::reader::{Reader, Text};
use crate::softmax::softmax;

/// A tagged part of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Tag {
    /// The tag; of a group without its B- or I-.
    pub label: String,
    /// Its probability; of a group the mean.
    pub score: f64,
    /// Bytes of the text.
    pub bytes: Range<usize>,
}

/// What is tagged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregation {
    /// Each token by itself.
    None,
    /// Neighbours with one tag are a group; a B- begins another.
    Simple,
    /// The same after each word has the tag of its first token.
    First,
    /// The same after each word has the tag that is likeliest in the mean of its tokens.
    Average,
    /// The same after each word has the tag of its surest token.
    Max,
}

/// The tag of a token or of a word.
struct Tagged {
    label: usize,
    score: f64,
    bytes: Range<usize>,
}

impl Reader {
    /// The tags of `text`, without those called O. A text that is longer than the model's context is read in parts that lie
    /// half over each other; a token counts where it has most around it.
    ///
    /// Errors: a model without such a head; a vocabulary that does not say where its tokens stand.
    pub fn tag(&self, text: &str, aggregation: Aggregation) -> Result<Vec<Tag>, Error> {
        self.check_head("tagging", Task::Tokens)?;
        let spans = self.tokenizer.encode_spans(text, Special::Literal)?;
        let scores = self.scores(&spans)?;
        let tokens = spans.iter().zip(scores);
        let mut tagged: Vec<Tagged> = Vec::new();
        let mut word: Vec<(&TokenSpan, Vec<f64>)> = Vec::new();
        for (span, scores) in tokens {
            let goes_on = match aggregation {
                Aggregation::None | Aggregation::Simple => false,
                _ => word.last().is_some_and(|(before, _)| self.continues(text, before, span)),
            };
            if !goes_on {
                tagged.extend(of_word(&word, aggregation));
                word.clear();
            }
            word.push((span, scores));
        }
        tagged.extend(of_word(&word, aggregation));
        let tags = if aggregation == Aggregation::None { self.each(tagged) } else { self.groups(tagged) };
        Ok(tags.into_iter().filter(|tag| tag.label != "O").collect())
    }

    /// The probabilities of all tags for each token. `[T, C]`
    fn scores(&self, spans: &[TokenSpan]) -> Result<Vec<Vec<f64>>, Error> {
        let (before, after) = self.tokenizer.n_around();
        let room = self.max_len.saturating_sub(before + after);
        if room == 0 {
            let (got, max) = (before + after + 1, self.max_len);
            return Err(Error::TooLong { what: "a token with those around it", got, max, allowed: max });
        }
        let step = (room / 2).max(1);
        let mut starts = vec![0];
        while starts[starts.len() - 1] + room < spans.len() {
            starts.push(starts[starts.len() - 1] + step);
        }
        let window = |&start: &usize| {
            let ids: Vec<u32> =
                spans[start..spans.len().min(start + room)].iter().map(|span| span.id).collect();
            Text { ids: self.tokenizer.wrap(&ids), ..Text::default() }
        };
        let windows: Vec<Text> = starts.iter().map(window).collect();
        let mut scores = vec![Vec::new(); spans.len()];
        let mut around = vec![0; spans.len()];
        let rows = |text: &Text| before..text.ids.len() - after;
        self.read(&windows, rows, |i, logits, width| {
            let n = logits.len() / width;
            for (row, logits) in logits.chunks_exact(width).enumerate() {
                let at = starts[i] + row;
                // One more than nothing: a token at an end counts too where it stands in one window only.
                let least = 1 + row.min(n - 1 - row);
                if least > around[at] {
                    (around[at], scores[at]) = (least, softmax(logits));
                }
            }
        });
        Ok(scores)
    }

    /// Whether a token goes on with the word of the one before. Where the vocabulary marks such pieces (`##`) it says so;
    /// else a word goes on where there is no space.
    fn continues(&self, text: &str, before: &TokenSpan, span: &TokenSpan) -> bool {
        if Some(span.id) == self.tokenizer.unknown() {
            return false;
        }
        if self.tokenizer.marks_continuations() {
            return before.word == span.word;
        }
        let start = span.bytes.start;
        start > 0 && !text[..start].ends_with(' ') && !text[start..].starts_with(' ')
    }

    fn each(&self, tagged: Vec<Tagged>) -> Vec<Tag> {
        let tag = |tagged: Tagged| Tag {
            label: self.labels[tagged.label].clone(),
            score: tagged.score,
            bytes: tagged.bytes,
        };
        tagged.into_iter().map(tag).collect()
    }

    fn groups(&self, tagged: Vec<Tagged>) -> Vec<Tag> {
        let mut groups: Vec<Vec<Tagged>> = Vec::new();
        for tagged in tagged {
            let (is_first, tag) = parts(&self.labels[tagged.label]);
            match groups.last_mut() {
                Some(group) if !is_first && parts(&self.labels[group[group.len() - 1].label]).1 == tag => {
                    group.push(tagged);
                }
                _ => groups.push(vec![tagged]),
            }
        }
        let tag = |group: Vec<Tagged>| {
            let label = &self.labels[group[0].label];
            Tag {
                label: label.split_once('-').map_or(label.as_str(), |(_, tag)| tag).to_string(),
                score: group.iter().map(|tagged| tagged.score).sum::<f64>() / group.len() as f64,
                bytes: group[0].bytes.start..group[group.len() - 1].bytes.end,
            }
        };
        groups.into_iter().map(tag).collect()
    }
}

/// Whether a tag begins a group, and what it is without its mark.
fn parts(label: &str) -> (bool, &str) {
    match (label.strip_prefix("B-"), label.strip_prefix("I-")) {
        (Some(tag), _) => (true, tag),
        (None, Some(tag)) => (false, tag),
        (None, None) => (false, label),
    }
}

/// The tag of one word from those of its tokens; none for no tokens.
fn of_word(word: &[(&TokenSpan, Vec<f64>)], aggregation: Aggregation) -> Option<Tagged> {
    let (first, last) = (word.first()?, word.last()?);
    let best = |scores: &[f64]| {
        // The first of equals, as argmax has it.
        let best = (0..scores.len()).rev().max_by(|&a, &b| scores[a].total_cmp(&scores[b]))?;
        Some((best, scores[best]))
    };
    let (label, score) = match aggregation {
        Aggregation::None | Aggregation::Simple | Aggregation::First => best(&first.1)?,
        Aggregation::Max => {
            let surest = word.iter().filter_map(|(_, scores)| best(scores));
            surest.reduce(|a, b| if b.1 > a.1 { b } else { a })?
        }
        Aggregation::Average => {
            let column = |j: usize| word.iter().map(|(_, scores)| scores[j]).sum::<f64>() / word.len() as f64;
            best(&(0..first.1.len()).map(column).collect::<Vec<_>>())?
        }
    };
    Some(Tagged { label, score, bytes: first.0.bytes.start..last.0.bytes.end })
}
