//! A draft head of the EAGLE family: from the model's own hidden states it guesses the next ones, and so the next tokens.
//!
//! The head reads what the model makes of every token, so it needs no prompt of its own to be read twice; what was found
//! in the prefix cache, or belongs to another completion of the same prompt, it has not seen, and begins after it. Here it
//! guesses a chain, its likeliest path, not a tree: with the samplers of this crate each position has one token to be
//! compared.
//!
//! Sources: EAGLE, arXiv:2401.15077; EAGLE-2, arXiv:2406.16858; EAGLE-3, arXiv:2503.01840.

use super::shelf::Shelf;
use super::{Asked, DRAFT_TOKENS, Drafter, DrafterOptions, Guess, Method, SequenceId, Target};
use crate::Error;
use rhetor_catalog::{About, Source};
use rhetor_formats::Checkpoint;
use rhetor_kernels::kv::KvType;
use rhetor_models::eagle::{DraftOptions, EagleHead, feature_depths};
use rhetor_models::{Batch, KvCache, Model, SequenceSpan};
use rhetor_tensor::Tensor;
use std::sync::Arc;

pub(super) const METHOD: Method = Method {
    about: About {
        name: "eagle",
        summary: "a draft head guesses from the model's own hidden states",
        source: Source::Paper {
            title: "EAGLE: Speculative Sampling Requires Rethinking Feature Uncertainty",
            id: "arXiv:2401.15077",
            section: "§4.1",
        },
        options: &[DRAFT_TOKENS],
    },
    needs: Some("a draft head in the layout of EAGLE or EAGLE-3"),
    build,
};

/// The most hidden states that wait to be read; a sequence with more is begun anew.
const PENDING_MAX: usize = 8192;
/// The most hidden states that the head reads in a step for each sequence.
const CHUNK: usize = 512;

fn build(target: &Target<'_>, options: &DrafterOptions) -> Result<Box<dyn Drafter>, Error> {
    let path = options.checkpoint.as_ref().expect("the table says that it is needed");
    let model = target.model;
    let is_plain = !model.config().has_encoder() && model.config().parts.is_empty();
    if !is_plain || model.adapters().iter().any(|adapter| adapter.n_virtual > 0) {
        let reason = "a head reads the hidden states of a decoder without eyes and virtual positions";
        return Err(Error::Drafter { method: options.method.clone(), reason: reason.to_string() });
    }
    let head = EagleHead::load(&Checkpoint::open(path)?, model)?;
    let n_tokens = target.tokenizer.n_tokens();
    Ok(Box::new(Eagle::new(head, model.clone(), n_tokens, target.kv, target.n_pages)))
}

/// The drafter `eagle`.
pub(crate) struct Eagle {
    head: EagleHead,
    target: Arc<Model>,
    /// Where the residual stream is read; empty = what goes into the output layer.
    depths: Vec<usize>,
    /// Tokens that may be guessed.
    n_tokens: usize,
    cache: KvCache,
    shelf: Shelf<Read>,
}

/// How far the head has read a sequence.
#[derive(Debug, Default)]
struct Read {
    /// The position at which it began.
    base: usize,
    /// Positions that it has read since.
    n_read: usize,
    /// The hidden states of the positions after these.
    pending: Vec<Box<[f32]>>,
}

impl Eagle {
    fn new(head: EagleHead, target: Arc<Model>, n_tokens: usize, kv: KvType, n_pages: usize) -> Eagle {
        let depths = match head.reads_three() {
            true => feature_depths(target.config().n_layers).to_vec(),
            false => Vec::new(),
        };
        let cache = KvCache::new(head.config(), kv, n_pages);
        Eagle { head, target, depths, n_tokens, cache, shelf: Shelf::new(n_pages) }
    }

    /// Guesses what follows one sequence, if the head has all hidden states before its last token.
    fn guess(&mut self, asked: &Asked) -> Option<Guess> {
        let last = asked.tokens.len() - 1;
        let read = &self.shelf.take(asked.sequence).known;
        let (first, n_read) = (read.base + read.n_read, read.n_read);
        let n_rows = last.checked_sub(first).filter(|n| (1..=read.pending.len()).contains(n))?;
        let n_max = asked.n_max.min(self.head.config().context_len.saturating_sub(n_read + n_rows));
        if n_max == 0 {
            return None;
        }
        let n_now = n_rows.min(CHUNK);
        let held = self.shelf.make_room(asked.sequence, n_read + n_now + n_max)?;
        let pending = held.known.pending.drain(..n_now);
        let features: Vec<f32> = pending.flat_map(|row| row.into_vec()).collect();
        held.known.n_read += n_now;
        let width = features.len() / n_now;
        let features = Tensor::from_vec(features, [n_now, width]);
        // What the model made of a position is read together with the token that follows.
        let tokens = asked.tokens[first + 1..=first + n_now].to_vec();
        let pages = held.pages.clone();
        let span = SequenceSpan { pages, start: n_read, len: n_now, ..SequenceSpan::default() };
        let batch = Batch { tokens, spans: vec![span], ..Batch::default() };
        if n_now < n_rows {
            self.head.forward(&batch, &features, Some(&mut self.cache));
            return None;
        }
        let options = DraftOptions { n_nodes: n_max + 1, depth: n_max - 1, top_k: 1 };
        let draft = self.head.draft(&batch, &features, self.target.output(), options, &mut self.cache);
        let tokens = draft.tokens[1..].iter().copied();
        let tokens: Vec<u32> = tokens.take_while(|&id| (id as usize) < self.n_tokens).collect();
        Some(Guess { classes: vec![0; tokens.len()], tokens })
    }
}

