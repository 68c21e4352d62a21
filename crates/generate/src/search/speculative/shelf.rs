//! The pages of a drafter's own keys and values, and which sequences have them.

use super::SequenceId;
use rhetor_kernels::kv::PAGE_LEN;
use std::collections::HashMap;

/// Sequences that are remembered; of more, those asked for the longest ago are forgotten.
const HELD_MAX: usize = 256;

/// What a drafter remembers of sequences. Nobody says when a sequence is over: the oldest are forgotten when there is no
/// room.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    free: Vec<u32>,
    held: HashMap<SequenceId, Held<T>>,
    clock: u64,
}

/// What is remembered of a sequence.
#[derive(Debug, Default)]
pub(super) struct Held<T> {
    /// Its pages, in order.
    pub pages: Vec<u32>,
    /// What the drafter knows of it.
    pub known: T,
    last_used: u64,
}

impl<T: Default> Shelf<T> {
    /// A shelf of `n_pages` pages.
    pub fn new(n_pages: usize) -> Shelf<T> {
        Shelf { free: (0..n_pages as u32).rev().collect(), held: HashMap::new(), clock: 0 }
    }

    /// What is taken from now on belongs to another step, and may push out what was taken before.
    pub fn begin(&mut self) {
        self.clock += 1;
    }

    /// What is remembered of a sequence; nothing yet, if it is new.
    pub fn take(&mut self, sequence: SequenceId) -> &mut Held<T> {
        if !self.held.contains_key(&sequence) && self.held.len() >= HELD_MAX {
            self.forget_oldest();
        }
        let held = self.held.entry(sequence).or_default();
        held.last_used = self.clock;
        held
    }

    /// Gives a sequence pages for `n_tokens` tokens; `None` if those of this step have taken them all.
    pub fn make_room(&mut self, sequence: SequenceId, n_tokens: usize) -> Option<&mut Held<T>> {
        let n_pages = n_tokens.div_ceil(PAGE_LEN);
        let n_missing = n_pages.saturating_sub(self.take(sequence).pages.len());
        while self.free.len() < n_missing {
            if !self.forget_oldest() {
                return None;
            }
        }
        let taken = self.free.split_off(self.free.len() - n_missing);
        let held = self.held.get_mut(&sequence).expect("it was just taken");
        held.pages.extend(taken.into_iter().rev());
        Some(held)
    }

    /// What is remembered of all.
    pub fn iter(&self) -> impl Iterator<Item = (&SequenceId, &Held<T>)> {
        self.held.iter()
    }

    /// Forgets the sequence that was taken the longest ago; false if all were taken in this step.
    fn forget_oldest(&mut self) -> bool {
        let others = self.held.iter().filter(|(_, held)| held.last_used < self.clock);
        let oldest = others.min_by_key(|(id, held)| (held.last_used, **id)).map(|(id, _)| *id);
        let Some(held) = oldest.and_then(|id| self.held.remove(&id)) else { return false };
        self.free.extend(held.pages);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(job: u64) -> SequenceId {
        SequenceId { job, index: 0 }
    }

    #[test]
    fn the_oldest_sequence_makes_room_and_none_of_the_same_step_does() {
        let mut shelf: Shelf<Vec<u32>> = Shelf::new(4);
        shelf.begin();
        shelf.make_room(id(1), 2 * PAGE_LEN).unwrap().known.push(7);
        shelf.begin();
        assert_eq!(shelf.make_room(id(2), PAGE_LEN + 1).unwrap().pages.len(), 2);
        assert_eq!(shelf.take(id(1)).known, [7], "there was room for both");
        shelf.begin();
        shelf.take(id(1));
        assert_eq!(shelf.make_room(id(3), 1).unwrap().pages.len(), 1);
        assert!(shelf.take(id(2)).pages.is_empty(), "it was the oldest");
        assert_eq!(shelf.make_room(id(2), PAGE_LEN).unwrap().pages.len(), 1);
        assert!(shelf.make_room(id(4), 1).is_none(), "all pages were taken in this step");
        // A sequence that grows keeps its pages.
        shelf.begin();
        let before = shelf.take(id(1)).pages.clone();
        assert!(shelf.make_room(id(1), 3 * PAGE_LEN).unwrap().pages.starts_with(&before));
    }

    #[test]
    fn no_more_sequences_are_remembered_than_there_may_be() {
        let mut shelf: Shelf<()> = Shelf::new(1);
        for job in 0..1000 {
            shelf.begin();
            shelf.take(id(job));
        }
        assert_eq!(shelf.iter().count(), HELD_MAX);
        assert!(shelf.iter().all(|(id, _)| id.job >= 1000 - HELD_MAX as u64));
    }
}
