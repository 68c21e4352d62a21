//! Span corruption: runs of tokens that were cut out, from the rest of the text.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_generate::Rng;
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_models::Training;

use super::{Objective, Reading, documents, next_tokens, tokens_of};
use crate::data::Row;
use crate::error::Error;
use crate::example::{Example, Tally};
use crate::examples::span_corruption::{Attention, SpanCorruption};
use crate::policy::{Loss, Policy};

pub(super) const ABOUT: About = About {
    name: "span-corruption",
    summary: "predict the runs of tokens that sentinels stand for; a decoder alone reads input and output in one sequence",
    source: Source::Paper { title: "T5", id: "arXiv:1910.10683", section: "section 3.3.4" },
    options: &[
        Opt { name: "density", summary: "tokens that are cut out", default: 0.15, range: (0.01, 0.9) },
        Opt { name: "span-mean", summary: "mean length of a run, tokens", default: 3.0, range: (1.0, 100.0) },
        Opt {
            name: "both-sides",
            summary: "of a decoder alone: 1 = tokens of the input see each other; 0 = causal throughout",
            default: 1.0,
            range: (0.0, 1.0),
        },
    ],
};

struct Spans {
    spans: SpanCorruption,
    attention: Attention,
    reading: Reading,
}

pub(super) fn build(values: &Values, reading: Reading) -> Result<Box<dyn Objective>, Error> {
    let spans = SpanCorruption {
        density: values.get("density"),
        span_mean: values.get("span-mean"),
        ..SpanCorruption::t5(&reading.tokenizer)?
    };
    let attention = if values.is_on("both-sides") { Attention::Prefix } else { Attention::Causal };
    Ok(Box::new(Spans { spans, attention, reading }))
}

impl Spans {
    /// The most of `n` tokens, at least two, whose rows are no more than an example may have: what a decoder reads is input
    /// and output, what an encoder reads is the input.
    fn longest(&self, n: usize) -> usize {
        let rows = |n| {
            let (inputs, targets) = self.spans.lengths(n);
            if self.reading.decoder_start.is_some() { inputs.max(targets) } else { inputs + targets - 1 }
        };
        (3..=n).rev().find(|&n| rows(n) <= self.reading.max_len).unwrap_or(2)
    }
}

impl Objective for Spans {
    fn examples(&self, rows: &[Row], tally: &mut Tally) -> Vec<Example> {
        documents(rows, &self.reading, tally)
    }

    fn draw(&self, example: Example, rng: &mut Rng) -> Example {
        let mut tokens = tokens_of(&example);
        tokens.truncate(self.longest(tokens.len()));
        let corrupted = self.spans.corrupt(&tokens, rng);
        match self.reading.decoder_start {
            Some(start) => self.spans.encoder_decoder(corrupted, start),
            None => self.spans.single(corrupted, self.attention),
        }
    }

    fn loss(&self, policy: &Policy, examples: &[Example], scale: f32, training: Option<Training>) -> Loss {
        next_tokens(policy, examples, scale, CrossEntropy::default(), training)
    }
}
