//! `rhetor fill-mask`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::output;
use crate::range::range;
use crate::reading::{self, ReaderArgs, TextArgs};
use crate::session::Session;
use serde_json::{Value, json};

/// Tell which tokens may stand in place of hidden ones
///
/// The texts spell a hidden token as the model's vocabulary does: [MASK] for BERT, <mask> for RoBERTa.
#[derive(Debug, clap::Args)]
pub struct FillMask {
    /// Name, reference or path of a masked language model
    model: String,

    #[command(flatten)]
    texts: TextArgs,

    /// How many tokens to tell for each hidden one
    #[arg(short = 'k', long, value_name = "N", default_value_t = 5, value_parser = range(1usize, 1 << 20))]
    top: usize,

    #[command(flatten)]
    reader: ReaderArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Run for FillMask {
    const NAME: &str = "fill-mask";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let reader = reading::reader(session, &self.model, self.reader)?;
        let mut list: Vec<Value> = Vec::new();
        for text in self.texts.read()? {
            let found = reader.fill_mask(&text, self.top)?;
            if self.json {
                let masks = found.iter().map(|fillings| {
                    let filling = fillings.iter().map(|filling| {
                        json!({
                            "score": filling.score, "id": filling.id, "token": filling.token,
                            "text": filling.text,
                        })
                    });
                    filling.collect::<Value>()
                });
                list.push(json!({ "text": text, "masks": masks.collect::<Value>() }));
                continue;
            }
            for filling in found.iter().flatten() {
                output::line(&format!("{:.4}  {}", filling.score, filling.text))?;
            }
        }
        if self.json {
            output::json(&list.into())?;
        }
        Ok(Exit::Done)
    }
}
