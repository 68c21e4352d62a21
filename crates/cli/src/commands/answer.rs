//! `rhetor answer`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::range::range;
use crate::reading::{self, ReaderArgs, character};
use crate::session::Session;
use crate::{input, output};
use rhetor_encode::AnswerOptions;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Find the answer to a question in a text
///
/// Answers are parts of the text. A long text is read in windows that overlap; an answer that is found in several has their
/// scores added. Places are counted in characters.
#[derive(Debug, clap::Args)]
pub struct AnswerQuestion {
    /// Name, reference or path of a model with a head for answers
    model: String,

    /// The text; without it and --context-file it is read from stdin
    #[arg(value_name = "TEXT", conflicts_with = "context_file")]
    text: Option<String>,

    /// The question
    #[arg(short, long, value_name = "TEXT")]
    question: String,

    /// The file that holds the text; `-` is stdin
    #[arg(short = 'f', long, value_name = "FILE")]
    context_file: Option<PathBuf>,

    /// How many answers to tell
    #[arg(short = 'k', long, value_name = "N", default_value_t = 1, value_parser = range(1usize, 1 << 16))]
    top: usize,

    /// The most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = range(1usize, 1 << 16))]
    max_answer: usize,

    /// Tokens of a window, at most what the model reads
    #[arg(long, value_name = "N", default_value_t = 384, value_parser = range(8usize, 1 << 30))]
    window: usize,

    /// Tokens that a window shares with the one before [default: half of the window, at most 128]
    #[arg(long, value_name = "N", value_parser = range(0usize, 1 << 30))]
    stride: Option<usize>,

    /// There may be no answer: then the empty one is weighed too
    #[arg(long)]
    or_none: bool,

    #[command(flatten)]
    reader: ReaderArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Run for AnswerQuestion {
    const NAME: &str = "answer";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let reader = reading::reader(session, &self.model, self.reader)?;
        let text = match (self.text, &self.context_file) {
            (Some(text), _) => text,
            (None, Some(file)) => input::file(file)?,
            (None, None) => input::stdin()?,
        };
        let options = AnswerOptions {
            n: self.top,
            max_answer_len: self.max_answer,
            window: self.window,
            stride: self.stride,
            may_be_none: self.or_none,
        };
        let found = reader.answer(&self.question, &text, options)?;
        if self.json {
            let list = found.iter().map(|answer| {
                json!({
                    "score": answer.score, "text": text[answer.bytes.clone()],
                    "start": character(&text, answer.bytes.start), "end": character(&text, answer.bytes.end),
                })
            });
            output::json(&json!({ "question": self.question, "answers": list.collect::<Value>() }))?;
            return Ok(Exit::Done);
        }
        for answer in found {
            output::line(&format!("{:.4}  {}", answer.score, &text[answer.bytes]))?;
        }
        Ok(Exit::Done)
    }
}
