//! `rhetor cp`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::session::Session;
use rhetor_store::ModelName;

/// Give a model of the store a second name; the files are shared
#[derive(Debug, clap::Args)]
pub struct Copy {
    /// The model
    #[arg(value_name = "REF")]
    source: String,

    /// Its second name, such as mine or mine:v2
    #[arg(value_name = "NAME")]
    destination: String,
}

impl Run for Copy {
    const NAME: &str = "cp";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let copied = session.store.copy(&self.source, &ModelName::parse(&self.destination)?)?;
        eprintln!("copied {} to {}", self.source, copied.name);
        Ok(Exit::Done)
    }
}
