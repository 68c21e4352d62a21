//! The only loop: schedule, run, postprocess. It has a thread of its own, so that one arena serves all requests and no
//! caller's text waits for another's step; callers put jobs in line and wait for what comes of them.

use crate::line::Line;
use crate::prefix_store::{PAGES_MIN, PrefixStore};
use crate::runner::Runner;
use crate::scheduler::{Export, Plan, Scheduler, Stats};
use crate::search::speculative::Speculator;
use crate::sequence::{JobSpec, Output};
use rhetor_images::Planes;
use rhetor_kernels::kv::PAGE_LEN;
use rhetor_tensor::Tensor;
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes that are copied for the disk between two steps.
const EXPORT_BYTES: usize = 8 << 20;

/// How long a waiting caller sleeps before it looks whether its request was broken off.
const LOOK: Duration = Duration::from_millis(50);

/// The engine as it deals in tokens.
pub(crate) struct Steps {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
    speculates: bool,
}

/// Where callers and the loop meet.
struct Desk {
    shared: Mutex<Shared>,
    /// Told when there may be something to do.
    work: Condvar,
    /// Where beginnings of prompts are kept.
    store: Option<Arc<PrefixStore>>,
}

struct Shared {
    scheduler: Scheduler,
    /// By number of the job: told when it has outputs.
    bells: HashMap<u64, Arc<Condvar>>,
    /// Pictures to be looked at between two steps, and who wants their rows.
    sights: VecDeque<(Planes, Sender<Tensor>)>,
    is_leaving: bool,
}

/// A place in the line. Giving it up gives up the job.
pub(crate) struct Ticket<'a> {
    desk: &'a Desk,
    id: u64,
    bell: Arc<Condvar>,
}

impl Steps {
    /// An engine on `runner`, with `chunk` prompt tokens in a step; the tokenizer knows `n_tokens` ids. What guesses comes with
    /// the most tokens of a sequence that are guessed in a step.
    pub fn new(
        runner: Box<dyn Runner>,
        speculator: Option<(Speculator, usize)>,
        chunk: usize,
        n_tokens: usize,
        line: Line,
        store: Option<PrefixStore>,
    ) -> Steps {
        let store = store.map(Arc::new);
        let mut scheduler = Scheduler::new(runner.n_pages(), chunk, runner.vocab_size(), n_tokens, line);
        let (speculator, n_ahead) = speculator.map_or((None, 0), |(speculator, n)| (Some(speculator), n));
        scheduler.speculate(n_ahead);
        store.iter().for_each(|store| scheduler.keep_prefixes(store.clone()));
        let (bells, sights) = (HashMap::new(), VecDeque::new());
        let shared = Mutex::new(Shared { scheduler, bells, sights, is_leaving: false });
        let desk = Arc::new(Desk { shared, work: Condvar::new(), store });
        let own = desk.clone();
        let thread = std::thread::Builder::new()
            .name("rhetor-engine".to_string())
            .spawn(move || own.serve(runner, speculator))
            .expect("the system refuses another thread");
        Steps { desk, thread: Some(thread), speculates: n_ahead > 0 }
    }

    /// Whether tokens are guessed ahead.
    pub fn speculates(&self) -> bool {
        self.speculates
    }

