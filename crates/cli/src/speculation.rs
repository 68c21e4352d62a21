//! Flags that choose what guesses tokens ahead.

use crate::errors::Failure;
use crate::models;
use crate::range::range;
use crate::session::Session;
use rhetor_generate::{DRAFT_TOKENS, DRAFTERS, DrafterOptions};

/// What guesses the next tokens, so that several are computed in one step.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Speculative decoding")]
pub struct SpeculationArgs {
    /// Guess the next tokens and check them in one step: faster where guesses are right, and never another text; see
    /// `rhetor list drafters`
    #[arg(long, value_name = "DRAFTER", value_parser = drafters())]
    pub speculate: Option<String>,

    /// Name, reference or path of the draft model, or of the draft head, that --speculate needs
    #[arg(long, value_name = "MODEL", requires = "speculate")]
    pub draft_model: Option<String>,

    /// The most tokens guessed ahead in a step [default: 6]
    #[arg(long, value_name = "N", requires = "speculate",
          value_parser = range(DRAFT_TOKENS.range.0 as usize, DRAFT_TOKENS.range.1 as usize))]
    pub draft_tokens: Option<usize>,
}

impl SpeculationArgs {
    /// The drafter that is wanted, if any; a draft model is pulled if it is not here.
    pub fn drafter(&self, session: &Session) -> Result<Option<DrafterOptions>, Failure> {
        let Some(method) = &self.speculate else { return Ok(None) };
        let checkpoint = match &self.draft_model {
            Some(reference) => Some(models::find(session, reference)?.path),
            None => None,
        };
        Ok(Some(DrafterOptions { checkpoint, n_tokens: self.draft_tokens, ..DrafterOptions::new(method) }))
    }
}

/// The names of the table.
fn drafters() -> clap::builder::PossibleValuesParser {
    DRAFTERS
        .iter()
        .map(|method| clap::builder::PossibleValue::new(method.about.name).help(method.about.summary))
        .collect::<Vec<_>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_in_the_help_is_the_one_of_the_table() {
        let command = <SpeculationArgs as clap::Args>::augment_args(clap::Command::new("test"));
        let help = command.clone().render_long_help().to_string();
        assert!(help.contains(&format!("[default: {}]", DRAFT_TOKENS.default)), "{help}");
        for method in DRAFTERS {
            assert!(help.contains(method.about.name), "{help}");
        }
        assert!(command.clone().try_get_matches_from(["test", "--draft-tokens", "4"]).is_err());
        assert!(command.try_get_matches_from(["test", "--speculate", "medusa"]).is_err());
    }
}
