//! Who is computed next: which tokens of which sequences make up a step, and what becomes of the logits.
//!
//! Sequences stand in order of arrival. Every step takes one token of each sequence that is being continued, and fills
//! up with parts of prompts, shared fairly. When pages run out, the sequence that came last is put back: its pages go to
//! the others, and it is computed again when there is room (from the prefix cache, if that still holds it). The first
//! in line is never put back, and nobody is admitted whose worst case exceeds the whole cache: so there is always a
//! sequence that moves, and no deadlock.

mod guesses;

use crate::choices::Choices;
use crate::constraint::State;
use crate::kv_blocks::{Chain, KvBlocks};
use crate::line::Line;
use crate::logprob;
use crate::prefix_store::{Claim, PrefixStore, Run};
use crate::sampling::{Past, Sampler, Scratch};
use crate::search::beam::Advance;
use crate::search::speculative::{Asked, Proposal, Rates, SequenceId};
use crate::sequence::{Goal, Job, JobSpec, Output};
use rhetor_kernels::kv::PAGE_LEN;
use rhetor_models::{Active, Batch, SequenceSpan, SourceTokens};
use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Logits that a step may materialise, in numbers: 64 MiB.
const LOGITS_MAX: usize = 16 << 20;

/// What the engine has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stats {
    /// Steps.
    pub steps: u64,
    /// Prompt tokens computed, cached ones not counted.
    pub tokens_prefilled: u64,
    /// Tokens of answers computed, wrong guesses not counted.
    pub tokens_decoded: u64,
    /// Tokens guessed ahead and computed.
    pub tokens_drafted: u64,
    /// Of those, tokens that were right.
    pub tokens_accepted: u64,
    /// Prompt tokens found in the cache, in memory or on disk.
    pub tokens_cached: u64,
    /// Of those, tokens read from disk.
    pub tokens_loaded: u64,
    /// Sequences put back because pages ran out.
    pub preemptions: u64,
    /// Pages copied because two sequences went different ways.
    pub pages_copied: u64,
    /// Pages of the cache.
    pub cache_pages_total: usize,
    /// Pages in use by sequences in flight.
    pub cache_pages_used: usize,
    /// Pages kept only because a later prompt may begin with them.
    pub cache_pages_idle: usize,
    /// Requests that have not begun.
    pub requests_waiting: usize,
    /// Sequences that have begun and are not complete.
    pub sequences_running: usize,
    /// Seconds inside the model.
    pub seconds_in_model: f64,
    /// Seconds spent guessing.
    pub seconds_in_drafter: f64,
}

/// One step: what the runner computes, and whose it is.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Pages to fill before all else.
    pub imports: Vec<Import>,
    /// Pages to copy before, in order, (from, to).
    pub copies: Vec<(u32, u32)>,
    /// Sources to read before.
    pub sources: SourceTokens,
    /// The pages of each of them.
    pub tables: Vec<Vec<u32>>,
    /// The tokens.
    pub batch: Batch,
    /// Sequences of which the next tokens may be guessed.
    pub asked: Vec<Asked>,
    /// Rows of sequences that wait for their next tokens.
    pub n_plain: usize,
    /// One entry for each span of the batch.
    spans: Vec<PlannedSpan>,
}

/// A page that comes from the disk.
#[derive(Debug)]
pub(crate) struct Import {
    /// Where it belongs.
    pub page: u32,
    /// What was read.
    pub run: Arc<Run>,
    /// Which of the run's pages.
    pub at: usize,
}

/// Pages of a prompt that go to the disk, a few after each step.
#[derive(Debug)]
pub(crate) struct Export {
    /// Which they are.
    pub claim: Claim,
    /// The pages, each taken for one more user; the first `n_read` have been read.
    pub pages: Vec<u32>,
    /// See `pages`.
    pub n_read: usize,
    /// What was read.
    pub bytes: Vec<u8>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.batch.tokens.is_empty()
    }
}