impl Drafter for Eagle {
    fn draft(&mut self, asked: &[Asked]) -> Vec<Guess> {
        self.shelf.begin();
        let guess = |asked: &Asked| {
            if asked.n_max == 0 { Guess::default() } else { self.guess(asked).unwrap_or_default() }
        };
        asked.iter().map(guess).collect()
    }

    fn is_costly(&self) -> bool {
        true
    }

    fn watches(&self) -> Option<&[usize]> {
        Some(&self.depths)
    }

    fn see(&mut self, sequence: SequenceId, start: usize, features: &[&[f32]]) {
        let read = &mut self.shelf.take(sequence).known;
        let first = read.base + read.n_read;
        // Positions that the head has read are computed again only if the sequence was put back: to the same values.
        let features = &features[first.saturating_sub(start).min(features.len())..];
        let at = start.saturating_sub(first);
        if features.is_empty() {
            return;
        }
        let has_gap = at > read.pending.len() || read.pending.len() + features.len() > PENDING_MAX;
        if has_gap {
            *read = Read { base: start.max(first), ..Read::default() };
        } else {
            // After the first position of a step stand guesses that were wrong.
            read.pending.truncate(at);
        }
        read.pending.extend(features.iter().map(|row| Box::from(*row)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_models::LoadOptions;
    use std::path::Path;

    fn open(name: &str) -> Checkpoint {
        Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)).unwrap()
    }

    fn eagle() -> Eagle {
        let target = Arc::new(Model::load(&open("models/llama"), LoadOptions::default()).unwrap());
        let head = EagleHead::load(&open("eagle/eagle3"), &target).unwrap();
        Eagle::new(head, target, 99, KvType::F32, 4)
    }

    fn asked(tokens: &[u32]) -> Asked {
        let sequence = SequenceId { job: 0, index: 0 };
        Asked { sequence, tokens: tokens.to_vec(), n_max: 4, chances: [0.5; 5], span: 0 }
    }

    /// What the model makes of each of `tokens`, as the head reads it.
    fn features(eagle: &Eagle, tokens: &[u32]) -> Vec<Vec<f32>> {
        let (_, residual) = eagle.target.features(&Batch::whole(tokens), None, &eagle.depths);
        (0..tokens.len()).map(|i| residual.iter().flat_map(|x| x.row(i).to_vec()).collect()).collect()
    }

    #[test]
    fn a_sequence_read_in_pieces_with_wrong_guesses_between_is_guessed_like_one_read_at_once() {
        let tokens = [1u32, 7, 42, 3, 88, 19, 5, 61];
        let mut whole = eagle();
        let all = features(&whole, &tokens);
        let rows: Vec<&[f32]> = all.iter().map(Vec::as_slice).collect();
        let id = SequenceId { job: 0, index: 0 };
        whole.see(id, 0, &rows[..7]);
        let expected = whole.draft(&[asked(&tokens)]).remove(0);
        assert_eq!((expected.tokens.len(), expected.classes.len()), (4, 4));
        // The head by itself, on the same.
        let features = Tensor::from_vec(all[..7].concat(), [7, 96]);
        let span = SequenceSpan { pages: vec![0], len: 7, ..SequenceSpan::default() };
        let batch = Batch { spans: vec![span], ..Batch::whole(&tokens[1..]) };
        let mut cache = KvCache::new(whole.head.config(), KvType::F32, 1);
        let options = DraftOptions { n_nodes: 5, depth: 3, top_k: 1 };
        let draft = whole.head.draft(&batch, &features, whole.target.output(), options, &mut cache);
        assert_eq!(draft.tokens[1..], expected.tokens);

        let mut pieces = eagle();
        assert!(pieces.draft(&[asked(&tokens)])[0].tokens.is_empty(), "it has seen nothing");
        let wrong = vec![9.0; 96];
        let wrong = [&wrong[..]; 3];
        pieces.see(id, 0, &rows[..3]);
        pieces.draft(&[asked(&tokens[..4])]);
        pieces.see(id, 3, &[&rows[3..4], &wrong[..]].concat());
        pieces.draft(&[asked(&tokens[..5])]);
        // No guess is asked for in this step, and in the next the sequence has been put back.
        pieces.see(id, 4, &[&rows[4..6], &wrong[..2]].concat());
        pieces.see(id, 0, &rows[..6]);
        pieces.see(id, 6, &[&rows[6..7], &wrong[..1]].concat());
        assert_eq!(pieces.draft(&[asked(&tokens)]), [expected]);
    }

    #[test]
    fn a_head_that_missed_the_beginning_starts_later() {
        let tokens = [1u32, 7, 42, 3, 88, 19, 5, 61];
        let mut eagle = eagle();
        let all = features(&eagle, &tokens);
        let rows: Vec<&[f32]> = all.iter().map(Vec::as_slice).collect();
        let id = SequenceId { job: 0, index: 0 };
        eagle.see(id, 4, &rows[4..6]);
        eagle.see(id, 6, &rows[6..7]);
        assert_eq!(eagle.draft(&[asked(&tokens)])[0].tokens.len(), 4);
        let read = &eagle.shelf.take(id).known;
        assert_eq!((read.base, read.n_read), (4, 3));
    }
}
