//! A model with its tokenizer, and how many texts go through it.

use rhetor_formats::Checkpoint;
use rhetor_kernels::gemm::Precision;
use rhetor_models::{Batch, LoadOptions, Model, SequenceSpan, Task, labels_of};
use rhetor_tokenizer::{Special, Tokenizer};
use std::ops::Range;

use crate::Error;

/// What the user chooses when a model is to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReaderOptions {
    /// What the model is read for; `None` = what its class says.
    pub task: Option<Task>,
    /// Of the products: in bfloat16 weights and what they are multiplied with have 8 bits of precision, which is faster where
    /// the CPU has instructions for it. Weights that the file has in another type than 32 bits stay as they are.
    pub precision: Precision,
}

/// The tokens of a text or of two, ready for the model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text {
    /// The tokens, those around the text included. Never empty.
    pub ids: Vec<u32>,
    /// The segment of each; empty = all 0.
    pub segments: Vec<u8>,
    /// Tokens that had no room.
    pub n_cut: usize,
}

/// A model with its tokenizer.
pub struct Reader {
    pub(crate) model: Model,
    pub(crate) tokenizer: Tokenizer,
    /// The names of the classes, by number.
    pub(crate) labels: Vec<String>,
    /// `problem_type` of `config.json`.
    pub(crate) problem_type: Option<String>,
    /// The most tokens of a text.
    pub(crate) max_len: usize,
}

/// How many tokens of each of two texts have room together: the longer is cut to the length of the shorter first, then both
/// are halves, as the crate `tokenizers` does it.
fn longest_first(n_a: usize, n_b: usize, room: usize) -> (usize, usize) {
    if n_a + n_b <= room {
        return (n_a, n_b);
    }
    let (mut short, mut long) = (n_a.min(n_b), 0);
    if short <= room {
        long = short.max(room - short);
    }
    if short > room || short + long > room {
        short = room / 2;
        long = room - short;
    }
    if n_a > n_b { (long, short) } else { (short, long) }
}

/// Rows of one pass: enough for the products of matrices to be fast, few enough for the caches.
const MAX_ROWS: usize = 1024;

