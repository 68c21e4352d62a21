//! `rhetor bench`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::output;
use crate::range::range;
use crate::session::Session;
use crate::voice::{self, KvArg};
use rhetor_kernels::kv::PAGE_LEN;
use rhetor_kernels::{isa, threads};
use rhetor_models::{Batch, KvCache, Model, SequenceSpan};
use serde_json::{Value, json};
use std::time::Instant;

/// Measure the speed of a model in tokens per second
///
/// Runs the model itself on random tokens, without tokenizer and sampling. `pp` is the processing of a prompt, `tg` the
/// generation of tokens one by one; `@ d` follows after so many tokens already in the context; `x b` generates
/// for b sequences at once. Each figure is the median of the repetitions, after one that is not counted.
#[derive(Debug, clap::Args)]
pub struct Bench {
    /// Name, reference or path of a model
    model: String,

    /// Lengths of prompts in tokens
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "512", value_parser = range(0usize, 1 << 24))]
    prompt: Vec<usize>,

    /// Numbers of tokens to generate
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "128", value_parser = range(0usize, 1 << 24))]
    generate: Vec<usize>,

    /// Numbers of tokens that are in the context before
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "0", value_parser = range(0usize, 1 << 24))]
    depth: Vec<usize>,

    /// Sequences that generate at once
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1", value_parser = range(1usize, 4096))]
    batch: Vec<usize>,

    /// Tokens of a prompt in one step
    #[arg(long, value_name = "N", default_value = "512", value_parser = range(1usize, 1 << 20))]
    chunk: usize,

    /// How often each figure is measured
    #[arg(long, value_name = "N", default_value = "5", value_parser = range(1usize, 1000))]
    repetitions: usize,

    /// How keys and values are kept
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    kv: KvArg,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
struct Case {
    phase: Phase,
    n_tokens: usize,
    depth: usize,
    n_sequences: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Prompt,
    Generate,
}

impl Run for Bench {
    const NAME: &str = "bench";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let cases = self.cases();
        let needed = cases.iter().map(|case| case.depth + case.n_tokens).max().unwrap_or(0);
        let model = voice::open(session, &self.model, None, &[])?.model;
        let context = model.config().context_len;
        if needed > context {
            let message = format!("{needed} tokens are to be measured; the model's context holds {context}");
            return Err(Failure::input(message).hint("lower --depth, --prompt or --generate"));
        }
        let mut rows = vec![["TEST", "THREADS", "TOKENS/S", "MIN", "MAX"].map(String::from).to_vec()];
        let mut report = Vec::new();
        for case in &cases {
            for n_threads in &session.thread_counts {
                threads::set_threads(*n_threads);
                let speeds = self.measure(&model, case);
                let median = median(&speeds);
                let (min, max) =
                    speeds.iter().fold((f64::MAX, 0f64), |(min, max), x| (min.min(*x), max.max(*x)));
                let mut row = vec![case.name(), n_threads.to_string()];
                row.extend([median, min, max].map(|x| format!("{x:.2}")));
                rows.push(row);
                report.push(self.describe(&model, case, *n_threads, median, &speeds));
                if !self.json {
                    tracing::info!("{} with {n_threads} threads: {median:.2} tokens/s", case.name());
                }
            }
        }
        if self.json {
            output::json(&Value::Array(report))?
        } else {
            output::table(&rows)?
        }
        Ok(Exit::Done)
    }
}

