//! The `rhetor` program as a library: one module per command.
#![forbid(unsafe_code)]

mod amounts;
pub mod commands;
pub mod config;
mod conversation;
pub mod errors;
pub mod exit;
mod importance;
mod input;
mod interrupt;
mod listen;
mod machine;
pub mod manual;
mod methods;
mod models;
mod npy;
mod output;
mod perplexity;
mod range;
mod reading;
mod recipes;
mod sampling;
pub mod session;
mod speculation;
mod team;
mod tools;
mod training;
mod voice;

use clap::{CommandFactory, FromArgMatches, Parser};
use commands::COMMANDS;
use errors::Failure;
use exit::Exit;
use session::{GlobalArgs, Session};
use std::ffi::OsString;

/// Language models on this machine: pull, chat, generate, score, measure
///
/// Data go to stdout, everything else to stderr. Exit codes: 0 done; 1 refused or failed; 2 wrong input;
/// 130 interrupted by Ctrl-C.
///
/// Values for flags may stand in `rhetor.toml`, in the working directory or in the user's settings folder.
/// Flags win over the environment, which wins over the file.
#[derive(Debug, Parser)]
#[command(
    name = "rhetor",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Rhetor {
    #[command(flatten)]
    global: GlobalArgs,
}

/// The whole command line: what `--help` shows and what shell completions are made from.
pub fn command_line() -> clap::Command {
    Rhetor::command().subcommands(COMMANDS.iter().map(|command| command.define()))
}

/// Runs the program with these arguments, the first being its own name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    interrupt::listen();
    match try_run(args) {
        Ok(exit) => exit,
        Err(failure) => {
            failure.print();
            failure.exit
        }
    }
}

fn try_run(args: impl IntoIterator<Item = OsString>) -> Result<Exit, Failure> {
    let command_line = config::apply_all(command_line())?;
    let matches = match command_line.try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            // `--help` and `--version` come here too, and go to stdout. A reader that went away is no error.
            let _ = error.print();
            return Ok(if error.use_stderr() { Exit::WrongInput } else { Exit::Done });
        }
    };
    let wrong =
        |error: clap::Error| Failure::input(error.to_string().trim_start_matches("error: ").trim_end());
    let session = Session::begin(GlobalArgs::from_arg_matches(&matches).map_err(wrong)?)?;
    let (name, matches) = matches.subcommand().expect("clap requires one");
    let command = COMMANDS.iter().find(|command| command.name == name).expect("clap knows only these");
    command.run(matches, &session)
}
