//! `rhetor rm`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::output::bytes;
use crate::session::Session;

/// Remove a pulled model from the store; files that another model shares stay
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// The names they were pulled by
    #[arg(value_name = "REF", required = true)]
    references: Vec<String>,
}

impl Run for Remove {
    const NAME: &str = "rm";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        for reference in &self.references {
            let removed = session.store.remove(reference)?;
            eprintln!("removed {}, {} freed", removed.name, bytes(removed.bytes));
        }
        Ok(Exit::Done)
    }
}
