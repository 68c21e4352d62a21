//! A smaller model of the same vocabulary writes ahead, greedily.
//!
//! It has keys and values of its own, in pages of its own, which follow the accepted text: what it wrote and the large
//! model did not is overwritten. What a new sequence has in common with one it knows already is copied. It reads at most a
//! chunk of tokens in a step, so that a long prompt holds nobody up; until it has read all, it guesses nothing.
//!
//! Source: Leviathan et al., arXiv:2211.17192; Chen et al., arXiv:2302.01318. Guessing ends early where the model is
//! unsure, as in Hugging Face's `assistant_confidence_threshold`.

use super::{Asked, DRAFT_TOKENS, Drafter, DrafterOptions, Guess, Method, SequenceId, Target};
use crate::open::tokenizer_of;
use crate::{Error, logprob};
use rhetor_catalog::{About, Source};
use rhetor_formats::Checkpoint;
use rhetor_kernels::kv::PAGE_LEN;
use rhetor_models::{Batch, KvCache, LoadOptions, Model, SequenceSpan};
use rhetor_tensor::Tensor;
use rhetor_tokenizer::Tokenizer;
use std::collections::HashMap;

pub(super) const METHOD: Method = Method {
    about: About {
        name: "draft-model",
        summary: "a smaller model of the same vocabulary guesses what the model will say",
        source: Source::Paper {
            title: "Fast Inference from Transformers via Speculative Decoding",
            id: "arXiv:2211.17192",
            section: "Algorithm 1",
        },
        options: &[DRAFT_TOKENS],
    },
    needs: Some("a draft model of the same vocabulary"),
    build,
};

/// The most tokens of prompts that are read in a step.
const CHUNK: usize = 512;
/// Guessing ends where it is less likely than this that all guesses so far are right.
const LEAST_CHANCE: f64 = 0.05;

fn build(target: &Target<'_>, options: &DrafterOptions) -> Result<Box<dyn Drafter>, Error> {
    let path = options.checkpoint.as_ref().expect("the table says that it is needed");
    let checkpoint = Checkpoint::open(path)?;
    let tokenizer = tokenizer_of(&checkpoint)?;
    let model = Model::load(&checkpoint, LoadOptions::default())?;
    let refuse = |reason: String| Err(Error::Drafter { method: options.method.clone(), reason });
    if !model.generates() || model.config().has_encoder() {
        return refuse(format!("{} is no decoder that writes text", path.display()));
    }
    if let Err(reason) = same_vocabulary(&tokenizer, target.tokenizer) {
        return refuse(format!("{} {reason}", path.display()));
    }
    let cache = KvCache::new(model.config(), target.kv, target.n_pages);
    Ok(Box::new(DraftModel::new(model, cache, tokenizer.n_tokens())))
}

/// Fails, with both sizes, unless the same ids stand for the same tokens.
fn same_vocabulary(draft: &Tokenizer, target: &Tokenizer) -> Result<(), String> {
    let (n_draft, n_target) = (draft.n_tokens(), target.n_tokens());
    let sizes = || format!("has a vocabulary of {n_draft} tokens, the model one of {n_target}");
    if n_draft != n_target {
        return Err(sizes());
    }
    match (0..n_draft as u32).find(|&id| draft.piece(id) != target.piece(id)) {
        Some(id) => {
            let [draft, target] = [draft, target].map(|tokenizer| tokenizer.piece(id).unwrap_or("nothing"));
            Err(format!("{}, and token {id} is `{draft}` in one and `{target}` in the other", sizes()))
        }
        None => Ok(()),
    }
}

/// The drafter `draft-model`.
pub(crate) struct DraftModel {
    model: Model,
    cache: KvCache,
    /// Tokens that may be guessed.
    n_tokens: usize,
    free: Vec<u32>,
    known: HashMap<SequenceId, Known>,
    clock: u64,
}

/// A sequence as far as the draft model has read it.
#[derive(Debug, Default)]
struct Known {
    tokens: Vec<u32>,
    pages: Vec<u32>,
    last_used: u64,
}

/// A sequence that is guessed ahead.
struct Going {
    /// Its place among those asked for.
    at: usize,
    /// The most tokens.
    n_max: usize,
}

impl DraftModel {
    fn new(model: Model, cache: KvCache, n_tokens: usize) -> DraftModel {
        let free = (0..cache.n_pages() as u32).rev().collect();
        DraftModel { model, cache, n_tokens, free, known: HashMap::new(), clock: 0 }
    }

    /// Makes room for a sequence and for what is guessed of it; false if there is none.
    fn make_room(&mut self, asked: &Asked, n_max: usize) -> bool {
        let n_pages = (asked.tokens.len() + n_max).div_ceil(PAGE_LEN);
        let mut known = self.known.remove(&asked.sequence).unwrap_or_default();
        while known.pages.len() + self.free.len() < n_pages && self.forget_oldest() {}
        let has_room = known.pages.len() + self.free.len() >= n_pages;
        if has_room {
            while known.pages.len() < n_pages {
                known.pages.extend(self.free.pop());
            }
            if known.tokens.is_empty() {
                self.copy_beginning(&asked.tokens, &mut known);
            }
        }
        let n_common = common(&known.tokens, &asked.tokens);
        // The last token is always computed: its logits are the first guess.
        known.tokens.truncate(n_common.min(asked.tokens.len() - 1));
        known.last_used = self.clock;
        if !known.pages.is_empty() {
            self.known.insert(asked.sequence, known);
        }
        has_room
    }

