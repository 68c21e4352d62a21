//! A list of tokens that grows, and the pages that hold its keys and values; and the job that it belongs to.

use crate::constraint::State;
use crate::kv_blocks::{Chain, KvBlocks};
use crate::prefix_store::{Digest, Run};
use crate::sampling::Sampler;
use crate::search::beam::Beam;
use crate::search::speculative::Rates;
use rhetor_kernels::kv::PAGE_LEN;
use rhetor_lm::{Cancel, FinishReason, Sampling};
use rhetor_models::{Active, Embedded};
use rhetor_tensor::{Tensor, ops};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// What is asked of the engine, in tokens.
#[derive(Debug, Clone)]
pub(crate) struct JobSpec {
    /// What an encoder reads before; empty for a model without one.
    pub source: Arc<[u32]>,
    /// The tokens to continue or to score, after a placeholder for each virtual position; never empty.
    pub prompt: Vec<u32>,
    /// Virtual positions at the head of the prompt.
    pub n_virtual: usize,
    /// What takes the place of some of the tokens' embeddings.
    pub pictures: Vec<Picture>,
    /// The adapters that are on.
    pub adapters: Active,
    /// What is to be done with them.
    pub goal: Goal,
    /// Where the answer begins in its grammar, if it must follow one.
    pub constraint: Option<State>,
    /// Report this many alternatives for each token.
    pub n_top: usize,
    /// By token id: whether it ends the repeats that DRY looks for. Empty = none does.
    pub breakers: Arc<[bool]>,
    /// The most tokens guessed ahead in a step; `None` = as many as the engine does.
    pub speculate: Option<usize>,
    /// When it ends, finished or not.
    pub deadline: Option<Instant>,
    /// Raised when nobody waits for it any more.
    pub cancel: Cancel,
    /// What was on disk of the prompt's beginning.
    pub run: Option<Arc<Run>>,
    /// What the prompt's pages are called there, if they may be kept.
    pub digests: Option<Arc<[Digest]>>,
}

impl JobSpec {
    /// Whether keys and values of the prompt depend on nothing but its tokens and the model.
    pub fn is_plain(&self) -> bool {
        let is_plain = self.source.is_empty() && self.pictures.is_empty() && self.n_virtual == 0;
        is_plain && self.adapters == Active::All && !matches!(self.goal, Goal::Score { .. })
    }
}

/// The rows of a picture among a prompt's tokens.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    /// The position of the first.
    pub first: usize,
    /// [R, D]
    pub rows: Tensor,
    /// The SHA-256 of its file: keys and values of one picture are never taken for those of another.
    pub digest: [u8; 32],
}

impl Picture {
    /// Those of its rows that stand at `positions`, as rows of a batch whose row `row` is the first of these positions.
    pub fn part(&self, positions: &Range<usize>, row: usize) -> Option<Embedded> {
        let own = positions.start.max(self.first)..positions.end.min(self.first + self.rows.n_rows());
        let rows: Vec<usize> = own.clone().map(|position| position - self.first).collect();
        let first = || row + own.start - positions.start;
        (!rows.is_empty()).then(|| Embedded { first: first(), rows: ops::rows::rows(&self.rows, &rows) })
    }
}

/// What is to be done with the tokens of a job.
#[derive(Debug, Clone)]
pub(crate) enum Goal {
    /// `n` continuations, each drawn with its own random stream.
    Sample { sampling: Arc<Sampling>, seed: u64, n: usize, ending: Ending },
    /// The best continuations by beam search.
    Beam { sampling: Arc<Sampling>, width: usize, n: usize, ending: Ending },
    /// How likely each token from this position on is, given those before it; the position is at least 1.
    Score { from: usize },
}

impl Goal {
    /// The tokens that end a continuation, sorted.
    pub fn stops(&self) -> Arc<[u32]> {
        match self {
            Goal::Sample { ending, .. } | Goal::Beam { ending, .. } => ending.stops.clone(),
            Goal::Score { .. } => Arc::default(),
        }
    }
}

