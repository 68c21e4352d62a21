//! `rhetor score`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::perplexity::{self, Cut};
use crate::range::range;
use crate::session::Session;
use crate::speculation::SpeculationArgs;
use crate::voice::{self, KvArg, VoiceArgs};
use crate::{input, output};
use serde_json::json;
use std::path::PathBuf;

/// Tell how likely a text is: perplexity and bits per byte
///
/// A text longer than the context is cut into windows of --context tokens. By default a window begins every
/// --stride tokens and scores what no earlier window has scored, so that every token but the first is scored once,
/// with at least context - stride tokens before it.
///
/// With --half the windows lie side by side, a last one that is not full is dropped, and each window scores only its
/// second half (tokens context/2 + 1 to context - 1); if the model begins texts with a token of its own, it takes the
/// place of each window's first token. That is what `llama-perplexity -c CONTEXT` of llama.cpp measures.
#[derive(Debug, clap::Args)]
pub struct ScoreText {
    /// Name, reference or path of a model
    model: String,

    /// The text; `-` is stdin
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,

    /// Tokens between the beginnings of two windows [default: half of the context]
    #[arg(long, value_name = "N", value_parser = range(1usize, 1 << 30), conflicts_with = "half")]
    stride: Option<usize>,

    /// Score the second half of windows that lie side by side, as llama.cpp does
    #[arg(long)]
    half: bool,

    /// Score at most that many windows
    #[arg(long, value_name = "N", value_parser = range(1usize, usize::MAX))]
    windows: Option<usize>,

    /// Tokens of a window [default: 512, or the model's context if that is less]
    #[arg(long, value_name = "N", value_parser = range(2usize, 1 << 30))]
    context: Option<usize>,

    /// How keys and values are kept
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    kv: KvArg,

    /// An adapter over the model; repeat it to stack several
    #[arg(long = "adapter", value_name = "DIR")]
    adapters: Vec<PathBuf>,

    /// Print JSON, with the log-probability of each token
    #[arg(long)]
    json: bool,
}

impl Run for ScoreText {
    const NAME: &str = "score";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let text = input::file(&self.file)?;
        let voice_args = VoiceArgs {
            context: self.context,
            kv: self.kv,
            adapters: self.adapters.clone(),
            speculation: SpeculationArgs::default(),
        };
        let engine = voice::load(session, &self.model, &voice_args, None)?;
        let tokenizer = engine.tokenizer();
        let context = self.context.unwrap_or(512.min(engine.context_len()));
        let cut = match (self.half, self.stride) {
            (true, _) => Cut::SecondHalf,
            (false, Some(stride)) if stride >= context => {
                return Err(Failure::input(format!(
                    "--stride {stride} must be less than the context of {context}"
                )));
            }
            (false, stride) => Cut::Sliding(stride.unwrap_or(context / 2)),
        };
        let tokens = tokenizer.encode_with_specials(&text, rhetor_tokenizer::Special::Literal);
        let mut windows = perplexity::windows(tokens.len(), context, cut);
        if windows.is_empty() {
            let least = if self.half { context } else { 2 };
            let message = format!("the text has {} tokens; at least {least} are needed", tokens.len());
            return Err(Failure::input(message));
        }
        windows.truncate(self.windows.unwrap_or(usize::MAX));
        let first = if self.half && tokenizer.adds_bos() { tokenizer.bos() } else { None };

        let mut bar = crate::models::Bar::new();
        let mut scored = Vec::new();
        for (i, window) in windows.iter().enumerate() {
            scored.extend(perplexity::score_window(&engine, &tokens, window, first)?);
            let so_far = perplexity::summary(&scored).perplexity;
            bar.count(&format!("perplexity {so_far:.4}"), i as u64 + 1, windows.len() as u64);
        }
        bar.clear();

        let summary = perplexity::summary(&scored);
        let n_bytes: usize =
            scored.iter().map(|token| tokenizer.token_bytes(tokens[token.index]).len()).sum();
        let bits_per_byte = -summary.logprob_sum / std::f64::consts::LN_2 / n_bytes.max(1) as f64;
        let n_greedy = scored.iter().filter(|token| token.is_greedy).count();
        if self.json {
            let list = scored.iter().map(|token| {
                let id = tokens[token.index];
                json!({
                    "index": token.index, "id": id, "piece": tokenizer.piece(id), "logprob": token.logprob,
                    "is_greedy": token.is_greedy,
                })
            });
            output::json(&json!({
                "perplexity": summary.perplexity,
                "perplexity_standard_error": summary.standard_error,
                "bits_per_byte": bits_per_byte,
                "logprob_sum": summary.logprob_sum,
                "tokens_total": tokens.len(),
                "tokens_scored": scored.len(),
                "tokens_greedy": n_greedy,
                "bytes_scored": n_bytes,
                "context": context,
                "stride": if let Cut::Sliding(stride) = cut { Some(stride) } else { None },
                "windows": windows.len(),
                "half": self.half,
                "tokens": list.collect::<Vec<_>>(),
            }))?;
        } else {
            let row = |name: &str, value: String| vec![name.to_string(), value];
            output::table(&[
                row("perplexity", format!("{:.4} +/- {:.4}", summary.perplexity, summary.standard_error)),
                row("bits per byte", format!("{bits_per_byte:.4}")),
                row("log-probability", format!("{:.3} nats", summary.logprob_sum)),
                row(
                    "scored",
                    format!("{} of {} tokens in {} windows", scored.len(), tokens.len(), windows.len()),
                ),
                row("most likely", format!("{:.2} % of them", 100.0 * n_greedy as f64 / scored.len() as f64)),
            ])?;
        }
        Ok(Exit::Done)
    }
}
