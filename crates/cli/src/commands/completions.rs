//! `rhetor completions`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::output;
use crate::session::Session;

/// Print a completion script for a shell
///
/// For bash: rhetor completions bash > ~/.local/share/bash-completion/completions/rhetor
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Run for Completions {
    const NAME: &str = "completions";

    fn run(self, _session: &Session) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::command_line(), "rhetor", &mut script);
        output::piece(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}
