//! `rhetor verify`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::models::Bar;
use crate::output;
use crate::session::Session;
use rhetor_store::{FileState, Progress};
use serde_json::json;

/// Read pulled models from disk and compare every file with its sha256
///
/// Exits with 1 if a file is missing or has changed.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// The names they were pulled by; all without one
    #[arg(value_name = "REF")]
    references: Vec<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Run for Verify {
    const NAME: &str = "verify";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let references = match self.references.is_empty() {
            true => session.store.list()?.into_iter().map(|manifest| manifest.name).collect(),
            false => self.references,
        };
        let mut rows = Vec::new();
        let mut report = Vec::new();
        let mut n_bad = 0;
        for reference in references {
            let mut bar = Bar::new();
            let checks = session.store.verify(&reference, &mut |progress| {
                if let Progress::Checking { file, done, total } = progress {
                    bar.show("checking", file, done, Some(total));
                }
            });
            bar.clear();
            for check in checks? {
                let state = match &check.state {
                    FileState::Whole => "whole",
                    FileState::Missing => "missing",
                    FileState::Changed { .. } => "changed",
                };
                n_bad += usize::from(check.state != FileState::Whole);
                let got = if let FileState::Changed { got } = &check.state { Some(got) } else { None };
                report.push(json!({
                    "name": reference, "file": check.file.path, "state": state,
                    "expected": check.file.sha256, "got": got,
                }));
                rows.push(vec![state.to_string(), reference.clone(), check.file.path]);
            }
        }
        if self.json {
            output::json(&json!(report))?;
        } else {
            output::table(&rows)?;
        }
        if n_bad > 0 {
            let failure =
                Failure::refused(format!("{n_bad} of {} files are not what was pulled", rows.len()));
            return Err(failure.hint("`rhetor rm` the model and pull it again"));
        }
        Ok(Exit::Done)
    }
}
