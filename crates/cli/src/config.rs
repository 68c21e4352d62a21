//! `rhetor.toml`: values for flags, weaker than the environment, which is weaker than the command line.
//!
//! A key is the long name of a flag. At the top it holds for every command that has the flag; in a table named
//! after a command it holds for that command only. The file in the working directory wins over the one in the
//! user's settings folder, key by key.
//!
//! ```toml
//! threads = 2
//! [chat]
//! model = "smollm2-135m-instruct"
//! temperature = 0.7
//! ```

use crate::errors::Failure;
use crate::session::config_folder;
use clap::{Arg, Command};
use std::path::{Path, PathBuf};
use toml::Value;

/// The files that are read, weakest first; they need not exist.
pub fn files() -> Vec<PathBuf> {
    let user = config_folder().map(|folder| folder.join("rhetor.toml"));
    user.into_iter().chain([PathBuf::from("rhetor.toml")]).collect()
}

/// Makes the values of every file in [`files`] the defaults of `command`'s flags.
pub fn apply_all(mut command: Command) -> Result<Command, Failure> {
    for path in files() {
        match std::fs::read_to_string(&path) {
            Ok(text) => command = apply(command, &text, &path)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::refused(format!("{}: {error}", path.display()))),
        }
    }
    Ok(command)
}

/// Makes the values in `text`, read from `path`, the defaults of `command`'s flags.
pub fn apply(mut command: Command, text: &str, path: &Path) -> Result<Command, Failure> {
    let wrong = |reason: String| Failure::input(format!("{}: {reason}", path.display()));
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
    for (key, value) in &table {
        if let Value::Table(table) = value {
            let Some(mut part) = command.find_subcommand(key).cloned() else {
                return Err(wrong(format!("`[{key}]` is no command")));
            };
            for (key_inside, value) in table {
                let values =
                    values(value).ok_or_else(|| wrong(format!("`{key}.{key_inside}` is no plain value")))?;
                // A global flag belongs to the program, not to one command.
                if set(&mut part, key_inside, &values).map_err(&wrong)? == 0 {
                    return Err(wrong(format!("`{key}.{key_inside}` is no flag of `rhetor {key}`")));
                }
            }
            command = command.mut_subcommand(key, |_| part);
            continue;
        }
        let values = values(value).ok_or_else(|| wrong(format!("`{key}` is no plain value")))?;
        let mut n_set = set(&mut command, key, &values).map_err(&wrong)?;
        let names: Vec<String> = command.get_subcommands().map(|part| part.get_name().to_string()).collect();
        for name in names {
            let mut part = command.find_subcommand(&name).expect("it was listed").clone();
            n_set += set(&mut part, key, &values).map_err(&wrong)?;
            command = command.mut_subcommand(name, |_| part);
        }
        if n_set == 0 {
            return Err(wrong(format!("`{key}` is no flag of any command")));
        }
    }
    Ok(command)
}

/// Sets the default of the flag `key` of `command`; returns how many flags that were.
fn set(command: &mut Command, key: &str, values: &[String]) -> Result<usize, String> {
    let is_key = |arg: &&Arg| match arg.get_long() {
        Some(long) => long == key,
        // A model that need not be named is the one argument without a flag that may stand in the file.
        None => arg.get_id() == key && !arg.is_required_set(),
    };
    let Some(arg) = command.get_arguments().find(is_key).cloned() else { return Ok(0) };
    check(&arg, key, values)?;
    let with_default = |arg: Arg| arg.default_values(values.to_vec());
    *command = std::mem::take(command).mut_arg(arg.get_id().as_str(), with_default);
    Ok(1)
}

