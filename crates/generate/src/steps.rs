//! The only loop: schedule, run, postprocess. Many callers wait for their own outputs; whoever finds nobody at work
//! makes the next step for all.

use crate::runner::Runner;
use crate::scheduler::{Scheduler, Stats};
use crate::search::speculative::Speculator;
use crate::sequence::{JobSpec, Output};
use rhetor_images::Planes;
use rhetor_tensor::Tensor;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The engine as it deals in tokens.
pub(crate) struct Steps {
    shared: Mutex<Shared>,
    /// Told after each step.
    stepped: Condvar,
    /// Held by the one who makes a step; the rest of the time nobody wants it.
    runner: Mutex<Box<dyn Runner>>,
    /// Guesses the next tokens, if anybody does; wanted by the one who makes a step.
    speculator: Option<Mutex<Speculator>>,
}

struct Shared {
    scheduler: Scheduler,
    is_stepping: bool,
}

/// A place in the line. Giving it up gives up the job.
pub(crate) struct Ticket<'a> {
    steps: &'a Steps,
    id: u64,
}

impl Steps {
    /// An engine on `runner`, with `chunk` prompt tokens in a step; the tokenizer knows `n_tokens` ids.
    pub fn new(runner: Box<dyn Runner>, chunk: usize, n_tokens: usize) -> Steps {
        let scheduler = Scheduler::new(runner.n_pages(), chunk, runner.vocab_size(), n_tokens);
        Steps {
            shared: Mutex::new(Shared { scheduler, is_stepping: false }),
            stepped: Condvar::new(),
            runner: Mutex::new(runner),
            speculator: None,
        }
    }

    /// The same, with at most `n` tokens of each sequence guessed ahead in a step.
    pub fn speculating(mut self, speculator: Speculator, n: usize) -> Steps {
        self.lock().scheduler.speculate(n);
        self.speculator = Some(Mutex::new(speculator));
        self
    }

    /// Whether tokens are guessed ahead.
    pub fn speculates(&self) -> bool {
        self.speculator.is_some()
    }

    /// Puts a job in line.
    pub fn submit(&self, spec: JobSpec) -> Ticket<'_> {
        let id = self.lock().scheduler.submit(spec);
        Ticket { steps: self, id }
    }

    /// The rows that a picture becomes. [R, D]
    pub fn see(&self, picture: &Planes) -> Tensor {
        lock(&self.runner).see(picture)
    }

    /// What has been done so far.
    pub fn stats(&self) -> Stats {
        self.lock().scheduler.stats()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A panic while the lock was held is dealt with by the step that panicked: see `recover`.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one step for everybody. `shared` is released while the model runs.
    fn step<'a>(&'a self, mut shared: MutexGuard<'a, Shared>) -> MutexGuard<'a, Shared> {
        shared.is_stepping = true;
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut plan = shared.scheduler.schedule();
            drop(shared);
            if plan.batch.tokens.is_empty() {
                return;
            }
            let mut speculator = self.speculator.as_ref().map(|speculator| lock(speculator));
            let mut guessing = 0.0;
            if let Some(speculator) = &mut speculator {
                let (proposals, seconds) = speculator.guess(&mut plan.asked, plan.n_plain);
                plan.add_guesses(proposals);
                guessing = seconds;
            }
            let (rows, sequences) = (plan.batch.tokens.len(), plan.batch.spans.len());
            let _span = tracing::debug_span!("step", rows, sequences).entered();
            let mut runner = lock(&self.runner);
            let began = Instant::now();
            for &(from, to) in &plan.copies {
                runner.copy_page(from, to);
            }
            if !plan.tables.is_empty() {
                let tables: Vec<&[u32]> = plan.tables.iter().map(Vec::as_slice).collect();
                runner.read(&plan.sources, &tables, &plan.batch.adapters);
            }
            runner.forward(&plan.batch, &mut |logits| {
                let seconds = began.elapsed().as_secs_f64();
                if let Some(speculator) = speculator.as_mut().filter(|_| plan.only_decodes()) {
                    speculator.stepped(rows, seconds);
                }
                let scheduler = &mut self.lock().scheduler;
                scheduler.stats.seconds_in_model += seconds;
                scheduler.stats.seconds_in_drafter += guessing;
                scheduler.postprocess(&plan, logits);
            });
        }));
        let mut shared = self.lock();
        if let Err(panic) = result {
            // What the step has left half done, in the books and in the pages, is unknown: all start afresh.
            shared.scheduler.fail_all(&format!("a step of the engine panicked: {}", message(&*panic)));
        }
        shared.is_stepping = false;
        shared.scheduler.sweep();
        self.stepped.notify_all();
        shared
    }
}

impl Ticket<'_> {
    /// Waits for the next outputs of the job; empty when it is over.
    pub fn next(&self) -> Vec<Output> {
        let mut shared = self.steps.lock();
        loop {
            let Some(job) = shared.scheduler.job(self.id) else { return Vec::new() };
            if !job.outbox.is_empty() {
                return std::mem::take(&mut job.outbox);
            }
            if job.sequences.iter().all(|sequence| sequence.is_done) {
                return Vec::new();
            }
            shared = if shared.is_stepping {
                self.steps.stepped.wait(shared).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.steps.step(shared)
            };
        }
    }

    /// Nothing more is wanted of completion `index`.
    pub fn finish(&self, index: usize) {
        let mut shared = self.steps.lock();
        if let Some(job) = shared.scheduler.job(self.id) {
            job.sequences.iter_mut().filter(|s| s.index == index).for_each(|s| s.is_done = true);
        }
        if !shared.is_stepping {
            shared.scheduler.sweep();
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut shared = self.steps.lock();
        if let Some(job) = shared.scheduler.job(self.id) {
            job.is_closed = true;
        }
        if !shared.is_stepping {
            shared.scheduler.sweep();
        }
    }
}

/// Locks what only the maker of a step wants; what a panic left in it is no worse than what it left in the pages.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
