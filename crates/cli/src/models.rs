//! From what the person calls a model to a file that can be opened.

use crate::errors::Failure;
use crate::machine;
use crate::output::bytes;
use crate::session::Session;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rhetor_store::{Plan, Progress, PulledModel};
use std::ops::ControlFlow;

/// A pull at least this large is announced together with what the model will need.
const LARGE: u64 = 50_000_000;

/// Finds the model that `reference` names, pulling it if it is not here; progress goes to stderr.
pub fn find(session: &Session, reference: &str) -> Result<PulledModel, Failure> {
    let mut bar = Bar::new();
    let n_threads = session.n_threads();
    let pulled = session.store.pull(reference, &session.pull_options, &mut |progress| {
        match progress {
            Progress::Planned(plan) => announce(plan, n_threads),
            Progress::Waiting => eprintln!("waiting for another pull into the same store"),
            Progress::Downloading { file, done, total, .. } => bar.show("fetching", file, done, total),
            Progress::Unpacking { file, done, total } => bar.show("unpacking", file, done, Some(total)),
            Progress::Checking { file, done, total } => bar.show("checking", file, done, Some(total)),
            Progress::Retrying { file, reason, wait } => {
                bar.clear();
                eprintln!("{file}: {reason}; trying again in {:.1} s", wait.as_secs_f64());
            }
        }
        ControlFlow::Continue(())
    });
    bar.clear();
    Ok(pulled?)
}

/// A bar on stderr, if that is a terminal.
pub struct Bar {
    bar: ProgressBar,
    label: String,
}

impl Bar {
    /// A bar that shows nothing yet.
    pub fn new() -> Bar {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Bar { bar, label: String::new() }
    }

    /// Shows that `done` of `total` bytes of `file` have gone through `verb`.
    pub fn show(&mut self, verb: &str, file: &str, done: u64, total: Option<u64>) {
        let label = format!("{verb} {file}");
        if label != self.label {
            self.clear();
            self.bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
            let template = match total {
                Some(_) => {
                    "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}"
                }
                None => "{msg} {decimal_bytes} {decimal_bytes_per_sec}",
            };
            let style = ProgressStyle::with_template(template).expect("the template is a constant");
            self.bar.set_style(style.progress_chars("=> "));
            self.bar.set_message(label.clone());
            self.label = label;
        }
        self.bar.set_position(done);
    }

    /// Shows that `done` of `total` steps are done, under a message that changes.
    pub fn count(&mut self, message: &str, done: u64, total: u64) {
        if self.label != "count" {
            self.clear();
            self.bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
            self.bar.set_style(style.expect("the template is a constant").progress_chars("=> "));
            self.label = "count".to_string();
        }
        self.bar.set_message(message.to_string());
        self.bar.set_position(done);
    }

    /// Removes the bar from the screen.
    pub fn clear(&mut self) {
        self.bar.finish_and_clear();
        self.label.clear();
    }
}

fn announce(plan: &Plan, n_threads: usize) {
    let licence = plan.licence.as_ref().map_or(String::new(), |licence| format!(" ({licence})"));
    eprintln!("pulling {}{licence} from {}", plan.name, plan.source);
    if let Some(terms) = &plan.licence_terms {
        eprintln!("  licence: {terms}");
    }
    let Some(size) = plan.model_bytes.or(plan.download_bytes) else { return };
    let fetch = plan.download_bytes.map_or(String::new(), |n| format!("{} to fetch, ", bytes(n)));
    if size < LARGE {
        eprintln!("  {fetch}{} on disk", bytes(size));
        return;
    }
    // Weights, buffers and the keys and values of a short conversation.
    let needed = size + size / 8 + 60_000_000;
    let bandwidth = machine::read_bandwidth(n_threads);
    eprintln!(
        "  {fetch}{} on disk; needs about {} of memory; at most about {:.0} tokens/s at the {}/s that memory gives",
        bytes(size),
        bytes(needed),
        bandwidth / size as f64,
        bytes(bandwidth as u64),
    );
    if let Some(memory) = machine::memory()
        && needed > memory.available
    {
        eprintln!("  warning: only {} of {} memory are free", bytes(memory.available), bytes(memory.total));
    }
}