    /// Gives the pages of the sequence back that was not asked for the longest; false if all were asked for in this step.
    fn forget_oldest(&mut self) -> bool {
        let others = self.known.iter().filter(|(_, known)| known.last_used < self.clock);
        let oldest = others.min_by_key(|(id, known)| (known.last_used, **id)).map(|(id, _)| *id);
        let Some(known) = oldest.and_then(|id| self.known.remove(&id)) else { return false };
        self.free.extend(known.pages);
        true
    }

    /// Copies the pages of the sequence that has the longest beginning in common.
    fn copy_beginning(&mut self, tokens: &[u32], new: &mut Known) {
        let of = |(id, known): (&SequenceId, &Known)| (common(&known.tokens, tokens), std::cmp::Reverse(*id));
        let best = self.known.iter().map(|entry| (of(entry), entry.1)).max_by_key(|(key, _)| *key);
        let Some(((n_common, _), known)) = best else { return };
        for i in 0..n_common / PAGE_LEN {
            self.cache.copy_page(known.pages[i], new.pages[i]);
        }
        new.tokens = tokens[..n_common / PAGE_LEN * PAGE_LEN].to_vec();
    }

    /// Adds `tokens` to a step and to what is known of a sequence.
    fn add(&mut self, batch: &mut Batch, sequence: SequenceId, tokens: &[u32]) {
        let known = self.known.get_mut(&sequence).expect("it has room");
        batch.spans.push(SequenceSpan {
            pages: known.pages.clone(),
            start: known.tokens.len(),
            len: tokens.len(),
            ..SequenceSpan::default()
        });
        batch.tokens.extend_from_slice(tokens);
        known.tokens.extend_from_slice(tokens);
    }

    /// Adds the likeliest next tokens to the guesses; nothing where no logit is a number. logits: a row for each of `going`.
    fn choose(&self, logits: &Tensor, going: &[Going], guesses: &mut [Guess]) {
        for (row, going) in going.iter().enumerate() {
            let logits = &logits.row(row)[..self.n_tokens];
            if let Some(&(token, logit)) = logprob::top(logits, 1).first() {
                let guess = &mut guesses[going.at];
                guess.tokens.push(token);
                guess.classes.push(class(f64::from(logit - logprob::log_sum_exp(logits)).exp()));
            }
        }
    }
}

impl Drafter for DraftModel {
    fn draft(&mut self, asked: &[Asked]) -> Vec<Guess> {
        self.clock += 1;
        let mut guesses = vec![Guess::default(); asked.len()];
        let mut waiting = Vec::new();
        for (at, one) in asked.iter().enumerate() {
            let n_max = one.n_max.min(self.model.config().context_len.saturating_sub(one.tokens.len()));
            if n_max > 0 && self.make_room(one, n_max) {
                waiting.push(Going { at, n_max });
            }
        }
        // Those with the least to read first: a long prompt waits.
        let n_left = |going: &Going| {
            let one = &asked[going.at];
            one.tokens.len() - self.known[&one.sequence].tokens.len()
        };
        waiting.sort_by_key(n_left);
        let (mut batch, mut going) = (Batch::default(), Vec::new());
        for one in waiting {
            let Asked { sequence, tokens, .. } = &asked[one.at];
            let start = self.known[sequence].tokens.len();
            let len = (tokens.len() - start).min(CHUNK - batch.tokens.len().min(CHUNK));
            if len == 0 {
                continue;
            }
            self.add(&mut batch, *sequence, &tokens[start..start + len]);
            if start + len == tokens.len() {
                batch.outputs.push(batch.tokens.len() - 1);
                going.push(one);
            }
        }
        for depth in 1.. {
            if batch.tokens.is_empty() {
                break;
            }
            let logits = self.model.forward(&batch, Some(&mut self.cache));
            self.choose(&logits, &going, &mut guesses);
            going.retain(|one| {
                let (guess, chances) = (&guesses[one.at], &asked[one.at].chances);
                let chance = guess.chances(chances).last().unwrap_or(0.0);
                guess.tokens.len() == depth && depth < one.n_max && chance > LEAST_CHANCE
            });
            batch = Batch { outputs: (0..going.len()).collect(), ..Batch::default() };
            for one in &going {
                let last = *guesses[one.at].tokens.last().expect("one was just chosen");
                self.add(&mut batch, asked[one.at].sequence, &[last]);
            }
        }
        guesses
    }

    fn is_costly(&self) -> bool {
        true
    }
}

/// How many tokens two sequences have in common.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// How sure a guess of this probability is.
pub(super) fn class(probability: f64) -> usize {
    [0.3, 0.6, 0.9].iter().filter(|bound| probability >= **bound).count()
}
