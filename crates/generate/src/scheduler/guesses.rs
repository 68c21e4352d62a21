//! Guesses in a step: whose next tokens are guessed, the rows that check them, and what becomes of these.

use super::{LOGITS_MAX, Plan, PlannedSpan, Scheduler};
use crate::choices::choose;
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

    /// Takes the logits after a sequence's last token and after each of the guesses that were computed, chooses the next
    /// tokens as it would without guesses, and goes on as long as these are what was guessed.
    pub(super) fn verify(&mut self, span: &PlannedSpan, rows: &[&[f32]]) {
        let Proposal { guess, n_used } = &span.proposal;
        let mut n_accepted = 0;
        let job = &self.jobs[span.job];
        let (n_before, n_reported) = (job.sequences[span.sequence].tokens.len(), job.outbox.len());
        for (i, row) in rows.iter().enumerate() {
            choose(&mut self.jobs[span.job], span.sequence, row, self.n_tokens, &mut self.scratch);
            let sequence = &mut self.jobs[span.job].sequences[span.sequence];
            let (chosen, guessed) = (sequence.tokens.get(n_before + i), guess.tokens.get(i));
            // A guess that was not computed is compared all the same: it shows for nothing whether guesses are right.
            let (Some(chosen), Some(guessed)) = (chosen, guessed) else { break };
            let is_right = chosen == guessed;
            sequence.rates.learn(guess.classes[i], is_right);
            self.rates.learn(guess.classes[i], is_right);
            n_accepted += usize::from(is_right && i < *n_used);
            if !is_right || sequence.is_done {
                break;
            }
        }
        if *n_used == 0 {
            return;
        }
        let Scheduler { jobs, blocks, stats, .. } = self;
        let job = &mut jobs[span.job];
        let sequence = &mut job.sequences[span.sequence];
        // Keys and values of wrong guesses stay where they are until the right tokens overwrite them.
        sequence.computed(span.n_computed + n_accepted, blocks);
        let (index, drafted, accepted) = (sequence.index, *n_used, n_accepted);
        job.outbox.insert(n_reported.min(job.outbox.len()), Output::Guessed { index, drafted, accepted });
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
