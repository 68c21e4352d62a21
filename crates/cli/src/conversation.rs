//! A conversation with a model: what `rhetor chat` does between reading a line and the next.

use crate::errors::Failure;
use crate::sampling::SamplingArgs;
use clap::{Args, FromArgMatches};
use rhetor_lm::{
    Completion, Event, FinishReason, LanguageModel, Message, Overflow, Prompt, Request, Role, Sampling,
};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

/// The commands of the prompt: name, arguments, what it does.
pub const SLASH_COMMANDS: &[(&str, &str, &str)] = &[
    ("/help", "", "show this"),
    (
        "/system",
        "[TEXT]",
        "set the instructions that stand before the conversation; without TEXT remove them",
    ),
    ("/set", "[NAME VALUE]", "set a sampling flag, max-tokens, seed or stop; without NAME show all"),
    ("/regen", "", "answer the last message again, with another seed"),
    ("/clear", "", "forget the conversation, keep the instructions"),
    ("/save", "FILE", "write the conversation to a file"),
    ("/load", "FILE", "continue a conversation from a file"),
    ("/exit", "", "leave; Ctrl-D does too"),
];

/// What happens after a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next line is read.
    Line,
    /// The program ends.
    Leave,
}

/// A conversation and how answers are made.
pub struct Conversation<'a> {
    lm: &'a dyn LanguageModel,
    messages: Vec<Message>,
    settings: Settings,
}

/// How answers are made.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The most tokens of an answer.
    pub max_tokens: Option<usize>,
    /// What ends an answer.
    pub stop: Vec<String>,
    /// The seed of the next answer; it grows by one with each.
    pub seed: u64,
    /// What happens when the conversation outgrows the context.
    pub overflow: Overflow,
    /// Whether a model that can think before it speaks does.
    pub think: Option<bool>,
}

/// A conversation as `/save` writes it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    made_by: String,
    model: String,
    messages: Vec<Message>,
}

/// What `/set` knows beside the sampling flags.
#[derive(Debug, clap::Args)]
struct SetArgs {
    #[command(flatten)]
    sampling: SamplingArgs,
    #[arg(long)]
    max_tokens: Option<usize>,
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long)]
    stop: Option<String>,
}

impl<'a> Conversation<'a> {
    /// An empty conversation.
    pub fn new(lm: &'a dyn LanguageModel, system: Option<String>, settings: Settings) -> Conversation<'a> {
        Conversation { lm, messages: system.into_iter().map(Message::system).collect(), settings }
    }

    /// Does what `line` says: a slash command, or a message to be answered. The answer goes to `out` as it grows;
    /// `is_stopped` is asked after each piece.
    ///
    /// An error leaves the conversation as it was.
    pub fn take(
        &mut self,
        line: &str,
        out: &mut dyn Write,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Next, Failure> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(Next::Line);
        }
        if !line.starts_with('/') {
            self.messages.push(Message::user(line));
            let completion = self.answer_or_undo(out, is_stopped)?;
            return warn(&completion, out);
        }
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match (command, rest) {
            ("/help" | "/?", "") => {
                for (name, arguments, help) in SLASH_COMMANDS {
                    writeln!(out, "{:24} {help}", format!("{name} {arguments}"))?;
                }
                writeln!(out, "a line that ends in \\ goes on in the next; Ctrl-C stops an answer")?;
            }
            ("/system", text) => {
                self.messages.retain(|message| message.role != Role::System);
                if !text.is_empty() {
                    self.messages.insert(0, Message::system(text));
                }
            }
            ("/set", "") => self.show_settings(out)?,
            ("/set", assignment) => self.set(assignment)?,
            ("/regen", "") => {
                let Some(last) = self.messages.iter().rposition(|message| message.role == Role::User) else {
                    return Err(Failure::input("there is no message to answer again"));
                };
                let answers = self.messages.split_off(last + 1);
                return match self.answer(out, is_stopped) {
                    Ok(completion) => warn(&completion, out),
                    Err(failure) => {
                        self.messages.extend(answers);
                        Err(failure)
                    }
                };
            }
            ("/clear", "") => self.messages.retain(|message| message.role == Role::System),
            ("/save" | "/load", "") => {
                return Err(Failure::input(format!("{command} wants the name of a file")));
            }
            ("/save", file) => self.save(Path::new(file))?,
            ("/load", file) => {
                self.load(Path::new(file))?;
                writeln!(out, "{} messages", self.messages.len())?;
            }
            ("/exit" | "/quit", "") => return Ok(Next::Leave),
            _ => return Err(Failure::input(format!("`{line}` is no command")).hint("/help shows them")),
        }
        Ok(Next::Line)
    }

