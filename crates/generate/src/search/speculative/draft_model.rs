//! A smaller model of the same vocabulary writes ahead, greedily.
//!
//! It has keys and values of its own, in pages of its own, which follow the accepted text: what it wrote and the large
//! model did not is overwritten. What a new sequence has in common with one it knows already is copied. It reads at most a
//! chunk of tokens in a step, so that a long prompt holds nobody up; until it has read all, it guesses nothing.
//!
//! Source: Leviathan et al., arXiv:2211.17192; Chen et al., arXiv:2302.01318. Guessing ends early where the model is
//! unsure, as in Hugging Face's `assistant_confidence_threshold`.

use super::shelf::Shelf;
use super::{Asked, DRAFT_TOKENS, Drafter, DrafterOptions, Guess, Method, SequenceId, Target};
use crate::open::tokenizer_of;
use crate::{Error, logprob};
use rhetor_catalog::{About, Source};
use rhetor_formats::Checkpoint;
use rhetor_kernels::kv::PAGE_LEN;
use rhetor_kernels::log_sum_exp::log_sum_exp;
use rhetor_models::{Batch, KvCache, LoadOptions, Model, SequenceSpan};
use rhetor_tensor::Tensor;
use rhetor_tokenizer::Tokenizer;

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
    /// The tokens that the model has read of each sequence.
    shelf: Shelf<Vec<u32>>,
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
        let shelf = Shelf::new(cache.n_pages());
        DraftModel { model, cache, n_tokens, shelf }
    }

    /// Makes room for a sequence and for what is guessed of it; false if there is none.
    fn make_room(&mut self, asked: &Asked, n_max: usize) -> bool {
        let tokens = &asked.tokens;
        let Some(held) = self.shelf.make_room(asked.sequence, tokens.len() + n_max) else { return false };
        if held.known.is_empty() {
            self.copy_beginning(asked);
        }
        let known = &mut self.shelf.take(asked.sequence).known;
        // The last token is always computed: its logits are the first guess.
        known.truncate(common(known, tokens).min(tokens.len() - 1));
        true
    }

    /// Copies the pages of the sequence that has the longest beginning in common.
    fn copy_beginning(&mut self, asked: &Asked) {
        let others = self.shelf.iter().map(|(id, held)| (common(&held.known, &asked.tokens), *id, held));
        let best = others.max_by_key(|(n_common, id, _)| (*n_common, std::cmp::Reverse(*id)));
        let Some((n_common, _, held)) = best else { return };
        let from = held.pages[..n_common / PAGE_LEN].to_vec();
        let own = self.shelf.take(asked.sequence);
        for (&from, &to) in from.iter().zip(&own.pages) {
            self.cache.copy_page(from, to);
        }
        own.known = asked.tokens[..from.len() * PAGE_LEN].to_vec();
    }

    /// Adds `tokens` to a step and to what is known of a sequence.
    fn add(&mut self, batch: &mut Batch, sequence: SequenceId, tokens: &[u32]) {
        let held = self.shelf.take(sequence);
        batch.spans.push(SequenceSpan {
            pages: held.pages.clone(),
            start: held.known.len(),
            len: tokens.len(),
            ..SequenceSpan::default()
        });
        batch.tokens.extend_from_slice(tokens);
        held.known.extend_from_slice(tokens);
    }

    /// Adds the likeliest next tokens to the guesses; nothing where no logit is a number. logits: a row for each of `going`.
    fn choose(&self, logits: &Tensor, going: &[Going], guesses: &mut [Guess]) {
        for (row, going) in going.iter().enumerate() {
            let logits = &logits.row(row)[..self.n_tokens];
            if let Some(&(token, logit)) = logprob::top(logits, 1).first() {
                let guess = &mut guesses[going.at];
                guess.tokens.push(token);
                guess.classes.push(class(f64::from(logit - log_sum_exp(logits)).exp()));
            }
        }
    }
}

impl Drafter for DraftModel {
    fn draft(&mut self, asked: &[Asked]) -> Vec<Guess> {
        self.shelf.begin();
        let mut guesses = vec![Guess::default(); asked.len()];
        let mut waiting = Vec::new();
        for (at, one) in asked.iter().enumerate() {
            let n_max = one.n_max.min(self.model.config().context_len.saturating_sub(one.tokens.len()));
            if n_max > 0 && self.make_room(one, n_max) {
                waiting.push(Going { at, n_max });
            }
        }
        // Those with the least to read first: a long prompt waits.
        waiting.sort_by_key(|going| {
            let one = &asked[going.at];
            one.tokens.len() - self.shelf.take(one.sequence).known.len()
        });
        let (mut batch, mut going) = (Batch::default(), Vec::new());
        for one in waiting {
            let Asked { sequence, tokens, .. } = &asked[one.at];
            let start = self.shelf.take(*sequence).known.len();
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
