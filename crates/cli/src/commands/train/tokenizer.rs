//! `rhetor train tokenizer`.

use crate::errors::Failure;
use crate::exit::Exit;
use crate::session::Session;
use crate::{output, training};
use std::path::PathBuf;

/// Learn a vocabulary from texts and write it as tokenizer.json
#[derive(Debug, clap::Args)]
pub struct TrainTokenizer {
    /// bpe (as GPT-2), unigram (as SentencePiece), wordpiece (as BERT) or characters
    #[arg(long, value_name = "KIND", default_value = "bpe")]
    kind: String,

    /// Tokens, control tokens included; characters need none
    #[arg(long, value_name = "N", default_value_t = 8000)]
    vocab_size: usize,

    /// What it is learnt from: names of data sets, files, folders; may be given several times
    #[arg(long, value_name = "DATA", required = true)]
    data: Vec<String>,

    /// A further control token; may be given several times
    #[arg(long, value_name = "TEXT")]
    token: Vec<String>,

    /// The folder to write tokenizer.json to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Replace a tokenizer.json that is there
    #[arg(long)]
    force: bool,
}

impl TrainTokenizer {
    pub(super) fn run(self, session: &Session) -> Result<Exit, Failure> {
        let file = self.out.join("tokenizer.json");
        if file.exists() && !self.force {
            let failure = Failure::input(format!("{} exists already", file.display()));
            return Err(failure.hint("--force replaces it"));
        }
        let part =
            |name: &String| training::find_data(session, name).map(|(sources, read)| (sources, read, 1.0));
        let parts = self.data.iter().map(part).collect::<Result<Vec<training::Part>, Failure>>()?;
        let kind = match self.kind.as_str() {
            "characters" => self.kind.clone(),
            _ => format!("{} {}", self.kind, self.vocab_size),
        };
        let tokenizer = training::learn_vocabulary(&kind, self.token, &parts)?;
        std::fs::create_dir_all(&self.out).map_err(Failure::file(&self.out))?;
        tokenizer.save_json(&file)?;
        eprintln!("{} tokens", tokenizer.n_tokens());
        output::line(&file.display().to_string())?;
        Ok(Exit::Done)
    }
}