    /// Answers one message without waiting for another.
    pub fn answer_once(
        &mut self,
        text: &str,
        out: &mut dyn Write,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Completion, Failure> {
        self.messages.push(Message::user(text));
        self.answer_or_undo(out, is_stopped)
    }

    fn answer_or_undo(
        &mut self,
        out: &mut dyn Write,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Completion, Failure> {
        let answer = self.answer(out, is_stopped);
        if answer.is_err() {
            self.messages.pop();
        }
        answer
    }

    fn answer(&mut self, out: &mut dyn Write, is_stopped: &dyn Fn() -> bool) -> Result<Completion, Failure> {
        let settings = &mut self.settings;
        let request = Request {
            max_tokens: settings.max_tokens,
            sampling: settings.sampling.clone(),
            stop: settings.stop.clone(),
            seed: settings.seed,
            overflow: settings.overflow,
            think: settings.think,
            ..Request::new(Prompt::Chat(self.messages.clone()))
        };
        let mut failed = None;
        let completions = self.lm.generate(&request, &mut |event| {
            match event {
                Event::Text { text, .. } => {
                    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                    failed = written.err();
                }
                // The answer alone is data.
                Event::Thinking { text, .. } => eprint!("{text}"),
                Event::Prefill { .. } | Event::ToolCall { .. } => {}
            }
            if failed.is_some() || is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        let completion = completions.into_iter().next().expect("one completion was asked for");
        let broken_off = if completion.finish_reason == FinishReason::Cancelled { " [stopped]" } else { "" };
        writeln!(out, "{broken_off}")?;
        settings.seed = settings.seed.wrapping_add(1);
        let thinking = Some(completion.thinking.clone()).filter(|text| !text.is_empty());
        self.messages.push(Message { thinking, ..Message::assistant(completion.text.clone()) });
        let (usage, timings) = (completion.usage, completion.timings);
        tracing::info!(
            prompt_tokens = usage.prompt_tokens,
            cached_tokens = usage.cached_tokens,
            completion_tokens = usage.completion_tokens,
            drafted_tokens = usage.drafted_tokens,
            accepted_tokens = usage.accepted_tokens,
            prefill_seconds = timings.prefill_seconds,
            decode_seconds = timings.decode_seconds,
            "answered"
        );
        Ok(completion)
    }

    fn set(&mut self, assignment: &str) -> Result<(), Failure> {
        let usage = || Failure::input("/set wants a name and a value, such as /set temperature 0.7");
        let (name, value) = assignment.split_once([' ', '=']).ok_or_else(usage)?;
        let flag = format!("--{}={}", name.trim().trim_start_matches("--").replace('_', "-"), value.trim());
        let parser =
            SetArgs::augment_args(clap::Command::new("set").no_binary_name(true).disable_help_flag(true));
        let parsed =
            parser.try_get_matches_from([flag]).and_then(|matches| SetArgs::from_arg_matches(&matches));
        let args = parsed.map_err(|error| {
            let text = error.to_string();
            Failure::input(text.lines().next().unwrap_or_default().trim_start_matches("error: "))
        })?;
        args.sampling.apply(&mut self.settings.sampling);
        self.settings.max_tokens = args.max_tokens.or(self.settings.max_tokens);
        self.settings.seed = args.seed.unwrap_or(self.settings.seed);
        match args.stop {
            Some(text) if text.is_empty() => self.settings.stop.clear(),
            Some(text) => self.settings.stop.push(text),
            None => {}
        }
        Ok(())
    }

    fn show_settings(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let settings = format!("{:#?}", self.settings);
        for line in settings.lines().filter(|line| line.starts_with(' ')) {
            writeln!(out, "{}", line.trim_end_matches(','))?;
        }
        Ok(())
    }

    fn save(&self, path: &Path) -> Result<(), Failure> {
        let saved = Saved {
            made_by: concat!("rhetor ", env!("CARGO_PKG_VERSION"), " chat").to_string(),
            model: self.lm.name().to_string(),
            messages: self.messages.clone(),
        };
        let text = serde_json::to_string_pretty(&saved).expect("a conversation is only text");
        std::fs::write(path, text + "\n").map_err(Failure::file(path))
    }

    fn load(&mut self, path: &Path) -> Result<(), Failure> {
        let text = crate::input::file(path)?;
        let saved: Saved = serde_json::from_str(&text)
            .map_err(|e| Failure::input(format!("{} is no saved conversation: {e}", path.display())))?;
        self.messages = saved.messages;
        Ok(())
    }
}

/// Says what the person should know about an answer.
fn warn(completion: &Completion, out: &mut dyn Write) -> Result<Next, Failure> {
    for warning in &completion.warnings {
        writeln!(out, "[{warning}]")?;
    }
    Ok(Next::Line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_lm::Scripted;

    fn settings() -> Settings {
        Settings {
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            seed: 7,
            overflow: Overflow::TruncateOldest,
            think: None,
        }
    }

    fn talk(conversation: &mut Conversation<'_>, line: &str) -> String {
        let mut out = Vec::new();
        match conversation.take(line, &mut out, &|| false) {
            Ok(Next::Line) => String::from_utf8(out).unwrap(),
            Ok(Next::Leave) => "left".to_string(),
            Err(failure) => format!("error: {}", failure.message),
        }
    }

    #[test]
    fn a_conversation_remembers_what_was_said_and_regen_uses_another_seed() {
        let lm = Scripted::new(["hello", "blue", "green"]);
        let mut conversation = Conversation::new(&lm, Some("be brief".to_string()), settings());
        assert_eq!(talk(&mut conversation, "hi"), "hello\n");
        assert_eq!(talk(&mut conversation, "a colour?"), "blue\n");
        assert_eq!(talk(&mut conversation, "/regen"), "green\n");
        let asked = lm.asked();
        assert_eq!(asked[1].prompt, asked[2].prompt);
        assert_eq!((asked[0].seed, asked[1].seed, asked[2].seed), (7, 8, 9));
        let Prompt::Chat(messages) = &asked[2].prompt else { panic!("a chat") };
        let said: Vec<_> = messages.iter().map(|m| m.content.as_str()).collect();
        assert_eq!(said, ["be brief", "hi", "hello", "a colour?"]);
        assert_eq!(talk(&mut conversation, "/exit"), "left");
    }

    #[test]
    fn settings_are_checked_as_flags_are() {
        let lm = Scripted::new(["x"]);
        let mut conversation = Conversation::new(&lm, None, settings());
        assert_eq!(talk(&mut conversation, "/set temperature 0.5"), "");
        assert_eq!(talk(&mut conversation, "/set top_p=0.25"), "");
        assert_eq!(talk(&mut conversation, "/set max-tokens 9"), "");
        let refused = talk(&mut conversation, "/set top-p 2");
        assert!(refused.contains("it must be from 0 to 1"), "{refused}");
        assert!(talk(&mut conversation, "/set colour 2").starts_with("error: "));
        assert!(talk(&mut conversation, "/set").contains("temperature: 0.5"));
        talk(&mut conversation, "go");
        let asked = &lm.asked()[0];
        assert_eq!(
            (asked.sampling.temperature, asked.sampling.top_p, asked.max_tokens),
            (0.5, 0.25, Some(9))
        );
    }

    #[test]
    fn a_saved_conversation_goes_on_where_it_stopped() {
        let lm = Scripted::new(["one", "two"]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("talk.json");
        let mut first = Conversation::new(&lm, None, settings());
        talk(&mut first, "/system count");
        talk(&mut first, "go");
        assert_eq!(talk(&mut first, &format!("/save {}", file.display())), "");
        let mut second = Conversation::new(&lm, None, settings());
        assert_eq!(talk(&mut second, &format!("/load {}", file.display())), "3 messages\n");
        talk(&mut second, "on");
        let Prompt::Chat(messages) = &lm.asked()[1].prompt else { panic!("a chat") };
        assert_eq!(messages.len(), 4);
        std::fs::write(&file, "{}").unwrap();
        assert!(talk(&mut second, &format!("/load {}", file.display())).contains("is no saved conversation"));
        assert!(talk(&mut second, "/load").contains("wants the name of a file"));
        assert!(talk(&mut second, "/load no-such-file").contains("does not exist"));
    }

    #[test]
    fn a_stopped_answer_is_kept_and_an_unknown_command_is_refused() {
        let lm = Scripted::new(["one two three"]);
        let mut conversation = Conversation::new(&lm, None, settings());
        let mut out = Vec::new();
        conversation.take("count", &mut out, &|| true).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "one  [stopped]\n");
        assert_eq!(talk(&mut conversation, "/nonsense"), "error: `/nonsense` is no command");
        assert!(talk(&mut conversation, "/help").contains("/regen"));
        assert_eq!(talk(&mut conversation, "/clear"), "");
        assert_eq!(talk(&mut conversation, "/regen"), "error: there is no message to answer again");
    }
}
