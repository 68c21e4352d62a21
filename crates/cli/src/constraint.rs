//! Flags that say what an answer must look like.

use crate::errors::Failure;
use crate::input;
use rhetor_lm::Constraint;
use std::path::{Path, PathBuf};

/// What the answer must look like; at most one.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(multiple = false)]
pub struct ConstraintArgs {
    /// The answer is a JSON value that this JSON Schema accepts: a file, or the schema itself
    #[arg(long, value_name = "FILE|TEXT", help_heading = "Constraint")]
    json_schema: Option<String>,

    /// The answer is a JSON object
    #[arg(long, help_heading = "Constraint")]
    json_object: bool,

    /// The answer matches this regular expression as a whole
    #[arg(long, value_name = "RE", allow_hyphen_values = true, help_heading = "Constraint")]
    regex: Option<String>,

    /// The answer belongs to the grammar in this file: *.lark, or *.gbnf as llama.cpp has it
    #[arg(long, value_name = "FILE", help_heading = "Constraint")]
    grammar: Option<PathBuf>,
}

impl ConstraintArgs {
    /// The constraint, its file read.
    pub fn read(self) -> Result<Option<Constraint>, Failure> {
        if self.json_object {
            return Ok(Some(Constraint::Json));
        }
        if let Some(schema) = self.json_schema {
            // A path begins with no brace, and `true` is hardly one.
            let is_text = schema.trim_start().starts_with('{') || ["true", "false"].contains(&schema.trim());
            let text = if is_text { schema } else { input::file(Path::new(&schema))? };
            return Ok(Some(Constraint::JsonSchema(text)));
        }
        if let Some(path) = self.grammar {
            let make = match path.extension().and_then(|extension| extension.to_str()) {
                Some("lark") => Constraint::Lark,
                Some("gbnf") => Constraint::Gbnf,
                _ => {
                    let name = path.display();
                    return Err(Failure::input(format!("--grammar: {name} is no *.lark and no *.gbnf")));
                }
            };
            return Ok(Some(make(input::file(&path)?)));
        }
        Ok(self.regex.map(Constraint::Regex))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Command, FromArgMatches};

    fn parse(args: &[&str]) -> Result<Option<Constraint>, String> {
        let command = ConstraintArgs::augment_args(Command::new("x").no_binary_name(true));
        let matches = command.try_get_matches_from(args).map_err(|e| e.to_string())?;
        ConstraintArgs::from_arg_matches(&matches).unwrap().read().map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn each_flag_gives_its_constraint_and_two_exclude_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_string()
        };
        let (schema, lark, gbnf) =
            (file("s", "{}"), file("g.lark", "start: x"), file("g.gbnf", "root ::= x"));
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&["--json-object"]), Ok(Some(Constraint::Json)));
        assert_eq!(parse(&["--json-schema", " {}"]), Ok(Some(Constraint::JsonSchema(" {}".to_string()))));
        assert_eq!(parse(&["--json-schema", &schema]), Ok(Some(Constraint::JsonSchema("{}".to_string()))));
        assert_eq!(parse(&["--regex", "-a"]), Ok(Some(Constraint::Regex("-a".to_string()))));
        assert_eq!(parse(&["--grammar", &lark]), Ok(Some(Constraint::Lark("start: x".to_string()))));
        assert_eq!(parse(&["--grammar", &gbnf]), Ok(Some(Constraint::Gbnf("root ::= x".to_string()))));
        assert!(parse(&["--grammar", &schema]).unwrap_err().contains("no *.lark and no *.gbnf"));
        assert!(parse(&["--json-object", "--regex", "a"]).unwrap_err().contains("cannot be used with"));
    }
}
