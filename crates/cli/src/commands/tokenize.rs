//! `rhetor tokenize`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::session::Session;
use crate::{input, models, output, voice};
use rhetor_formats::Checkpoint;
use rhetor_tokenizer::{Special, Tokenizer};
use serde_json::json;

/// Turn text into token ids
///
/// Adds what the model wants at the beginning and end of a text, such as <s>. Control tokens in the text, such as
/// <|im_end|>, are parsed only with --parse-special.
#[derive(Debug, clap::Args)]
pub struct Tokenize {
    /// Name, reference or path of a model
    model: String,

    /// The text; `-` reads stdin
    text: String,

    /// Add no tokens at the beginning and end
    #[arg(long)]
    no_special: bool,

    /// Read control tokens in the text as what they are
    #[arg(long)]
    parse_special: bool,

    /// Print JSON: id, piece and bytes of each token
    #[arg(long)]
    json: bool,
}

impl Run for Tokenize {
    const NAME: &str = "tokenize";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let tokenizer = open(session, &self.model)?;
        let text = if self.text == "-" { input::stdin()? } else { self.text };
        let special = if self.parse_special { Special::Parse } else { Special::Literal };
        let ids = match self.no_special {
            true => tokenizer.encode(&text, special),
            false => tokenizer.encode_with_specials(&text, special),
        };
        if self.json {
            let tokens = ids.iter().map(|id| {
                json!({ "id": id, "piece": tokenizer.piece(*id), "bytes": tokenizer.token_bytes(*id).to_vec() })
            });
            output::json(&json!({ "n_tokens": ids.len(), "tokens": tokens.collect::<Vec<_>>() }))?;
        } else {
            output::line(&ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))?;
        }
        Ok(Exit::Done)
    }
}

/// The tokenizer of a model, without its weights.
pub(super) fn open(session: &Session, model: &str) -> Result<Tokenizer, Failure> {
    let found = models::find(session, model)?;
    let checkpoint = Checkpoint::open(&found.path)?;
    Ok(voice::tokenizer_of(&checkpoint)?)
}