impl Reader {
    /// Loads the model of `checkpoint`, which reads with `tokenizer`.
    pub fn open(
        checkpoint: &Checkpoint,
        tokenizer: Tokenizer,
        options: ReaderOptions,
    ) -> Result<Reader, Error> {
        let ReaderOptions { task, precision } = options;
        let in_bf16 = precision == Precision::Bf16;
        let model =
            Model::load(checkpoint, LoadOptions { task, precision, in_bf16, ..LoadOptions::default() })?;
        let (n_tokens, vocab_size) = (tokenizer.n_tokens(), model.config().vocab_size);
        if n_tokens > vocab_size {
            return Err(Error::TokenizerTooLarge { n_tokens, vocab_size });
        }
        let mut labels = labels_of(checkpoint)?;
        for i in labels.len()..model.config().head.n_labels {
            labels.push(format!("LABEL_{i}"));
        }
        let problem_type = checkpoint.metadata().get_str("problem_type").ok().flatten().map(str::to_string);
        let mut max_len = model.config().context_len;
        // 10^30 stands for no limit there.
        let limit =
            checkpoint.json("tokenizer_config.json")?.and_then(|json| json["model_max_length"].as_f64());
        if let Some(limit) = limit.filter(|limit| (1.0..1e9).contains(limit)) {
            max_len = max_len.min(limit as usize);
        }
        Ok(Reader { model, tokenizer, labels, problem_type, max_len })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The names of the classes, by number.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The most tokens of a text, those around it included.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// The tokens of one text, cut at the end if there is no room for all.
    pub fn text(&self, text: &str, special: Special) -> Text {
        self.text_of(self.tokenizer.encode(text, special))
    }

    /// The text of these tokens, without those around it, cut at the end if there is no room for all.
    pub fn text_of(&self, mut ids: Vec<u32>) -> Text {
        let n_cut = self.cut(&mut ids);
        Text { ids: self.not_empty(self.tokenizer.wrap(&ids)), segments: Vec::new(), n_cut }
    }

    /// Cuts the tokens of a text so that they and those around them have room; tells how many were cut off.
    pub(crate) fn cut(&self, ids: &mut Vec<u32>) -> usize {
        let (before, after) = self.tokenizer.n_around();
        let n_cut = ids.len().saturating_sub(self.max_len.saturating_sub(before + after));
        ids.truncate(ids.len() - n_cut);
        n_cut
    }

    /// A model without tokens around a text reads an empty one as its end-of-text token.
    fn not_empty(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if ids.is_empty() {
            let stand_in = self.tokenizer.eos().or(self.tokenizer.padding()).unwrap_or(0);
            ids.push(stand_in);
        }
        ids
    }

    /// The tokens of two texts; the longer loses its end, token by token, until both have room (`longest_first`).
    ///
    /// Errors: a vocabulary that does not say how pairs are put together.
    pub fn pair(&self, a: &str, b: &str) -> Result<Text, Error> {
        let mut a = self.tokenizer.encode(a, Special::Literal);
        let mut b = self.tokenizer.encode(b, Special::Literal);
        let around = self.join(&[], &[])?.ids.len();
        let (n_a, n_b) = longest_first(a.len(), b.len(), self.max_len.saturating_sub(around));
        let n_cut = a.len() + b.len() - n_a - n_b;
        a.truncate(n_a);
        b.truncate(n_b);
        let pair = self.join(&a, &b)?;
        Ok(Text { ids: pair.ids, segments: pair.segments, n_cut })
    }

    /// Two texts in one sequence.
    pub(crate) fn join(&self, a: &[u32], b: &[u32]) -> Result<rhetor_tokenizer::Pair, Error> {
        let missing = Error::MissingToken { what: "a pair of texts", token: "a rule for pairs" };
        self.tokenizer.join(a, b).ok_or(missing)
    }

    /// Whether the model has a head for `expected`.
    pub(crate) fn check_head(&self, what: &'static str, expected: Task) -> Result<(), Error> {
        let got = self.model.config().head.task;
        if got == expected {
            return Ok(());
        }
        Err(Error::WrongHead { what, expected, got, family: self.model.family().about.name })
    }

    /// Runs the texts through the model and calls `take` with the number of each and its rows of outputs, `wanted` of its
    /// tokens; the texts come in any order. `take`'s rows: `[n wanted, width]`, row after row, and their width.
    pub(crate) fn read(
        &self,
        texts: &[Text],
        wanted: impl Fn(&Text) -> Range<usize>,
        mut take: impl FnMut(usize, &[f32], usize),
    ) {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(texts[i].ids.len()));
        let mut start = 0;
        while start < order.len() {
            let (mut end, mut n_rows) = (start, 0);
            while end < order.len() && (end == start || n_rows + texts[order[end]].ids.len() <= MAX_ROWS) {
                n_rows += texts[order[end]].ids.len();
                end += 1;
            }
            let mut batch = Batch::default();
            let has_segments = order[start..end].iter().any(|&i| !texts[i].segments.is_empty());
            for text in order[start..end].iter().map(|&i| &texts[i]) {
                let first = batch.tokens.len();
                batch.outputs.extend(wanted(text).map(|row| first + row));
                batch.tokens.extend_from_slice(&text.ids);
                if has_segments {
                    batch.segments.extend_from_slice(&text.segments);
                    batch.segments.resize(batch.tokens.len(), 0);
                }
                batch.spans.push(SequenceSpan { len: text.ids.len(), ..SequenceSpan::default() });
            }
            let outputs = match self.model.config().head.task {
                // A decoder's vectors are what goes into its output layer.
                Task::Vocabulary if !self.model.config().is_encoder => self.model.hidden(&batch, None),
                _ => self.model.forward(&batch, None),
            };
            let (width, mut at) = (outputs.row_len(), 0);
            for &i in &order[start..end] {
                let n = wanted(&texts[i]).len() * width;
                take(i, &outputs.data()[at..at + n], width);
                at += n;
            }
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_of_two_texts_loses_its_end_first() {
        assert_eq!(longest_first(3, 4, 7), (3, 4));
        assert_eq!(longest_first(3, 9, 7), (3, 4));
        assert_eq!(longest_first(9, 3, 7), (4, 3));
        assert_eq!(longest_first(5, 5, 7), (3, 4));
        assert_eq!(longest_first(9, 8, 7), (4, 3));
        assert_eq!(longest_first(9, 8, 0), (0, 0));
    }
}
