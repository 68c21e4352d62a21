//! What a drafter is, and how one is chosen.

use super::{DRAFTERS, Rates, Speculator};
use crate::Error;
use rhetor_catalog::{About, Opt};
use rhetor_kernels::kv::KvType;
use rhetor_models::Model;
use rhetor_tokenizer::Tokenizer;
use std::path::PathBuf;
use std::sync::Arc;

/// The option that all drafters have.
pub const DRAFT_TOKENS: Opt = Opt {
    name: "draft-tokens",
    summary: "the most tokens that are guessed ahead in a step",
    default: 6.0,
    range: (1.0, 16.0),
};

/// Makes a drafter for an engine.
type Build = fn(&Target<'_>, &DrafterOptions) -> Result<Box<dyn Drafter>, Error>;

/// A line of the table of drafters.
pub struct Method {
    /// How it introduces itself.
    pub about: About,
    /// What checkpoint it needs; `None` = it needs none.
    pub needs: Option<&'static str>,
    pub(super) build: Build,
}

/// Which drafter guesses for an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrafterOptions {
    /// Its name in [`DRAFTERS`].
    pub method: String,
    /// The checkpoint of the draft model or head, where the method needs one.
    pub checkpoint: Option<PathBuf>,
    /// The most tokens guessed ahead in a step, 1 to 16; `None` = the default of [`DRAFT_TOKENS`].
    pub n_tokens: Option<usize>,
    /// Whether guesses are left undone where they do not pay. Without, every step has all of them: to see how often they are
    /// right.
    pub is_adaptive: bool,
}

impl DrafterOptions {
    /// The drafter of this name, without a checkpoint.
    pub fn new(method: impl Into<String>) -> DrafterOptions {
        DrafterOptions { method: method.into(), checkpoint: None, n_tokens: None, is_adaptive: true }
    }

    /// Makes the drafter and what cuts its guesses; the number is the most tokens guessed ahead in a step.
    pub(crate) fn speculator(&self, target: &Target<'_>) -> Result<(Speculator, usize), Error> {
        let refuse = |reason: String| Error::Drafter { method: self.method.clone(), reason };
        let n_tokens = self.n_tokens.unwrap_or(DRAFT_TOKENS.default as usize);
        DRAFT_TOKENS.check(n_tokens as f64).map_err(|out| refuse(out.to_string()))?;
        let Some(method) = DRAFTERS.iter().find(|method| method.about.name == self.method) else {
            let known: Vec<&str> = DRAFTERS.iter().map(|method| method.about.name).collect();
            return Err(refuse(format!("there is none of that name; there are {}", known.join(", "))));
        };
        let drafter = match (method.needs, &self.checkpoint) {
            (Some(what), None) => return Err(refuse(format!("needs {what}"))),
            (None, Some(path)) => {
                return Err(refuse(format!("reads no checkpoint; {} is given", path.display())));
            }
            (Some(_), Some(_)) | (None, None) => (method.build)(target, self)?,
        };
        Ok((Speculator::new(drafter, self.is_adaptive), n_tokens))
    }
}

/// What a drafter guesses for.
pub(crate) struct Target<'a> {
    /// The model.
    pub model: &'a Arc<Model>,
    /// Its vocabulary.
    pub tokenizer: &'a Tokenizer,
    /// How its keys and values are stored.
    pub kv: KvType,
    /// Pages of its cache.
    pub n_pages: usize,
}

/// A sequence in flight: its job's number, and which of the job's completions it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SequenceId {
    /// The number of the job.
    pub job: u64,
    /// Which completion.
    pub index: usize,
}

/// A sequence that waits for its next tokens.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Whose.
    pub sequence: SequenceId,
    /// All its tokens that a drafter may look at: source, prompt and answer; the last is not computed yet. Never empty.
    pub tokens: Vec<u32>,
    /// The most tokens that may be guessed.
    pub n_max: usize,
    /// By class of guess, and of all: the probability that a guessed token is right if those before it are.
    pub chances: [f64; Rates::CLASSES + 1],
    /// Which span of the step it is.
    pub span: usize,
}

/// Tokens that may follow a sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Guess {
    /// The tokens, at most as many as asked for.
    pub tokens: Vec<u32>,
    /// How sure each of them is, by a number below [`Rates::CLASSES`] that the drafter chooses: rates are kept for each.
    pub classes: Vec<usize>,
}

impl Guess {
    /// The probability that each token is right together with all before it, by the `chances` of its class.
    pub fn chances(&self, chances: &[f64]) -> impl Iterator<Item = f64> {
        self.classes.iter().scan(1.0, |chance, &class| {
            *chance *= chances[class];
            Some(*chance)
        })
    }
}

/// What makes guesses.
pub(crate) trait Drafter: Send {
    /// Guesses for some sequences what follows; one guess for each, empty where there is none.
    fn draft(&mut self, asked: &[Asked]) -> Vec<Guess>;

    /// Whether guessing costs so much that it is left undone when it does not pay.
    fn is_costly(&self) -> bool;

    /// The depths of the residual stream that it must see of every step: of all three together a row; none = what goes into
    /// the output layer. `None` = it sees nothing.
    fn watches(&self) -> Option<&[usize]> {
        None
    }

    /// What the model made of a sequence's tokens from position `start` on, wrong guesses among the last of them: they are
    /// shown again.
    fn see(&mut self, _sequence: SequenceId, _start: usize, _features: &[&[f32]]) {}
}
