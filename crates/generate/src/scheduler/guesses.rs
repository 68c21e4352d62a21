//! Guesses in a step: whose next tokens are guessed, the rows that check them, and what becomes of these.

use super::{LOGITS_MAX, Plan, PlannedSpan, Scheduler};
use crate::search::speculative::{Asked, Proposal, SequenceId, Speculator};
use crate::sequence::{Goal, Output};
use rhetor_tensor::Tensor;

impl Scheduler {
    /// From now on at most `n` tokens of each sequence are guessed in a step.
    pub fn speculate(&mut self, n: usize) {
        self.n_ahead = n;
    }

    /// Notes which sequences of the step may be guessed ahead, and takes pages for that if there are some to spare.
    pub(super) fn ask_for_guesses(&mut self, plan: &mut Plan) {
        // The rows of guesses have logits too, and these have a limit.
        let n_rows = (LOGITS_MAX / self.vocab_size).saturating_sub(plan.batch.outputs.len());
        let n_each = self.n_ahead.min(n_rows / plan.n_plain.max(1));
        if n_each == 0 {
            return;
        }
        let Scheduler { jobs, blocks, rates, .. } = self;
        for (i, span) in plan.spans[..plan.n_plain].iter().enumerate() {
            let job = &mut jobs[span.job];
            let Goal::Sample { ending, .. } = &job.goal else { continue };
            let sequence = &mut job.sequences[span.sequence];
            // The step itself brings one token.
            let n_left = ending.max_tokens - (sequence.tokens.len() - job.n_prompt) - 1;
            let n_wanted = job.speculate.unwrap_or(n_each).min(n_each).min(n_left);
            if n_wanted == 0 {
                continue;
            }
            let n_max = sequence.reserve(n_wanted, blocks);
            plan.batch.spans[i].pages.clone_from(&sequence.pages);
            let tokens = job.source.tokens.iter().chain(&sequence.tokens[job.n_virtual..]).copied();
            plan.asked.push(Asked {
                sequence: SequenceId { job: job.id, index: sequence.index },
                tokens: tokens.collect(),
                n_max,
                chances: sequence.rates.chances(rates),
                span: i,
            });
        }
    }

    /// Compares what was chosen after a step with what had been guessed.
    pub(super) fn settle(&mut self, span: &PlannedSpan) {
        let Proposal { guess, n_used } = &span.proposal;
        let Scheduler { jobs, blocks, stats, rates, .. } = self;
        let job = &mut jobs[span.job];
        let sequence = &mut job.sequences[span.sequence];
        let mut n_accepted = 0;
        // A guess that was not computed is compared all the same: it shows for nothing whether guesses are right.
        let guessed = guess.tokens.iter().zip(&guess.classes).enumerate();
        for ((i, (token, class)), chosen) in guessed.zip(&sequence.tokens[span.n_computed..]) {
            let is_right = chosen == token;
            sequence.rates.learn(*class, is_right);
            rates.learn(*class, is_right);
            if !is_right {
                break;
            }
            n_accepted += usize::from(i < *n_used);
        }
        if *n_used == 0 {
            return;
        }
        // Keys and values of wrong guesses stay where they are until the right tokens overwrite them.
        sequence.computed(span.n_computed + n_accepted, blocks);
        let (index, drafted, accepted) = (sequence.index, *n_used, n_accepted);
        job.outbox.push(Output::Guessed { index, drafted, accepted });
        stats.tokens_drafted += drafted as u64;
        stats.tokens_accepted += accepted as u64;
        stats.tokens_decoded += accepted as u64;
    }
}

impl Plan {
    /// Whether the step reads no prompts, so that its time tells what its rows cost.
    pub fn only_decodes(&self) -> bool {
        self.n_plain == self.spans.len() && self.tables.is_empty()
    }

    /// Shows a drafter what the model has made of the rows of sequences that may be guessed ahead. features: [T, F]
    pub fn show(&self, features: &Tensor, speculator: &mut Speculator) {
        let mut row = 0;
        for (span, planned) in self.batch.spans.iter().zip(&self.spans) {
            if let Some(id) = planned.id {
                let rows: Vec<&[f32]> = (row..row + span.len).map(|row| features.row(row)).collect();
                speculator.see(id, span.start, &rows);
            }
            row += span.len;
        }
    }

    /// Adds rows for guesses: one proposal for each of [`Plan::asked`].
    pub fn add_guesses(&mut self, proposals: Vec<Proposal>) {
        for (asked, proposal) in self.asked.iter().zip(proposals) {
            self.spans[asked.span].proposal = proposal;
        }
        let old = std::mem::take(&mut self.batch.tokens);
        let (mut first, mut n_added) = (0, 0);
        let mut rows = std::mem::take(&mut self.batch.outputs).into_iter();
        let embedded = &mut self.batch.embedded;
        for (span, planned) in self.batch.spans.iter_mut().zip(&mut self.spans) {
            let end = first + span.len;
            for given in embedded.iter_mut().filter(|given| (first..end).contains(&(given.first - n_added))) {
                given.first += n_added;
            }
            self.batch.tokens.extend_from_slice(&old[first..end]);
            let first_output = self.batch.outputs.len();
            let own = rows.by_ref().take(planned.outputs.len());
            self.batch.outputs.extend(own.map(|row| row + n_added));
            let Proposal { guess, n_used } = &planned.proposal;
            let n_rows = self.batch.tokens.len();
            self.batch.tokens.extend_from_slice(&guess.tokens[..*n_used]);
            self.batch.outputs.extend(n_rows..n_rows + n_used);
            planned.outputs = first_output..self.batch.outputs.len();
            span.len += n_used;
            n_added += n_used;
            first = end;
        }
    }
}
