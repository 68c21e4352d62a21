//! `rhetor detokenize`.

use super::{Run, tokenize};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::session::Session;
use crate::{input, output};
use rhetor_tokenizer::ControlTokens;

/// Turn token ids into text
#[derive(Debug, clap::Args)]
pub struct Detokenize {
    /// Name, reference or path of a model
    model: String,

    /// The ids, separated by spaces or commas; `-` reads stdin
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,

    /// Leave control tokens such as <|im_end|> out
    #[arg(long)]
    skip_special: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Run for Detokenize {
    const NAME: &str = "detokenize";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let text = if self.ids == ["-"] { input::stdin()? } else { self.ids.join(" ") };
        let words = text.split([' ', ',', '\n', '\r', '\t', '[', ']']).filter(|word| !word.is_empty());
        let tokenizer = tokenize::open(session, &self.model)?;
        let mut ids = Vec::new();
        for word in words {
            match word.parse::<u32>() {
                Ok(id) if (id as usize) < tokenizer.n_tokens() => ids.push(id),
                _ => {
                    let last = tokenizer.n_tokens().saturating_sub(1);
                    return Err(Failure::input(format!("`{word}` is no token id; ids are 0 to {last}")));
                }
            }
        }
        let control = if self.skip_special { ControlTokens::Skip } else { ControlTokens::Show };
        let text = tokenizer.decode(&ids, control);
        if self.json {
            output::json(&serde_json::json!({ "text": text, "token_ids": ids }))?;
        } else {
            output::line(&text)?;
        }
        Ok(Exit::Done)
    }
}