    /// Puts a job in line; refused if the line is full.
    ///
    /// What is on disk of its prompt is read here, by the caller's thread: no step waits for it.
    pub fn submit(&self, mut spec: JobSpec) -> Result<Ticket<'_>, rhetor_lm::Error> {
        if let Some(store) = self.desk.store.as_ref().filter(|_| spec.is_plain()) {
            let digests = store.digests(&spec.prompt);
            // The last token is computed for its logits, whatever is known of it.
            let n_reusable = (spec.prompt.len() - 1) / PAGE_LEN;
            let n_held = self.desk.lock().scheduler.n_held(&spec.prompt);
            spec.run = store.read(&digests[..n_reusable], n_held.min(n_reusable));
            spec.digests = Some(digests).filter(|digests| digests.len() >= PAGES_MIN);
        }
        let mut shared = self.desk.lock();
        let id = shared.scheduler.submit(spec)?;
        let bell = Arc::new(Condvar::new());
        shared.bells.insert(id, bell.clone());
        self.desk.work.notify_one();
        Ok(Ticket { desk: &self.desk, id, bell })
    }

    /// The rows that a picture becomes. [R, D]
    pub fn see(&self, picture: Planes) -> Tensor {
        let (tell, rows) = channel();
        self.desk.lock().sights.push_back((picture, tell));
        self.desk.work.notify_one();
        rows.recv().expect("the model panicked at this picture")
    }

    /// Callers that wait.
    #[cfg(test)]
    pub fn n_bells(&self) -> usize {
        self.desk.lock().bells.len()
    }

    /// What has been done so far.
    pub fn stats(&self) -> Stats {
        self.desk.lock().scheduler.stats()
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.desk.lock().is_leaving = true;
        self.desk.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported to those it concerned.
            let _ = thread.join();
        }
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A panic while the lock was held is dealt with by the step that panicked: see `step`.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one step after the other, as long as there is one to make.
    fn serve(&self, mut runner: Box<dyn Runner>, mut speculator: Option<Speculator>) {
        let mut shared = self.lock();
        loop {
            if let Some((picture, tell)) = shared.sights.pop_front() {
                drop(shared);
                // Without an answer the caller hears of the panic.
                if let Ok(rows) = catch_unwind(AssertUnwindSafe(|| runner.see(&picture))) {
                    let _ = tell.send(rows);
                }
                shared = self.lock();
                continue;
            }
            let plan = catch_unwind(AssertUnwindSafe(|| shared.scheduler.schedule()));
            // Those who were broken off in line hear of it before the step.
            shared.ring();
            let ran = match plan {
                Ok(plan) if plan.is_empty() => {
                    if let Some(export) = shared.scheduler.exports.pop_front() {
                        shared = self.export(&*runner, export, shared);
                        continue;
                    }
                    if shared.is_leaving {
                        return;
                    }
                    shared = self.work.wait(shared).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                Ok(plan) => {
                    drop(shared);
                    catch_unwind(AssertUnwindSafe(|| self.step(&mut *runner, speculator.as_mut(), plan)))
                }
                Err(panic) => {
                    drop(shared);
                    Err(panic)
                }
            };
            shared = self.lock();
            if let Err(panic) = ran {
                // What the step has left half done, in the books and in the pages, is unknown: all start afresh.
                shared.scheduler.fail_all(&format!("a step of the engine panicked: {}", message(&*panic)));
            }
            shared.scheduler.sweep();
            shared.ring();
            if let Some(export) = shared.scheduler.exports.pop_front() {
                shared = self.export(&*runner, export, shared);
            }
        }
    }

    /// Copies some pages of an export, and hands it over when it has all.
    fn export<'a>(
        &'a self,
        runner: &dyn Runner,
        mut export: Export,
        shared: MutexGuard<'a, Shared>,
    ) -> MutexGuard<'a, Shared> {
        drop(shared);
        let n_pages = (EXPORT_BYTES / runner.page_bytes()).max(1);
        let n_before = export.n_read;
        export.n_read = export.pages.len().min(n_before + n_pages);
        export.bytes.reserve_exact(export.pages.len() * runner.page_bytes() - export.bytes.len());
        for &page in &export.pages[n_before..export.n_read] {
            runner.read_page(page, &mut export.bytes);
        }
        let mut shared = self.lock();
        shared.scheduler.release(&export.pages[n_before..export.n_read]);
        if export.n_read < export.pages.len() {
            shared.scheduler.exports.push_front(export);
            return shared;
        }
        drop(shared);
        if let Some(store) = &self.store {
            store.write(export.claim, export.bytes);
        }
        self.lock()
    }

    /// Makes one step for everybody. Nobody is kept waiting while the model runs.
    fn step(&self, runner: &mut dyn Runner, mut speculator: Option<&mut Speculator>, mut plan: Plan) {
        let mut guessing = 0.0;
        if let Some(speculator) = &mut speculator {
            let (proposals, seconds) = speculator.guess(&mut plan.asked, plan.n_plain);
            plan.add_guesses(proposals);
            guessing = seconds;
        }
        let (rows, sequences) = (plan.batch.tokens.len(), plan.batch.spans.len());
        let _span = tracing::debug_span!("step", rows, sequences).entered();
        let began = Instant::now();
        for import in &plan.imports {
            runner.write_page(import.page, import.run.page(import.at));
        }
        for &(from, to) in &plan.copies {
            runner.copy_page(from, to);
        }
        if !plan.tables.is_empty() {
            let tables: Vec<&[u32]> = plan.tables.iter().map(Vec::as_slice).collect();
            runner.read(&plan.sources, &tables, &plan.batch.adapters);
        }
        let watched = speculator.as_ref().and_then(|speculator| speculator.watches().map(<[usize]>::to_vec));
        let mut read = |logits: &[f32], features: Option<&Tensor>| {
            let seconds = began.elapsed().as_secs_f64();
            if let Some(speculator) = &mut speculator {
                if plan.only_decodes() {
                    speculator.stepped(rows, seconds);
                }
                if let Some(features) = features {
                    plan.show(features, speculator);
                }
            }
            let scheduler = &mut self.lock().scheduler;
            scheduler.stats.seconds_in_model += seconds;
            scheduler.stats.seconds_in_drafter += guessing;
            scheduler.postprocess(&plan, logits);
        };
        match watched {
            Some(depths) => {
                let read = &mut |logits: &[f32], features: &Tensor| read(logits, Some(features));
                runner.forward_watched(&plan.batch, &depths, read);
            }
            None => runner.forward(&plan.batch, &mut |logits| read(logits, None)),
        }
    }
}

impl Shared {
    /// Wakes the callers for whom there is something.
    fn ring(&self) {
        for id in self.scheduler.heard() {
            if let Some(bell) = self.bells.get(&id) {
                bell.notify_one();
            }
        }
    }
}

impl Ticket<'_> {
    /// Waits for the next outputs of the job; empty when it is over.
    ///
    /// A request that is cancelled or whose time is over ends here, whether or not a step is being made.
    pub fn next(&self) -> Vec<Output> {
        let mut shared = self.desk.lock();
        loop {
            let Some(job) = shared.scheduler.job(self.id) else { return Vec::new() };
            job.break_off(Instant::now());
            if !job.outbox.is_empty() {
                return std::mem::take(&mut job.outbox);
            }
            if job.is_over() {
                return Vec::new();
            }
            let left = job.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let wait = left.map_or(LOOK, |left| left.min(LOOK));
            shared = self.bell.wait_timeout(shared, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nothing more is wanted of completion `index`.
    pub fn finish(&self, index: usize) {
        if let Some(job) = self.desk.lock().scheduler.job(self.id) {
            job.sequences.iter_mut().filter(|s| s.index == index).for_each(|s| s.is_done = true);
        }
        self.desk.work.notify_one();
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut shared = self.desk.lock();
        shared.bells.remove(&self.id);
        if let Some(job) = shared.scheduler.job(self.id) {
            job.is_closed = true;
        }
        self.desk.work.notify_one();
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