/// When a continuation ends.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    /// Tokens that end it, sorted.
    pub stops: Arc<[u32]>,
    /// The most tokens that are generated; at least 1.
    pub max_tokens: usize,
}

impl Ending {
    /// Why a continuation of `n` tokens ends with `token`, if it does.
    pub fn reached(&self, token: u32, n: usize) -> Option<FinishReason> {
        if self.stops.binary_search(&token).is_ok() {
            Some(FinishReason::Stop)
        } else if n >= self.max_tokens {
            Some(FinishReason::Length)
        } else {
            None
        }
    }
}

/// A token that was chosen or scored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pick {
    /// Its id.
    pub id: u32,
    /// Natural logarithm of its probability in the model's own distribution.
    pub logprob: f32,
    /// Whether no other token was more likely.
    pub is_greedy: bool,
    /// Whether a constraint forbade at least one other.
    pub is_constrained: bool,
    /// The most likely alternatives, most likely first.
    pub top: Vec<(u32, f32)>,
}

/// What a job reports, in the order found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    /// Prompt tokens computed, cached ones included.
    Prefill { done: usize, cached: usize },
    /// Completion `index` grew by a token.
    Token { index: usize, pick: Pick },
    /// In a step that brought completion `index` further, so many tokens had been guessed, and so many of them right.
    Guessed { index: usize, drafted: usize, accepted: usize },
    /// Completion `index` is complete.
    Finished { index: usize, reason: FinishReason },
    /// Tokens of a text that is scored, in order.
    Scores(Vec<Pick>),
    /// The job failed; nothing follows.
    Failed(String),
}

/// A list of tokens that grows.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Which completion of its job.
    pub index: usize,
    /// Prompt and generated tokens.
    pub tokens: Vec<u32>,
    /// Tokens whose keys and values are in the pages.
    pub n_computed: usize,
    /// Pages, in order. Empty = not started, or put back.
    pub pages: Vec<u32>,
    /// How many of the pages are registered for other sequences to find.
    n_registered: usize,
    /// The place before the first page: one for each set of adapters and of pictures, and one for each job with a
    /// source.
    root: Chain,
    /// The place after the last registered page.
    chain: Chain,
    /// Chooses the next token, unless the job does.
    pub sampler: Option<Sampler>,
    /// How often guesses of its tokens were right.
    pub rates: Rates,
    /// How far the answer has come in its grammar, if it must follow one.
    pub constraint: Option<State>,
    /// Whether nothing more is wanted.
    pub is_done: bool,
}

impl Sequence {
    /// A sequence that has not begun.
    pub fn new(
        index: usize,
        tokens: Vec<u32>,
        sampler: Option<Sampler>,
        constraint: Option<State>,
        root: Chain,
    ) -> Sequence {
        Sequence {
            index,
            tokens,
            n_computed: 0,
            pages: Vec::new(),
            n_registered: 0,
            root,
            chain: root,
            sampler,
            rates: Rates::default(),
            constraint,
            is_done: false,
        }
    }

    /// Tokens whose keys and values are still to be computed.
    pub fn n_pending(&self) -> usize {
        self.tokens.len() - self.n_computed
    }

    /// Takes pages for all tokens, cached ones first, of which at most `n_reusable` tokens; false if there are too few.
    pub fn start(&mut self, blocks: &mut KvBlocks, n_reusable: usize) -> bool {
        let (mut pages, chain) = blocks.take_prefix(self.root, &self.tokens[..n_reusable]);
        let n_cached = pages.len();
        let n_pages = self.tokens.len().div_ceil(PAGE_LEN);
        if blocks.n_available() < n_pages - n_cached {
            blocks.release_all(&pages);
            return false;
        }
        pages.extend((n_cached..n_pages).map(|_| blocks.allocate().expect("counted above")));
        self.pages = pages;
        self.chain = chain;
        self.n_registered = n_cached;
        self.n_computed = n_cached * PAGE_LEN;
        true
    }