impl Bench {
    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for &depth in &self.depth {
            for &n_tokens in self.prompt.iter().filter(|n| **n > 0) {
                cases.push(Case { phase: Phase::Prompt, n_tokens, depth, n_sequences: 1 });
            }
            for &n_tokens in self.generate.iter().filter(|n| **n > 0) {
                for &n_sequences in &self.batch {
                    cases.push(Case { phase: Phase::Generate, n_tokens, depth, n_sequences });
                }
            }
        }
        cases
    }

    /// Tokens per second of each repetition.
    fn measure(&self, model: &Model, case: &Case) -> Vec<f64> {
        let pages_each = (case.depth + case.n_tokens).div_ceil(PAGE_LEN);
        let mut cache = KvCache::new(model.config(), self.kv.into(), pages_each * case.n_sequences);
        let mut tokens = RandomTokens { state: 1, vocab_size: model.config().vocab_size as u64 };
        let pages = |i: usize| ((i * pages_each) as u32..((i + 1) * pages_each) as u32).collect::<Vec<u32>>();
        for i in 0..case.n_sequences {
            self.prefill(model, &mut cache, &mut tokens, &pages(i), 0..case.depth);
        }
        let mut speeds = Vec::new();
        // What comes after `depth` is overwritten each time. The first repetition warms caches and threads.
        for repetition in 0..=self.repetitions {
            let start = Instant::now();
            match case.phase {
                Phase::Prompt => {
                    let range = case.depth..case.depth + case.n_tokens;
                    self.prefill(model, &mut cache, &mut tokens, &pages(0), range);
                }
                Phase::Generate => {
                    for position in case.depth..case.depth + case.n_tokens {
                        let span = |i| SequenceSpan {
                            pages: pages(i),
                            start: position,
                            len: 1,
                            ..SequenceSpan::default()
                        };
                        let batch = Batch {
                            tokens: (0..case.n_sequences).map(|_| tokens.next()).collect(),
                            spans: (0..case.n_sequences).map(span).collect(),
                            outputs: (0..case.n_sequences).collect(),
                            ..Batch::default()
                        };
                        std::hint::black_box(model.forward(&batch, Some(&mut cache)));
                    }
                }
            }
            let seconds = start.elapsed().as_secs_f64();
            if repetition > 0 {
                speeds.push((case.n_tokens * case.n_sequences) as f64 / seconds);
            }
        }
        speeds
    }

    /// Runs random tokens at `positions` of the sequence in `pages`, of which only the last gives logits.
    fn prefill(
        &self,
        model: &Model,
        cache: &mut KvCache,
        tokens: &mut RandomTokens,
        pages: &[u32],
        positions: std::ops::Range<usize>,
    ) {
        for start in positions.clone().step_by(self.chunk) {
            let len = self.chunk.min(positions.end - start);
            let is_last = start + len == positions.end;
            let batch = Batch {
                tokens: (0..len).map(|_| tokens.next()).collect(),
                spans: vec![SequenceSpan { pages: pages.to_vec(), start, len, ..SequenceSpan::default() }],
                outputs: if is_last { vec![len - 1] } else { Vec::new() },
                ..Batch::default()
            };
            std::hint::black_box(model.forward(&batch, Some(cache)));
        }
    }

    fn describe(&self, model: &Model, case: &Case, n_threads: usize, median: f64, speeds: &[f64]) -> Value {
        json!({
            "test": case.name(),
            "phase": if case.phase == Phase::Prompt { "prompt" } else { "generate" },
            "tokens": case.n_tokens,
            "depth": case.depth,
            "batch": case.n_sequences,
            "threads": n_threads,
            "tokens_per_second_median": median,
            "tokens_per_second": speeds,
            "model": self.model,
            "parameters": model.n_parameters(),
            "weight_bytes": model.n_bytes(),
            "isa": isa::active().name(),
            "version": env!("CARGO_PKG_VERSION"),
        })
    }
}

impl Case {
    /// `pp512 @ d2048`, `tg128 x 8`.
    fn name(&self) -> String {
        let phase = if self.phase == Phase::Prompt { "pp" } else { "tg" };
        let depth = if self.depth > 0 { format!(" @ d{}", self.depth) } else { String::new() };
        let batch = if self.n_sequences > 1 { format!(" x {}", self.n_sequences) } else { String::new() };
        format!("{phase}{}{depth}{batch}", self.n_tokens)
    }
}

/// Tokens that no cache can guess, the same at each run. Source: Knuth's MMIX generator.
struct RandomTokens {
    state: u64,
    vocab_size: u64,
}

impl RandomTokens {
    fn next(&mut self) -> u32 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.state >> 33) % self.vocab_size) as u32
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
