//! Every command: the trait, the table, nothing else.

mod adapter;
mod answer;
mod bench;
mod chat;
mod classify;
mod completions;
mod convert;
mod cp;
mod create;
mod detokenize;
mod doctor;
mod embed;
mod estimate;
mod explain;
mod fill_mask;
mod generate;
mod inspect;
mod list;
mod pull;
mod rm;
mod score;
mod serve;
mod show;
mod tag;
mod tokenize;
mod train;
mod verify;

pub(crate) use convert::write_vocabulary;

use crate::errors::Failure;
use crate::exit::Exit;
use crate::session::Session;
use clap::ArgMatches;

/// What a command is: its arguments, whose doc comments are its help, and what it does with them.
pub(crate) trait Run: clap::Args {
    /// What the user types.
    const NAME: &str;

    /// Does it.
    fn run(self, session: &Session) -> Result<Exit, Failure>;
}

/// One line of the table.
pub struct Command {
    /// What the user types.
    pub name: &'static str,
    augment: fn(clap::Command) -> clap::Command,
    run: fn(&ArgMatches, &Session) -> Result<Exit, Failure>,
}

impl Command {
    const fn of<A: Run>() -> Command {
        Command { name: A::NAME, augment: A::augment_args, run: parse_and_run::<A> }
    }

    /// The command as clap sees it.
    pub fn define(&self) -> clap::Command {
        (self.augment)(clap::Command::new(self.name))
    }

    /// Does what `matches` ask.
    pub fn run(&self, matches: &ArgMatches, session: &Session) -> Result<Exit, Failure> {
        (self.run)(matches, session)
    }
}

fn parse_and_run<A: Run>(matches: &ArgMatches, session: &Session) -> Result<Exit, Failure> {
    A::from_arg_matches(matches).map_err(Failure::input)?.run(session)
}

/// Every command, in the order of the help.
pub const COMMANDS: &[Command] = &[
    Command::of::<chat::Chat>(),
    Command::of::<generate::Generate>(),
    Command::of::<serve::Serve>(),
    Command::of::<tokenize::Tokenize>(),
    Command::of::<detokenize::Detokenize>(),
    Command::of::<score::ScoreText>(),
    Command::of::<embed::Embed>(),
    Command::of::<classify::Classify>(),
    Command::of::<tag::TagText>(),
    Command::of::<answer::AnswerQuestion>(),
    Command::of::<fill_mask::FillMask>(),
    Command::of::<train::Train>(),
    Command::of::<adapter::AdapterArgs>(),
    Command::of::<inspect::Inspect>(),
    Command::of::<estimate::EstimateArgs>(),
    Command::of::<convert::Convert>(),
    Command::of::<pull::Pull>(),
    Command::of::<create::Create>(),
    Command::of::<cp::Copy>(),
    Command::of::<list::List>(),
    Command::of::<explain::Explain>(),
    Command::of::<show::Show>(),
    Command::of::<rm::Remove>(),
    Command::of::<verify::Verify>(),
    Command::of::<bench::Bench>(),
    Command::of::<doctor::Doctor>(),
    Command::of::<completions::Completions>(),
];
