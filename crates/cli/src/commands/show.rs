//! `rhetor show`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::output::{self, bytes};
use crate::session::Session;
use rhetor_server::modelfile_of;
use serde_json::json;

/// Show what the store knows about a pulled model
#[derive(Debug, clap::Args)]
pub struct Show {
    /// The name it was pulled by
    #[arg(value_name = "REF")]
    reference: String,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Print a Modelfile that makes the model again
    #[arg(long, conflicts_with = "json")]
    modelfile: bool,
}

impl Run for Show {
    const NAME: &str = "show";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let model = session.store.show(&self.reference)?;
        let manifest = model.manifest.expect("a shown model has a manifest");
        if self.modelfile {
            let from = manifest.settings.parent.as_deref().unwrap_or(&manifest.name);
            output::line(modelfile_of(from, &manifest.settings).to_string().trim_end())?;
            return Ok(Exit::Done);
        }
        if self.json {
            let mut value = json!(manifest);
            value["path"] = json!(model.path);
            return output::json(&value).map(|()| Exit::Done);
        }
        let row = |name: &str, value: String| vec![name.to_string(), value];
        let mut rows = vec![
            row("name", manifest.name.clone()),
            row("path", model.path.display().to_string()),
            row("source", manifest.source.clone()),
            row("licence", manifest.licence.clone().unwrap_or_else(|| "not stated".to_string())),
            row("size", bytes(manifest.size())),
            row("pulled", utc(manifest.pulled_at)),
        ];
        rows.extend(manifest.licence_terms.clone().map(|terms| row("terms", terms)));
        for file in &manifest.files {
            rows.push(row("file", format!("{}  {}  sha256:{}", file.path, bytes(file.size), file.sha256)));
        }
        output::table(&rows)?;
        Ok(Exit::Done)
    }
}

/// Seconds since 1970 as `2026-11-23 17:00 UTC`. Source: Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`.
fn utc(seconds: u64) -> String {
    let (days, minutes) = (seconds / 86_400, seconds % 86_400 / 60);
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn seconds_become_a_date() {
        assert_eq!(super::utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(super::utc(951_782_400 + 3_660), "2000-02-29 01:01 UTC");
        assert_eq!(super::utc(1_795_453_200), "2026-11-23 17:00 UTC");
    }
}