    /// Puts pages that others have computed meanwhile in the place of its own empty ones, at most `n_reusable` tokens;
    /// returns the tokens gained.
    pub fn share(&mut self, blocks: &mut KvBlocks, n_reusable: usize) -> usize {
        let before = self.n_computed;
        while let Some((chain, tokens)) = self.next_page(n_reusable) {
            let Some((page, next)) = blocks.find(chain, &tokens) else { break };
            blocks.retain(page);
            blocks.release(std::mem::replace(&mut self.pages[self.n_registered], page));
            self.chain = next;
            self.n_registered += 1;
            self.n_computed += PAGE_LEN;
        }
        self.n_computed - before
    }

    /// The page to be computed next and the place before it, if it is a whole one of the first `n_reusable` tokens.
    pub fn next_page(&self, n_reusable: usize) -> Option<(Chain, Box<[u32]>)> {
        let at = self.n_computed;
        let is_whole = at == self.n_registered * PAGE_LEN && at + PAGE_LEN <= n_reusable;
        is_whole.then(|| (self.chain, Box::from(&self.tokens[at..at + PAGE_LEN])))
    }

    /// Takes what was read from the disk as computed, at most `n_reusable` tokens; returns which of its pages belong
    /// where.
    pub fn fill(&mut self, run: &Run, n_reusable: usize, blocks: &mut KvBlocks) -> Vec<(usize, u32)> {
        let from = self.n_registered;
        let end = (run.first + run.n_pages()).min(n_reusable / PAGE_LEN);
        if run.first > from || end <= from {
            return Vec::new();
        }
        self.computed(end * PAGE_LEN, blocks);
        (from..end).map(|i| (i - run.first, self.pages[i])).collect()
    }

    /// Gives all pages back; they stay findable as long as their room is not needed.
    pub fn put_back(&mut self, blocks: &mut KvBlocks) {
        blocks.release_all(&self.pages);
        self.pages.clear();
        self.n_computed = 0;
        self.n_registered = 0;
        self.chain = self.root;
    }

    /// Whether the next token to be computed, the last, needs a page that is not there yet or is used by others too.
    pub fn needs_page(&self, blocks: &KvBlocks) -> bool {
        match self.pages.get(self.n_computed / PAGE_LEN) {
            None => true,
            Some(&page) => blocks.is_shared(page),
        }
    }

    /// Takes the page that [`Sequence::needs_page`] speaks of; returns what must be copied first, (from, to).
    pub fn take_page(&mut self, blocks: &mut KvBlocks) -> Option<(u32, u32)> {
        let new = blocks.allocate().expect("the scheduler made room");
        match self.pages.get_mut(self.n_computed / PAGE_LEN) {
            None => {
                self.pages.push(new);
                None
            }
            Some(page) => {
                let old = std::mem::replace(page, new);
                blocks.release(old);
                Some((old, new))
            }
        }
    }

    /// Notes that the tokens before `n_computed` are computed, and registers the pages that became full.
    pub fn computed(&mut self, n_computed: usize, blocks: &mut KvBlocks) {
        self.n_computed = n_computed;
        while (self.n_registered + 1) * PAGE_LEN <= n_computed {
            let at = self.n_registered * PAGE_LEN;
            let page = self.pages[self.n_registered];
            self.chain = blocks.register(page, self.chain, &self.tokens[at..at + PAGE_LEN]);
            self.n_registered += 1;
        }
    }

    /// Takes pages for `n` tokens beyond the last, as far as there are some to be had; returns for how many there is room.
    pub fn reserve(&mut self, n: usize, blocks: &mut KvBlocks) -> usize {
        let n_pages = (self.tokens.len() + n).div_ceil(PAGE_LEN);
        while self.pages.len() < n_pages
            && let Some(page) = blocks.allocate()
        {
            self.pages.push(page);
        }
        n.min(self.pages.len() * PAGE_LEN - self.tokens.len())
    }

