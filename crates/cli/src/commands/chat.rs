//! `rhetor chat`.

use super::Run;
use super::generate::{AnswerArgs, OverflowArg, to_json};
use crate::conversation::{Conversation, Next, Settings};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::interrupt::{self, StopsAnswer};
use crate::sampling::SamplingArgs;
use crate::session::Session;
use crate::tools::Switch;
use crate::voice::{self, VoiceArgs};
use crate::{input, output};
use rhetor_lm::{FinishReason, Overflow, Sampling};
use rhetor_store::DEFAULT_MODEL;
use rustyline::error::ReadlineError;
use std::io::IsTerminal;

/// Talk with a model
///
/// Without a MODEL the default model is used, and fetched the first time. At the prompt /help shows the commands;
/// Ctrl-C stops an answer, Ctrl-D leaves. When stdin is no terminal, its text is answered once.
///
/// Answers are drawn with temperature 0.2 and top-p 0.9 unless flags say otherwise. When the conversation outgrows
/// the context, the oldest turns are dropped and that is said.
#[derive(Debug, clap::Args)]
pub struct Chat {
    /// Name, reference or path of a model [default: smollm2-135m-instruct]
    model: Option<String>,

    /// Instructions that stand before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// Print the answer to the text on stdin as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    answer: AnswerArgs,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    voice: VoiceArgs,
}

impl Run for Chat {
    const NAME: &str = "chat";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let is_talk = std::io::stdin().is_terminal();
        if self.json && is_talk {
            return Err(Failure::input("--json answers a text on stdin; stdin is a terminal"));
        }
        let text = if is_talk { String::new() } else { input::stdin()? };
        if !is_talk && text.trim().is_empty() {
            return Err(Failure::input("there is no text on stdin to answer"));
        }
        let mut sampling = Sampling { temperature: 0.2, top_p: 0.9, ..Sampling::default() };
        self.sampling.apply(&mut sampling);
        // A conversation grows for ever; a single text that is too long is more likely a mistake.
        let overflow = match (self.answer.overflow, is_talk) {
            (OverflowArg::Error, true) => Overflow::TruncateOldest,
            (policy, _) => policy.into(),
        };
        let settings = Settings {
            sampling,
            max_tokens: self.answer.max_tokens,
            stop: self.answer.stop,
            seed: self.answer.seed,
            overflow,
            think: self.answer.think.map(Switch::is_on),
        };
        let model = self.model.as_deref().unwrap_or(DEFAULT_MODEL);
        let lm = voice::load(session, model, &self.voice, self.answer.template.as_deref())?;
        let mut conversation = Conversation::new(&lm, self.system, settings);
        if is_talk {
            return talk(session, model, &mut conversation);
        }

        let _stops = StopsAnswer::begin();
        let mut sink = Vec::new();
        let mut stdout = std::io::stdout();
        let out: &mut dyn std::io::Write = if self.json { &mut sink } else { &mut stdout };
        let completion = conversation.answer_once(text.trim_end(), out, &interrupt::raised)?;
        if self.json {
            output::json(&to_json(&completion))?;
        }
        for warning in &completion.warnings {
            eprintln!("warning: {warning}");
        }
        let is_cancelled = completion.finish_reason == FinishReason::Cancelled;
        Ok(if is_cancelled { Exit::Interrupted } else { Exit::Done })
    }
}

/// Reads lines from the terminal until the person leaves.
fn talk(session: &Session, model: &str, conversation: &mut Conversation<'_>) -> Result<Exit, Failure> {
    let terminal = |error: ReadlineError| Failure::refused(format!("the terminal cannot be read: {error}"));
    let mut editor = rustyline::DefaultEditor::new().map_err(terminal)?;
    let history = session.store.home().join("chat-history");
    // There is none the first time.
    let _ = editor.load_history(&history);
    eprintln!("{model}; /help shows the commands, Ctrl-D leaves");
    let mut line = String::new();
    loop {
        match editor.readline(if line.is_empty() { "> " } else { ". " }) {
            Ok(part) => line.push_str(&part),
            // Ctrl-C at the prompt takes back what was typed.
            Err(ReadlineError::Interrupted) => {
                line.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(Exit::Done),
            Err(error) => return Err(terminal(error)),
        }
        if line.ends_with('\\') {
            line.pop();
            line.push('\n');
            continue;
        }
        if !line.trim().is_empty() {
            let _ = editor.add_history_entry(line.as_str());
            let _ = std::fs::create_dir_all(session.store.home());
            if let Err(error) = editor.save_history(&history) {
                tracing::warn!("the history cannot be written to {}: {error}", history.display());
            }
        }
        let stops = StopsAnswer::begin();
        let next = conversation.take(&line, &mut std::io::stdout(), &interrupt::raised);
        drop(stops);
        line.clear();
        match next {
            Ok(Next::Line) => {}
            Ok(Next::Leave) => return Ok(Exit::Done),
            // A reader of stdout that went away ends the talk; a mistake does not.
            Err(failure) if failure.exit == Exit::Done => return Err(failure),
            Err(failure) => failure.print(),
        }
    }
}
