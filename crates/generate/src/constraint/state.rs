//! How far a text has come in its grammar.

use super::Trigger;
use crate::sampling::Mask;
use llguidance::Matcher;
use std::fmt;
use std::sync::Arc;

/// The place of one sequence in its grammar: what may follow, and whether the text is complete.
///
/// A clone goes its own way. The state knows the tokens that were committed, not where their keys and values are, so it
/// outlives a sequence's being put back.
#[derive(Clone)]
pub(crate) struct State {
    /// By [`rhetor_lm::Constraint::name`].
    kind: &'static str,
    matcher: Matcher,
    /// Tokens that end the text once it is complete, sorted.
    stops: Arc<[u32]>,
    n_tokens: usize,
    /// What must be written before the grammar begins.
    waits: Option<Trigger>,
    /// What may follow, once asked for.
    mask: Option<Arc<Mask>>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { kind, waits, .. } = self;
        f.debug_struct("State").field("kind", kind).field("waits", waits).finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn new(
        kind: &'static str,
        matcher: Matcher,
        stops: Arc<[u32]>,
        n_tokens: usize,
        waits: Option<Trigger>,
    ) -> State {
        State { kind, matcher, stops, n_tokens, waits, mask: None }
    }

    /// The tokens that may follow. An error says why the grammar cannot tell.
    pub fn mask(&mut self) -> Result<Arc<Mask>, String> {
        if let Some(mask) = &self.mask {
            return Ok(mask.clone());
        }
        let mask = Arc::new(match &self.waits {
            Some(trigger) => trigger.mask(&self.stops),
            None => self.grammar_mask()?,
        });
        self.mask = Some(mask.clone());
        Ok(mask)
    }

    fn grammar_mask(&mut self) -> Result<Mask, String> {
        if self.matcher.is_stopped() && self.matcher.stop_reason().is_ok() {
            return Ok(self.ends());
        }
        let may_end = self.matcher.is_accepting().map_err(|error| self.reason(&error))?;
        match self.matcher.compute_mask() {
            Ok(words) => {
                let mut mask = Mask::new(words.into(), self.n_tokens);
                for &stop in self.stops.iter() {
                    if may_end { mask.allow(stop) } else { mask.forbid(stop) }
                }
                Ok(mask)
            }
            // No token of the vocabulary goes on: a complete text ends here.
            Err(_) if may_end && self.matcher.stop_reason().is_ok() => Ok(self.ends()),
            Err(error) => Err(self.reason(&error)),
        }
    }

    /// Nothing but the end.
    fn ends(&self) -> Mask {
        let mut mask = Mask::new(Vec::new(), self.n_tokens);
        self.stops.iter().for_each(|&stop| mask.allow(stop));
        mask
    }

    /// Goes on by a token that the mask allows.
    pub fn commit(&mut self, token: u32) -> Result<(), String> {
        self.mask = None;
        if self.stops.binary_search(&token).is_ok() {
            return Ok(());
        }
        match &mut self.waits {
            Some(trigger) => {
                if trigger.commit(token) {
                    self.waits = None;
                }
                Ok(())
            }
            None => self.matcher.consume_token(token).map_err(|error| self.reason(&error)),
        }
    }

    /// Whether the text is complete and nothing but an end may follow.
    pub fn is_complete(&mut self) -> bool {
        self.waits.is_none() && self.matcher.is_stopped() && self.matcher.stop_reason().is_ok()
    }

    fn reason(&self, error: &dyn fmt::Display) -> String {
        format!("the {} constraint cannot go on: {}", self.kind, super::in_short(error))
    }
}