    /// A second sequence with the same past on the same pages, at the same place of its grammar.
    pub fn fork(&self, index: usize, sampler: Option<Sampler>, blocks: &mut KvBlocks) -> Sequence {
        for &page in &self.pages {
            blocks.retain(page);
        }
        Sequence {
            index,
            tokens: self.tokens.clone(),
            n_computed: self.n_computed,
            pages: self.pages.clone(),
            n_registered: self.n_registered,
            root: self.root,
            chain: self.chain,
            sampler,
            rates: Rates::default(),
            constraint: self.constraint.clone(),
            is_done: false,
        }
    }
}

/// What an encoder reads for a job, and the pages that hold what its decoder sees of it.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its tokens; empty if there is none.
    pub tokens: Arc<[u32]>,
    /// Pages, as long as a sequence of the job has some.
    pub pages: Vec<u32>,
    /// Whether the pages are written.
    pub is_read: bool,
}

impl Source {
    /// Takes pages for all tokens if it has none; false if there are too few.
    fn start(&mut self, blocks: &mut KvBlocks) -> bool {
        let n_pages = self.tokens.len().div_ceil(PAGE_LEN);
        if self.pages.is_empty() && blocks.n_available() >= n_pages {
            self.pages.extend((0..n_pages).map(|_| blocks.allocate().expect("counted above")));
        }
        self.pages.len() == n_pages
    }
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct Job {
    /// Unique, growing with arrival.
    pub id: u64,
    /// Tokens of the prompt, virtual positions included.
    pub n_prompt: usize,
    /// See [`JobSpec::n_virtual`].
    pub n_virtual: usize,
    /// See [`JobSpec::pictures`].
    pub pictures: Vec<Picture>,
    /// The adapters that are on.
    pub adapters: Active,
    /// What all its sequences read.
    pub source: Source,
    /// What is to be done.
    pub goal: Goal,
    /// Alternatives reported for each token.
    pub n_top: usize,
    /// See [`JobSpec::breakers`].
    pub breakers: Arc<[bool]>,
    /// See [`JobSpec::speculate`].
    pub speculate: Option<usize>,
    /// One until the prompt is computed; then one for each completion or beam.
    pub sequences: Vec<Sequence>,
    /// The beams, if the goal is beam search.
    pub beam: Option<Beam>,
    /// What the caller has not collected yet.
    pub outbox: Vec<Output>,
    /// See [`JobSpec::deadline`].
    pub deadline: Option<Instant>,
    /// See [`JobSpec::cancel`].
    pub cancel: Cancel,
    /// See [`JobSpec::run`]; until it begins.
    pub run: Option<Arc<Run>>,
    /// See [`JobSpec::digests`]; until the prompt is computed.
    pub digests: Option<Arc<[Digest]>>,
    /// Prompt tokens that were found in the cache at the first start.
    pub n_cached: Option<usize>,
    /// Whether the caller has left.
    pub is_closed: bool,
}

impl Job {
    /// A job that has not begun.
    ///
    /// `root` is the place before the first page of sequences with its adapters and its source.
    pub fn new(id: u64, spec: JobSpec, root: Chain) -> Job {
        let n_prompt = spec.prompt.len();
        let sampler = match &spec.goal {
            Goal::Sample { sampling, seed, .. } => Some(Sampler::new(sampling.clone(), *seed, 0)),
            Goal::Beam { .. } | Goal::Score { .. } => None,
        };
        let beam = match &spec.goal {
            Goal::Beam { sampling, width, n, ending } => {
                Some(Beam::new(*width, *n, sampling.clone(), ending.clone()))
            }
            Goal::Sample { .. } | Goal::Score { .. } => None,
        };
        Job {
            id,
            n_prompt,
            n_virtual: spec.n_virtual,
            pictures: spec.pictures,
            adapters: spec.adapters,
            source: Source { tokens: spec.source, pages: Vec::new(), is_read: false },
            goal: spec.goal,
            n_top: spec.n_top,
            breakers: spec.breakers,
            speculate: spec.speculate,
            sequences: vec![Sequence::new(0, spec.prompt, sampler, spec.constraint, root)],
            beam,
            outbox: Vec::new(),
            deadline: spec.deadline,
            cancel: spec.cancel,
            run: spec.run,
            digests: spec.digests,
            n_cached: None,
            is_closed: false,
        }
    }

