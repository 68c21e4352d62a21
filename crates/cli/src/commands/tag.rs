//! `rhetor tag`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::output;
use crate::reading::{self, ReaderArgs, TextArgs, character};
use crate::session::Session;
use rhetor_encode::Aggregation;
use serde_json::{Value, json};

/// Mark words of texts: names, parts of speech, words of a language without spaces
///
/// Tokens called O are left out. A text that is longer than the model's context is read in parts that lie half over each
/// other. Places are counted in characters.
#[derive(Debug, clap::Args)]
pub struct TagText {
    /// Name, reference or path of a model with a head for tokens
    model: String,

    #[command(flatten)]
    texts: TextArgs,

    /// What is one: each token, neighbours with one tag, or the same after all tokens of a word were given one tag
    #[arg(long, value_name = "WAY", default_value = "simple")]
    aggregation: AggregationArg,

    #[command(flatten)]
    reader: ReaderArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// [`Aggregation`] as the person types it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum AggregationArg {
    /// Each token by itself
    None,
    /// Neighbours with one tag; B- begins another
    Simple,
    /// Words have the tag of their first token
    First,
    /// Words have the tag that is likeliest in the mean
    Average,
    /// Words have the tag of their surest token
    Max,
}

impl From<AggregationArg> for Aggregation {
    fn from(arg: AggregationArg) -> Aggregation {
        match arg {
            AggregationArg::None => Aggregation::None,
            AggregationArg::Simple => Aggregation::Simple,
            AggregationArg::First => Aggregation::First,
            AggregationArg::Average => Aggregation::Average,
            AggregationArg::Max => Aggregation::Max,
        }
    }
}

impl Run for TagText {
    const NAME: &str = "tag";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let reader = reading::reader(session, &self.model, self.reader)?;
        let mut list: Vec<Value> = Vec::new();
        for text in self.texts.read()? {
            let tags = reader.tag(&text, self.aggregation.into())?;
            let tags = tags.iter().map(|tag| {
                json!({
                    "label": tag.label, "score": tag.score, "text": text[tag.bytes.clone()],
                    "start": character(&text, tag.bytes.start), "end": character(&text, tag.bytes.end),
                })
            });
            let tags: Vec<Value> = tags.collect();
            if !self.json {
                let shown = tags.iter().map(|tag| {
                    let word = |key: &str| tag[key].as_str().unwrap_or_default();
                    format!("{}/{}", word("text"), word("label"))
                });
                output::line(&shown.collect::<Vec<_>>().join(" "))?;
            }
            list.push(json!({ "text": text, "tags": tags }));
        }
        if self.json {
            output::json(&list.into())?;
        }
        Ok(Exit::Done)
    }
}