/// A part of a sequence in a step.
#[derive(Debug)]
struct PlannedSpan {
    job: usize,
    sequence: usize,
    /// Tokens computed once the step is done.
    n_computed: usize,
    /// Which of the batch's outputs are its own.
    outputs: Range<usize>,
    /// Whose it is, if the tokens that follow may be guessed.
    id: Option<SequenceId>,
    /// What was guessed of them.
    proposal: Proposal,
}

/// What two sequences must share to share pages: the set of adapters, and where which pictures stand.
type Root = (Active, Vec<(usize, [u8; 32])>);

/// Beginnings that are remembered; what was computed after one that is not is computed again.
const ROOTS_MAX: usize = 256;

/// What [`Scheduler::sizes`] counts.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Sizes {
    pub jobs: usize,
    pub roots: usize,
    pub pages: usize,
    pub scratches: usize,
}

/// The jobs in flight and the books of their pages.
#[derive(Debug)]
pub(crate) struct Scheduler {
    jobs: Vec<Job>,
    blocks: KvBlocks,
    next_id: u64,
    line: Line,
    /// The beginnings met last, but for that without adapters chosen and pictures; the last one used stands last.
    roots: Vec<(Root, Chain)>,
    /// The adapters of the last step.
    last_set: Active,
    /// Prompt tokens in a step.
    chunk: usize,
    vocab_size: usize,
    /// Ids that may be chosen: those the tokenizer knows.
    n_tokens: usize,
    scratch: Scratch,
    /// For choices made side by side.
    scratches: Mutex<Vec<Scratch>>,
    /// The most tokens guessed ahead in a step; 0 = none.
    n_ahead: usize,
    /// How often guesses were right.
    rates: Rates,
    /// Where beginnings of prompts are kept.
    store: Option<Arc<PrefixStore>>,
    /// Pages that sequences believe to be filled, until the next step.
    imports: Vec<Import>,
    /// What is on its way to the disk.
    pub exports: VecDeque<Export>,
    pub stats: Stats,
}