/// Refuses values that the flag itself would refuse.
fn check(arg: &Arg, key: &str, values: &[String]) -> Result<(), String> {
    let takes_value = arg.get_action().takes_values();
    if !takes_value {
        let is_number = matches!(arg.get_action(), clap::ArgAction::Count);
        let is_good =
            |v: &String| if is_number { v.parse::<u8>().is_ok() } else { v == "true" || v == "false" };
        return match values {
            [value] if is_good(value) => Ok(()),
            _ => Err(format!("`{key}` must be {}", if is_number { "a number" } else { "true or false" })),
        };
    }
    let alone = arg.clone().env(None::<&str>).global(false).required(false);
    let alone = Command::new("rhetor").no_binary_name(true).arg(clear_relations(alone));
    let args = values.iter().flat_map(|value| match arg.get_long() {
        Some(long) => vec![format!("--{long}={value}")],
        None => vec![value.clone()],
    });
    alone.try_get_matches_from(args).map(drop).map_err(|error| {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        line.trim_start_matches("error: ").to_string()
    })
}

/// The flag without what it says about other flags, which are not there.
fn clear_relations(arg: Arg) -> Arg {
    let mut alone = Arg::new(arg.get_id().clone()).action(arg.get_action().clone());
    if let Some(long) = arg.get_long() {
        alone = alone.long(long.to_string());
    }
    alone.value_parser(arg.get_value_parser().clone()).allow_hyphen_values(true)
}

fn values(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Integer(n) => Some(vec![n.to_string()]),
        Value::Float(x) => Some(vec![x.to_string()]),
        Value::Boolean(b) => Some(vec![b.to_string()]),
        Value::Array(items) => {
            let nested: Option<Vec<Vec<String>>> = items.iter().map(values).collect();
            Some(nested?.concat())
        }
        Value::Table(_) | Value::Datetime(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::range;

    fn program() -> Command {
        let threads = Arg::new("threads").long("threads").global(true).value_parser(range(1usize, 9));
        let top_p = Arg::new("top_p").long("top-p").value_parser(range(0.0f32, 1.0));
        let quiet = Arg::new("quiet").long("quiet").action(clap::ArgAction::SetTrue);
        let model = Arg::new("model").required(false);
        Command::new("rhetor").arg(threads).subcommand(Command::new("chat").args([top_p, quiet, model]))
    }

    #[test]
    fn a_value_from_the_file_is_used_unless_a_flag_says_otherwise() {
        let text = "threads = 2\ntop-p = 0.25\n[chat]\nmodel = \"m\"\nquiet = true";
        let program = apply(program(), text, Path::new("rhetor.toml")).unwrap();
        let matches = program.clone().try_get_matches_from(["rhetor", "chat"]).unwrap();
        let chat = matches.subcommand_matches("chat").unwrap();
        assert_eq!(chat.get_one::<usize>("threads"), Some(&2));
        assert_eq!(chat.get_one::<f32>("top_p"), Some(&0.25));
        assert_eq!(chat.get_one::<String>("model").map(String::as_str), Some("m"));
        assert!(chat.get_flag("quiet"));
        let matches =
            program.try_get_matches_from(["rhetor", "chat", "--top-p", "1", "--threads=3"]).unwrap();
        let chat = matches.subcommand_matches("chat").unwrap();
        assert_eq!((chat.get_one::<usize>("threads"), chat.get_one::<f32>("top_p")), (Some(&3), Some(&1.0)));
    }

    #[test]
    fn what_no_flag_would_take_is_refused_by_name() {
        let check = |text: &str, expected: &str| {
            let failure = apply(program(), text, Path::new("rhetor.toml")).unwrap_err();
            assert!(failure.message.contains(expected), "{text}: {}", failure.message);
        };
        check("colour = 1", "rhetor.toml: `colour` is no flag of any command");
        check("[chat]\nthreats = 1", "`chat.threats` is no flag of `rhetor chat`");
        check("[chatter]\nx = 1", "`[chatter]` is no command");
        check("top-p = 2.0", "it must be from 0 to 1");
        check("quiet = 1", "`quiet` must be true or false");
        check("threads = {a = 1}", "`[threads]` is no command");
        check("threads = ", "rhetor.toml: TOML parse error");
    }
}
