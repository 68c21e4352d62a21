//! The next tokens of a step, chosen side by side: 64 answers draw from 64 vocabularies.

use crate::constraint::State;
use crate::logprob;
use crate::sampling::{Past, Scratch};
use crate::sequence::{Goal, Job, Output};
use rhetor_kernels::threads;
use rhetor_lm::FinishReason;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The tokens to be chosen after a step: by job, the sequences and the logits `[V]` that each is chosen from.
#[derive(Debug, Default)]
pub(crate) struct Choices<'a> {
    of_jobs: BTreeMap<usize, Vec<(usize, &'a [f32])>>,
}

impl<'a> Choices<'a> {
    /// Job `job` wants a token for each of `sequences`, chosen from `row`.
    pub fn add(&mut self, job: usize, sequences: Vec<usize>, row: &'a [f32]) {
        self.of_jobs.entry(job).or_default().extend(sequences.into_iter().map(|sequence| (sequence, row)));
    }

    /// Chooses all, of the first `n_tokens` tokens, jobs side by side. No job sees another: the threads do not matter.
    ///
    /// `scratches`: buffers to be used again.
    pub fn make(mut self, jobs: &mut [Job], n_tokens: usize, scratches: &Mutex<Vec<Scratch>>) {
        let jobs = jobs.iter_mut().enumerate();
        let parts: Vec<Mutex<_>> =
            jobs.filter_map(|(i, job)| Some(Mutex::new((job, self.of_jobs.remove(&i)?)))).collect();
        let spare = || scratches.lock().unwrap_or_else(PoisonError::into_inner);
        threads::run(parts.len(), |i| {
            let mut part = parts[i].lock().unwrap_or_else(PoisonError::into_inner);
            let (job, choices) = &mut *part;
            let mut scratch = spare().pop().unwrap_or_default();
            for (sequence, row) in choices {
                choose(job, *sequence, row, n_tokens, &mut scratch);
            }
            spare().push(scratch);
        });
    }
}

/// Chooses the next token of a sequence of `job`.
pub(crate) fn choose(job: &mut Job, sequence: usize, row: &[f32], n_tokens: usize, scratch: &mut Scratch) {
    let Job { sequences, goal, n_prompt, n_virtual, n_top, breakers, outbox, .. } = job;
    let Goal::Sample { ending, .. } = goal else { unreachable!("checked by the caller") };
    let sequence = &mut sequences[sequence];
    let mask = match sequence.constraint.as_mut().map(State::mask).transpose() {
        Ok(mask) => mask,
        Err(reason) => return job.fail(reason),
    };
    let past = Past { tokens: &sequence.tokens[*n_virtual..], n_prompt: *n_prompt - *n_virtual, breakers };
    let sampler = sequence.sampler.as_mut().expect("sampled sequences have a sampler");
    let row_of_text = &row[..n_tokens];
    let Some(id) = sampler.next_of(row_of_text, mask.as_deref(), &past, scratch) else {
        return job.fail("no token that may follow has a finite logit".to_string());
    };
    sequence.tokens.push(id);
    let mut pick = logprob::pick(row, id, n_tokens, *n_top);
    pick.is_constrained = mask.is_some_and(|mask| !mask.allows_all());
    outbox.push(Output::Token { index: sequence.index, pick });
    let mut is_complete = false;
    if let Some(state) = &mut sequence.constraint {
        if let Err(reason) = state.commit(id) {
            return job.fail(reason);
        }
        is_complete = state.is_complete();
    }
    let ended = ending.reached(id, sequence.tokens.len() - *n_prompt);
    if let Some(reason) = if is_complete { Some(FinishReason::Stop) } else { ended } {
        outbox.push(Output::Finished { index: sequence.index, reason });
        sequence.is_done = true;
    }
}