impl Scheduler {
    /// A scheduler over `n_pages` pages for a model of `vocab_size` logits, of which the tokenizer knows `n_tokens`.
    pub fn new(n_pages: usize, chunk: usize, vocab_size: usize, n_tokens: usize, line: Line) -> Scheduler {
        Scheduler {
            jobs: Vec::new(),
            blocks: KvBlocks::new(n_pages),
            next_id: 0,
            line,
            roots: Vec::new(),
            last_set: Active::All,
            chunk: chunk.max(1),
            vocab_size,
            n_tokens: n_tokens.min(vocab_size),
            scratch: Scratch::default(),
            scratches: Mutex::default(),
            n_ahead: 0,
            rates: Rates::default(),
            store: None,
            imports: Vec::new(),
            exports: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// Keeps beginnings of prompts in `store` from now on.
    pub fn keep_prefixes(&mut self, store: Arc<PrefixStore>) {
        self.store = Some(store);
    }

    /// The pages of a text's beginning, without pictures and with all adapters, that are in memory.
    pub fn n_held(&self, tokens: &[u32]) -> usize {
        self.blocks.n_held(Chain::default(), tokens)
    }

    /// Gives back pages that were taken for an export.
    pub fn release(&mut self, pages: &[u32]) {
        self.blocks.release_all(pages);
    }

    /// Puts a job at the end of the line and returns its number; refused if the line is full.
    pub fn submit(&mut self, spec: JobSpec) -> Result<u64, rhetor_lm::Error> {
        self.line.admit(self.n_waiting(), self.n_running())?;
        let id = self.next_id;
        self.next_id += 1;
        // What follows a source is never taken for what follows another.
        let root = if spec.source.is_empty() { self.root(&spec) } else { self.blocks.fresh_root() };
        self.jobs.push(Job::new(id, spec, root));
        Ok(id)
    }

    /// The place before the first page of sequences with these adapters and pictures.
    fn root(&mut self, spec: &JobSpec) -> Chain {
        let pictures: Vec<_> = spec.pictures.iter().map(|picture| (picture.first, picture.digest)).collect();
        if spec.adapters == Active::All && pictures.is_empty() {
            return Chain::default();
        }
        let root = (spec.adapters.clone(), pictures);
        let known = self.roots.iter().position(|(known, _)| *known == root);
        let entry = match known {
            Some(i) => self.roots.remove(i),
            None => (root, self.blocks.fresh_root()),
        };
        let chain = entry.1;
        if self.roots.len() == ROOTS_MAX {
            self.roots.remove(0);
        }
        self.roots.push(entry);
        chain
    }

    /// Jobs that have not begun.
    fn n_waiting(&self) -> usize {
        self.jobs.iter().filter(|job| !job.is_over() && !job.has_begun()).count()
    }

    /// Sequences of the jobs that have begun, those to come of them included.
    fn n_running(&self) -> usize {
        self.jobs.iter().filter(|job| job.has_begun()).map(Job::n_wanted).sum()
    }

    /// The jobs whose callers have something to hear.
    pub fn heard(&self) -> impl Iterator<Item = u64> {
        self.jobs.iter().filter(|job| !job.outbox.is_empty() || job.is_over()).map(|job| job.id)
    }

    /// The job of that number, which has not been closed.
    pub fn job(&mut self, id: u64) -> Option<&mut Job> {
        self.jobs.iter_mut().find(|job| job.id == id)
    }

    /// Removes what is no longer wanted and gives its pages back. Only between steps.
    pub fn sweep(&mut self) {
        let now = Instant::now();
        for job in &mut self.jobs {
            job.break_off(now);
            let is_closed = job.is_closed;
            for sequence in job.sequences.iter_mut().filter(|s| is_closed || s.is_done) {
                sequence.put_back(&mut self.blocks);
            }
            job.leave_source(&mut self.blocks);
        }
        self.jobs.retain(|job| !job.is_closed);
    }

    /// Ends every job with an error and forgets the whole cache, whose content is in doubt.
    pub fn fail_all(&mut self, reason: &str) {
        self.blocks = KvBlocks::new(self.blocks.n_pages());
        self.imports.clear();
        self.exports.clear();
        for job in &mut self.jobs {
            for sequence in &mut job.sequences {
                sequence.pages.clear();
                sequence.is_done = true;
            }
            job.source.pages.clear();
            job.outbox.push(Output::Failed(reason.to_string()));
        }
    }

    /// The state of the books.
    pub fn stats(&self) -> Stats {
        let (total, idle) = (self.blocks.n_pages(), self.blocks.n_idle());
        let available = self.blocks.n_available();
        Stats {
            cache_pages_total: total,
            cache_pages_used: total - available,
            cache_pages_idle: idle,
            requests_waiting: self.n_waiting(),
            sequences_running: self.n_running(),
            ..self.stats
        }
    }

    /// How much the books hold.
    #[cfg(test)]
    pub fn sizes(&self) -> Sizes {
        let scratches = self.scratches.lock().expect("nobody panicked").len();
        Sizes { jobs: self.jobs.len(), roots: self.roots.len(), pages: self.blocks.n_known(), scratches }
    }

    /// Chooses the next step. It is empty only if no job wants one.
    pub fn schedule(&mut self) -> Plan {
        loop {
            let mut plan = self.plan();
            if !plan.is_empty() {
                plan.imports = std::mem::take(&mut self.imports);
                return plan;
            }
            if !self.fail_stuck() {
                return plan;
            }
        }
    }

    /// The next step, if any job can move.
    fn plan(&mut self) -> Plan {
        self.sweep();
        self.start_waiting();
        // Sets of adapters take turns: a step runs with one of them.
        let mut sets: Vec<Active> = Vec::new();
        for job in &self.jobs {
            if !sets.contains(&job.adapters) {
                sets.push(job.adapters.clone());
            }
        }
        let last = sets.iter().position(|set| *set == self.last_set);
        sets.rotate_left(last.map_or(0, |last| last + 1));
        for adapters in sets {
            let batch = Batch { adapters, ..Batch::default() };
            let mut plan = Plan { batch, ..Plan::default() };
            self.plan_decodes(&mut plan);
            plan.n_plain = plan.spans.len();
            self.plan_prefills(&mut plan);
            self.ask_for_guesses(&mut plan);
            if !plan.spans.is_empty() {
                self.last_set = plan.batch.adapters.clone();
                return plan;
            }
            debug_assert!(plan.copies.is_empty(), "pages are copied for sequences of the step");
        }
        Plan::default()
    }

    /// Gives pages to sequences that have none, in order, as long as there are enough.
    fn start_waiting(&mut self) {
        let mut n_running = self.n_running();
        let Scheduler { jobs, blocks, stats, line, imports, .. } = self;
        for job in jobs.iter_mut() {
            if !job.has_begun() && !job.is_over() {
                if !line.has_room(job.n_wanted(), n_running) {
                    return;
                }
                n_running += job.n_wanted();
            }
            for i in 0..job.sequences.len() {
                if job.sequences[i].is_done || !job.sequences[i].pages.is_empty() {
                    continue;
                }
                if !job.start(i, blocks) {
                    // Those behind wait too: else a long prompt could wait for ever.
                    return;
                }
                if let Some(run) = job.run.take() {
                    let n_reusable = job.n_reusable(&job.sequences[i]);
                    let filled = job.sequences[i].fill(&run, n_reusable, blocks);
                    stats.tokens_loaded += (filled.len() * PAGE_LEN) as u64;
                    let import = |(at, page)| Import { page, run: run.clone(), at };
                    imports.extend(filled.into_iter().map(import));
                }
                if job.n_cached.is_none() {
                    let n_cached = job.sequences[i].n_computed;
                    job.n_cached = Some(n_cached);
                    stats.tokens_cached += n_cached as u64;
                    let done = n_cached.saturating_sub(job.n_virtual);
                    job.outbox.push(Output::Prefill { done, cached: done });
                }
            }
        }
    }

    /// Adds the next token of every sequence that waits for one, in order.
    fn plan_decodes(&mut self, plan: &mut Plan) {
        for job in 0..self.jobs.len() {
            if self.jobs[job].adapters != plan.batch.adapters {
                continue;
            }
            let n = self.jobs[job].sequences.len();
            let stride = if self.jobs[job].moves_together() { n } else { 1 };
            for first in (0..n).step_by(stride) {
                let unit = first..first + stride;
                if self.is_ready(job, &unit) && self.make_room(job, &unit) {
                    for i in unit {
                        let Scheduler { jobs, blocks, stats, .. } = self;
                        let sequence = &mut jobs[job].sequences[i];
                        if sequence.needs_page(blocks) {
                            let copy = sequence.take_page(blocks);
                            stats.pages_copied += u64::from(copy.is_some());
                            plan.copies.extend(copy);
                        }
                        stats.tokens_decoded += 1;
                        self.plan_span(plan, job, i, 1);
                    }
                }
            }
        }
    }

    /// Whether all sequences of the unit have pages and wait for the logits of their last token, the prompt done.
    fn is_ready(&self, job: usize, unit: &Range<usize>) -> bool {
        let job = &self.jobs[job];
        job.sequences[unit.clone()].iter().all(|sequence| {
            !sequence.is_done
                && !sequence.pages.is_empty()
                && sequence.n_pending() == 1
                && sequence.tokens.len() > job.n_prompt
        })
    }

    /// Makes sure that the unit's next tokens find pages, putting back those that came later; false if the unit itself
    /// had to be put back.
    fn make_room(&mut self, job: usize, unit: &Range<usize>) -> bool {
        loop {
            let sequences = &self.jobs[job].sequences[unit.clone()];
            let n_needed = sequences.iter().filter(|sequence| sequence.needs_page(&self.blocks)).count();
            if n_needed <= self.blocks.n_available() {
                return true;
            }
            let (victim, victims) = self.last_with_pages().expect("the unit itself has pages");
            for sequence in &mut self.jobs[victim].sequences[victims.clone()] {
                sequence.put_back(&mut self.blocks);
            }
            self.jobs[victim].leave_source(&mut self.blocks);
            self.stats.preemptions += 1;
            if victim == job && victims.start == unit.start {
                return false;
            }
        }
    }

    /// The unit that came last of those that hold pages.
    fn last_with_pages(&self) -> Option<(usize, Range<usize>)> {
        self.jobs.iter().enumerate().rev().find_map(|(i, job)| {
            let last = job.sequences.iter().rposition(|sequence| !sequence.pages.is_empty())?;
            Some((i, if job.moves_together() { 0..job.sequences.len() } else { last..last + 1 }))
        })
    }

    /// Fills the step up with parts of prompts.
    fn plan_prefills(&mut self, plan: &mut Plan) {
        let mut waiting = Vec::new();
        let mut leaders = HashSet::new();
        let Scheduler { jobs, blocks, stats, .. } = self;
        let of_set = jobs.iter_mut().enumerate().filter(|(_, job)| job.adapters == plan.batch.adapters);
        for (j, job) in of_set {
            for s in 0..job.sequences.len() {
                let n_reusable = job.n_reusable(&job.sequences[s]);
                let sequence = &mut job.sequences[s];
                if sequence.is_done || sequence.pages.is_empty() {
                    continue;
                }
                let n_shared = sequence.share(blocks, n_reusable);
                if n_shared > 0 {
                    stats.tokens_cached += n_shared as u64;
                    job.n_cached = job.n_cached.map(|n| n + n_shared);
                }
                // Beams that were put back are computed up to their last token; that one they take together.
                let n_left = sequence.n_pending() - usize::from(sequence.tokens.len() > job.n_prompt);
                // What one computes, others with the same beginning find in the next step.
                let is_leader = sequence.next_page(n_reusable).is_none_or(|page| leaders.insert(page));
                if n_left > 0 && is_leader {
                    waiting.push((j, s, n_left));
                }
            }
        }
        // Those who are being answered wait for the whole step: it stays short while there are any.
        let budget = if plan.spans.is_empty() { self.chunk } else { self.chunk.div_ceil(4) };
        for (job, sequence, share) in shares(waiting, budget) {
            let len = self.limit_outputs(job, sequence, share);
            self.stats.tokens_prefilled += len as u64;
            self.plan_span(plan, job, sequence, len);
        }
    }

    /// Shortens a part of a text that is scored so that the logits of its rows fit into the memory set aside.
    fn limit_outputs(&self, job: usize, sequence: usize, len: usize) -> usize {
        let Goal::Score { from } = self.jobs[job].goal else { return len };
        let n_silent = (from - 1).saturating_sub(self.jobs[job].sequences[sequence].n_computed);
        len.min(n_silent + (LOGITS_MAX / self.vocab_size).max(1))
    }

    /// Adds `len` tokens of a sequence to the step.
    fn plan_span(&mut self, plan: &mut Plan, job: usize, sequence: usize, len: usize) {
        let (j, s) = (job, sequence);
        let job = &mut self.jobs[j];
        if !std::mem::replace(&mut job.source.is_read, true) && !job.source.tokens.is_empty() {
            plan.sources.tokens.extend_from_slice(&job.source.tokens);
            plan.sources.passages.push(vec![job.source.tokens.len()]);
            plan.tables.push(job.source.pages.clone());
            self.stats.tokens_prefilled += job.source.tokens.len() as u64;
        }
        let job = &self.jobs[j];
        let sequence = &job.sequences[s];
        let start = sequence.n_computed;
        let end = start + len;
        let wanted = match job.goal {
            // Row i speaks about token i + 1; the last row of a scored text speaks about nothing.
            Goal::Score { from } => (from - 1).max(start)..end.min(sequence.tokens.len() - 1),
            Goal::Sample { .. } | Goal::Beam { .. } => sequence.tokens.len() - 1..end,
        };
        let row = plan.batch.tokens.len();
        let first_output = plan.batch.outputs.len();
        plan.batch.outputs.extend(wanted.map(|position| row + position - start));
        plan.batch.tokens.extend_from_slice(&sequence.tokens[start..end]);
        plan.batch
            .embedded
            .extend(job.pictures.iter().filter_map(|picture| picture.part(&(start..end), row)));
        plan.batch.spans.push(SequenceSpan {
            pages: sequence.pages.clone(),
            start,
            len,
            source_pages: job.source.pages.clone(),
            source_len: job.source.tokens.len(),
            ..SequenceSpan::default()
        });
        plan.spans.push(PlannedSpan {
            job: j,
            sequence: s,
            n_computed: end,
            outputs: first_output..plan.batch.outputs.len(),
            id: matches!(job.goal, Goal::Sample { .. })
                .then_some(SequenceId { job: job.id, index: sequence.index }),
            proposal: Proposal::default(),
        });
    }

    /// A job that can never move would make everybody wait: it fails instead. False if no job is left to move.
    fn fail_stuck(&mut self) -> bool {
        let stuck = self.jobs.iter_mut().find(|job| !job.is_over());
        // Pages on their way to the disk must be in nobody's way: they are given up.
        if stuck.is_some() && !self.exports.is_empty() {
            for export in std::mem::take(&mut self.exports) {
                self.blocks.release_all(&export.pages[export.n_read..]);
            }
            return true;
        }
        if let Some(job) = stuck {
            job.fail("its tokens do not fit into the cache".to_string());
            return true;
        }
        false
    }

    /// Takes the logits of a step, `[plan.batch.outputs.len(), V]`, and moves every sequence of it on.
    pub fn postprocess(&mut self, plan: &Plan, logits: &[f32]) {
        self.stats.steps += 1;
        let rows: Vec<&[f32]> = logits.chunks_exact(self.vocab_size).collect();
        let (mut beams, mut choices) = (Vec::new(), Choices::default());
        for span in &plan.spans {
            let Scheduler { jobs, blocks, .. } = self;
            let job = &mut jobs[span.job];
            let sequence = &mut job.sequences[span.sequence];
            let was_prompt = sequence.n_computed < job.n_prompt;
            sequence.computed(span.n_computed, blocks);
            if was_prompt && sequence.index == 0 {
                let tokens = |n: usize| n.min(job.n_prompt).saturating_sub(job.n_virtual);
                let (done, cached) = (tokens(span.n_computed), tokens(job.n_cached.unwrap_or(0)));
                job.outbox.push(Output::Prefill { done, cached });
            }
            if was_prompt && span.n_computed >= job.n_prompt {
                let claim = job.digests.take().and_then(|digests| self.store.as_ref()?.claim(&digests));
                self.exports.extend(claim.map(|claim| {
                    let pages = sequence.pages[claim.first..claim.end()].to_vec();
                    pages.iter().for_each(|&page| blocks.retain(page));
                    Export { claim, pages, n_read: 0, bytes: Vec::new() }
                }));
            }
            if sequence.is_done || job.is_closed {
                continue;
            }
            let own_rows = &rows[span.outputs.clone()];
            match job.goal {
                Goal::Score { .. } => self.score(span, own_rows),
                Goal::Sample { .. } if !span.proposal.guess.tokens.is_empty() => self.verify(span, own_rows),
                Goal::Sample { .. } if !own_rows.is_empty() => {
                    let chosen = self.chosen(span);
                    choices.add(span.job, chosen, own_rows[0]);
                }
                // Beams stand together in the plan; the first one speaks for all.
                Goal::Beam { .. } if !own_rows.is_empty() && span.sequence == 0 => beams.push(span),
                Goal::Sample { .. } | Goal::Beam { .. } => {}
            }
        }
        choices.make(&mut self.jobs, self.n_tokens, &self.scratches);
        for span in beams {
            let n = self.jobs[span.job].sequences.len();
            self.advance_beams(span.job, &rows[span.outputs.start..span.outputs.start + n]);
        }
        self.sweep();
    }

    /// Reports how likely the tokens after the span's rows were.
    fn score(&mut self, span: &PlannedSpan, rows: &[&[f32]]) {
        let job = &mut self.jobs[span.job];
        let sequence = &mut job.sequences[span.sequence];
        // The last row speaks about the token after the span, or, at the end of the text, about its last token.
        let end = (span.n_computed + 1).min(sequence.tokens.len());
        let targets = &sequence.tokens[end - rows.len()..end];
        let picks =
            rows.iter().zip(targets).map(|(row, &id)| logprob::pick(row, id, self.n_tokens, job.n_top));
        job.outbox.push(Output::Scores(picks.collect()));
        sequence.is_done = sequence.n_pending() == 0;
    }

    /// The sequences whose next tokens the logits of a span choose; after a prompt, all the job's completions.
    fn chosen(&mut self, span: &PlannedSpan) -> Vec<usize> {
        let job = &mut self.jobs[span.job];
        let Goal::Sample { sampling, seed, n, .. } = &job.goal else { unreachable!("checked by the caller") };
        if let Some(Err(reason)) = job.sequences[span.sequence].constraint.as_mut().map(State::mask) {
            job.fail(reason);
            return Vec::new();
        }
        let mut chosen = vec![span.sequence];
        if job.sequences.len() < *n {
            for index in 1..*n {
                let sampler = Sampler::new(sampling.clone(), *seed, index);
                let fork = job.sequences[0].fork(index, Some(sampler), &mut self.blocks);
                chosen.push(job.sequences.len());
                job.sequences.push(fork);
            }
        }
        chosen
    }

    /// Moves a beam search on by one token.
    fn advance_beams(&mut self, job: usize, rows: &[&[f32]]) {
        let Scheduler { jobs, blocks, scratch, n_tokens, .. } = self;
        let job = &mut jobs[job];
        let Job { sequences, beam, n_prompt, n_virtual, n_top, breakers, outbox, .. } = job;
        let masks = sequences.iter_mut().map(|s| s.constraint.as_mut().map(State::mask).transpose());
        let masks = match masks.collect::<Result<Vec<_>, String>>() {
            Ok(masks) => masks,
            Err(reason) => return job.fail(reason),
        };
        let (n_virtual, n_prompt) = (*n_virtual, *n_prompt - *n_virtual);
        let pasts: Vec<Past<'_>> = sequences
            .iter()
            .map(|sequence| Past { tokens: &sequence.tokens[n_virtual..], n_prompt, breakers })
            .collect();
        let beam = beam.as_mut().expect("checked by the caller");
        match beam.advance(rows, &pasts, &masks, (*n_tokens, *n_top), scratch) {
            Advance::Continue(next) => {
                let mut forks = Vec::new();
                let mut refused = None;
                for (index, (parent, token)) in next.into_iter().enumerate() {
                    let mut fork = sequences[parent].fork(index, None, blocks);
                    fork.tokens.push(token);
                    let committed = fork.constraint.as_mut().map(|state| state.commit(token)).transpose();
                    refused = refused.or(committed.err());
                    forks.push(fork);
                }
                for sequence in sequences.iter_mut() {
                    sequence.put_back(blocks);
                }
                *sequences = forks;
                if let Some(reason) = refused {
                    job.fail(reason);
                }
            }
            Advance::Done(best) => {
                if best.is_empty() {
                    return job.fail("no token that may follow has a finite logit".to_string());
                }
                for (index, (reason, picks)) in best.into_iter().enumerate() {
                    outbox.extend(picks.into_iter().map(|pick| Output::Token { index, pick }));
                    outbox.push(Output::Finished { index, reason });
                }
                sequences.iter_mut().for_each(|sequence| sequence.is_done = true);
            }
        }
    }
}

/// What each of `waiting` (job, sequence, tokens left, in order of arrival) gets of `budget` tokens.
///
/// The first in line has half of them, so that no prompt waits for ever; the other half goes to those with the fewest
/// tokens left, so that a short prompt does not wait for a long one.
fn shares(mut waiting: Vec<(usize, usize, usize)>, budget: usize) -> Vec<(usize, usize, usize)> {
    let Some(first) = waiting.first_mut() else { return waiting };
    let n_first = first.2.min(budget.div_ceil(2).max(PAGE_LEN.min(budget)));
    let mut rest = budget - n_first;
    let wanted = std::mem::replace(&mut first.2, n_first) - n_first;
    waiting[1..].sort_by_key(|(_, _, n_left)| *n_left);
    for (_, _, n_left) in &mut waiting[1..] {
        *n_left = rest.min(*n_left);
        rest -= *n_left;
    }
    waiting[0].2 += rest.min(wanted);
    waiting.retain(|(_, _, share)| *share > 0);
    waiting
}