    /// Whether nothing more is wanted of any of its sequences.
    pub fn is_over(&self) -> bool {
        self.is_closed || self.sequences.iter().all(|sequence| sequence.is_done)
    }

    /// Whether it was given pages before; it may have been put back since.
    pub fn has_begun(&self) -> bool {
        self.n_cached.is_some()
    }

    /// Sequences that it has, or will have once its prompt is computed, and that are not complete.
    pub fn n_wanted(&self) -> usize {
        let n_done = self.sequences.iter().filter(|sequence| sequence.is_done).count();
        let n = match self.goal {
            Goal::Sample { n, .. } => n,
            Goal::Beam { width, .. } => width,
            Goal::Score { .. } => 1,
        };
        if self.is_over() { 0 } else { n.max(self.sequences.len()) - n_done }
    }

    /// Ends it if its caller has cancelled it or its time is over.
    pub fn break_off(&mut self, now: Instant) {
        let reason = match self.deadline {
            _ if self.cancel.is_cancelled() => FinishReason::Cancelled,
            Some(deadline) if deadline <= now => FinishReason::Deadline,
            _ => return,
        };
        if self.is_over() {
            return;
        }
        let n = match self.goal {
            Goal::Sample { n, .. } | Goal::Beam { n, .. } => n,
            Goal::Score { .. } => 1,
        };
        let is_beam = self.moves_together();
        // Beams are no completions before the search is over; completions that are not there yet end too.
        let is_complete = |index| !is_beam && self.sequences.iter().any(|s| s.index == index && s.is_done);
        let open = (0..n).filter(|&index| !is_complete(index));
        self.outbox.extend(open.map(|index| Output::Finished { index, reason }));
        self.sequences.iter_mut().for_each(|sequence| sequence.is_done = true);
    }

    /// Gives sequence `i` pages, and the source too if it has none; false if there are too few.
    pub fn start(&mut self, i: usize, blocks: &mut KvBlocks) -> bool {
        let n_reusable = self.n_reusable(&self.sequences[i]);
        let is_started = self.source.start(blocks) && self.sequences[i].start(blocks, n_reusable);
        if !is_started {
            self.leave_source(blocks);
        }
        is_started
    }

    /// Gives the source's pages back once no sequence has any.
    pub fn leave_source(&mut self, blocks: &mut KvBlocks) {
        if self.sequences.iter().all(|sequence| sequence.pages.is_empty()) {
            blocks.release_all(&self.source.pages);
            self.source.pages.clear();
            self.source.is_read = false;
        }
    }

    /// Ends it with an error.
    pub fn fail(&mut self, reason: String) {
        self.outbox.push(Output::Failed(reason));
        self.sequences.iter_mut().for_each(|sequence| sequence.is_done = true);
    }

    /// Whether all its sequences must be computed in the same step.
    pub fn moves_together(&self) -> bool {
        self.beam.is_some()
    }

    /// Leading tokens whose logits are not wanted, so that their pages may come from the cache.
    pub fn n_reusable(&self, sequence: &Sequence) -> usize {
        match self.goal {
            Goal::Score { from } => from - 1,
            Goal::Sample { .. } | Goal::Beam { .. } => sequence.tokens.len() - 1,
        }
    }
}
