//! The distribution on its way through the steps: copied only when a step needs it, sorted only as far as needed.

use super::Mask;
use std::cmp::Ordering;

/// A token that may still be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Its id.
    pub id: u32,
    /// Its logit after the steps so far; never NaN or −∞.
    pub logit: f32,
}

impl Candidate {
    /// Most likely first; of equals the lower id.
    fn order(&self, other: &Candidate) -> Ordering {
        other.logit.total_cmp(&self.logit).then(self.id.cmp(&other.id))
    }
}

/// Buffers that are used again from token to token.
#[derive(Debug, Default)]
pub struct Scratch {
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
    seen: Vec<u64>,
}

/// Logits of one position between the model and the choice.
#[derive(Debug)]
pub struct Draft<'a> {
    raw: &'a [f32],
    scratch: &'a mut Scratch,
    is_edited: bool,
    is_listed: bool,
    /// How many candidates at the front are known to be the most likely ones, in order.
    n_sorted: usize,
}

impl<'a> Draft<'a> {
    /// A draft of `logits: [V]`; V is the size of the tokenizer's vocabulary, padded rows of the model left out.
    pub fn new(logits: &'a [f32], scratch: &'a mut Scratch) -> Draft<'a> {
        Draft { raw: logits, scratch, is_edited: false, is_listed: false, n_sorted: 0 }
    }

    /// The logits with the edits so far: [V].
    pub fn logits(&self) -> &[f32] {
        if self.is_edited { &self.scratch.logits } else { self.raw }
    }

    /// The logits, to be changed; the model's own are copied at the first call. Only before candidates are listed.
    pub fn edit(&mut self) -> &mut [f32] {
        assert!(!self.is_listed, "edits come before the candidates are listed");
        if !self.is_edited {
            self.scratch.logits.clear();
            self.scratch.logits.extend_from_slice(self.raw);
            self.is_edited = true;
        }
        &mut self.scratch.logits
    }

    /// Takes from the draft every token that `mask` does not allow. Before all other edits.
    pub fn forbid_all_but(&mut self, mask: &Mask) {
        assert!(!self.is_edited && !self.is_listed, "a constraint comes before all else");
        mask.apply(self.raw, &mut self.scratch.logits);
        self.is_edited = true;
    }

    /// Calls `change(logit, is_first)` for each token of `tokens`; `is_first` is false when a token comes again.
    pub fn edit_each(&mut self, tokens: &[u32], mut change: impl FnMut(&mut f32, bool)) {
        let mut seen = std::mem::take(&mut self.scratch.seen);
        let logits = self.edit();
        seen.clear();
        seen.resize(logits.len().div_ceil(64), 0);
        for &token in tokens {
            // Tokens beyond the vocabulary can stand in no prompt of ours; a foreign id must still not panic.
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            let (word, bit) = (token as usize / 64, 1u64 << (token % 64));
            change(logit, seen[word] & bit == 0);
            seen[word] |= bit;
        }
        self.scratch.seen = seen;
    }

    /// The most likely token; of equals the lower id; `None` if no logit is a number above −∞.
    pub fn best(&self) -> Option<u32> {
        let mut best = (None, f32::NEG_INFINITY);
        for (id, &logit) in self.logits().iter().enumerate() {
            if logit > best.1 {
                best = (Some(id as u32), logit);
            }
        }
        best.0
    }

    /// The candidates left, in order of id or with the most likely ones sorted to the front.
    pub fn candidates(&mut self) -> &mut Vec<Candidate> {
        self.list(None);
        &mut self.scratch.candidates
    }

    /// Keeps the `k` most likely candidates and sorts them.
    pub fn keep_top(&mut self, k: usize) {
        if self.is_listed {
            self.sort_front(k);
            self.scratch.candidates.truncate(k);
        } else {
            self.list(Some(k));
            self.sort_front(k);
        }
    }

    /// Brings the `n` most likely candidates to the front, in order.
    pub fn sort_front(&mut self, n: usize) -> &mut Vec<Candidate> {
        self.list(None);
        let candidates = &mut self.scratch.candidates;
        let n = n.min(candidates.len());
        if n > self.n_sorted {
            sort_front(&mut candidates[self.n_sorted..], n - self.n_sorted, Candidate::order);
            self.n_sorted = n;
        }
        candidates
    }

    /// Removes the candidates for which `keep` is false; the order of the others stays.
    pub fn retain(&mut self, mut keep: impl FnMut(&Candidate) -> bool) {
        self.list(None);
        let n_sorted = self.n_sorted;
        let (mut position, mut n_sorted_kept) = (0, 0);
        self.scratch.candidates.retain(|candidate| {
            let kept = keep(candidate);
            n_sorted_kept += usize::from(kept && position < n_sorted);
            position += 1;
            kept
        });
        self.n_sorted = n_sorted_kept;
    }

    /// The greatest logit and Σ exp(logit − greatest) over the candidates; (−∞, 0) if none is left.
    pub fn partition(&mut self) -> (f32, f64) {
        let candidates = self.candidates();
        let max = candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        let sum = candidates.iter().map(|c| weight(c.logit, max)).sum();
        (max, sum)
    }

    /// Lists the candidates in order of id; with `most`, only that many most likely ones, in no order.
    fn list(&mut self, most: Option<usize>) {
        if self.is_listed {
            return;
        }
        self.is_listed = true;
        let mut list = std::mem::take(&mut self.scratch.candidates);
        list.clear();
        let most = most.unwrap_or(usize::MAX);
        let mut least = f32::NEG_INFINITY;
        // Logits at or below the k-th best so far are skipped without being stored, so k of V costs little more than
        // reading V numbers. Equal to the k-th means a higher id: not among the k.
        for (id, &logit) in self.logits().iter().enumerate() {
            if logit > least {
                list.push(Candidate { id: id as u32, logit });
                if list.len() >= most.saturating_mul(2).max(64) {
                    list.select_nth_unstable_by(most - 1, Candidate::order);
                    list.truncate(most);
                    least = list[most - 1].logit;
                }
            }
        }
        if list.len() > most {
            list.select_nth_unstable_by(most - 1, Candidate::order);
            list.truncate(most);
        }
        self.scratch.candidates = list;
    }
}

/// exp(logit − max): the weight of a candidate relative to the most likely one.
pub(super) fn weight(logit: f32, max: f32) -> f64 {
    f64::from((logit - max).exp())
}

/// Brings the first `n` by `order` to the front, in order, without sorting the rest.
pub(super) fn sort_front<T>(items: &mut [T], n: usize, order: impl Fn(&T, &T) -> Ordering + Copy) {
    if n < items.len() && n > 0 {
        items.select_nth_unstable_by(n - 1, order);
    }
    items[..n].sort_unstable_by(order);
}

/// How many items, taken in `order`, it needs until their weights reach `mass`; those are sorted to the front.
pub(super) fn reach<T>(
    items: &mut [T],
    mass: f64,
    order: impl Fn(&T, &T) -> Ordering + Copy,
    weight: impl Fn(&T) -> f64,
) -> usize {
    let (mut done, mut sum, mut stride) = (0, 0.0, 64);
    while done < items.len() {
        let n = stride.min(items.len() - done);
        sort_front(&mut items[done..], n, order);
        for item in &items[done..done + n] {
            sum += weight(item);
            done += 1;
            if sum >= mass {
                return done;
            }
        }
        stride *= 4;
    }
    done
}

impl Draft<'_> {
    /// Keeps the fewest most likely candidates whose weights relative to the most likely one sum to `mass`, at least one.
    pub(super) fn keep_mass(&mut self, mass: f64, max: f32) {
        self.list(None);
        let candidates = &mut self.scratch.candidates;
        let n = reach(candidates, mass, Candidate::order, |c| weight(c.logit, max));
        candidates.truncate(n.max(1));
        self.n_sorted = candidates.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(candidates: &[Candidate]) -> Vec<u32> {
        candidates.iter().map(|c| c.id).collect()
    }

    #[test]
    fn greedy_takes_the_lowest_of_equal_ids_and_skips_what_is_no_number() {
        let mut scratch = Scratch::default();
        assert_eq!(Draft::new(&[1.0, 3.0, f32::NAN, 3.0], &mut scratch).best(), Some(1));
        assert_eq!(Draft::new(&[f32::NAN, f32::NEG_INFINITY], &mut scratch).best(), None);
    }

    #[test]
    fn a_partial_selection_equals_a_full_sort() {
        let logits: Vec<f32> = (0..1000u32).map(|i| (i.wrapping_mul(2_654_435_761) % 97) as f32).collect();
        let mut sorted: Vec<Candidate> =
            logits.iter().enumerate().map(|(id, &logit)| Candidate { id: id as u32, logit }).collect();
        sorted.sort_by(Candidate::order);
        let mut scratch = Scratch::default();
        for k in [1, 2, 5, 31, 64, 500, 1000, 2000] {
            let mut draft = Draft::new(&logits, &mut scratch);
            draft.keep_top(k);
            assert_eq!(ids(draft.candidates()), ids(&sorted[..k.min(1000)]), "k = {k}");
            let mut draft = Draft::new(&logits, &mut scratch);
            draft.sort_front(3);
            draft.sort_front(k);
            assert_eq!(ids(&draft.candidates()[..k.min(1000)]), ids(&sorted[..k.min(1000)]), "k = {k}");
        }
    }

    #[test]
    fn the_model_s_logits_are_copied_only_when_edited() {
        let mut scratch = Scratch::default();
        let logits = [1.0, 2.0];
        let mut draft = Draft::new(&logits, &mut scratch);
        assert_eq!(draft.logits().as_ptr(), logits.as_ptr());
        draft.edit()[0] = 5.0;
        assert_eq!((draft.best(), draft.logits()), (Some(0), &[5.0, 2.0][..]));
    }

    #[test]
    fn tokens_that_come_again_are_told_apart() {
        let mut scratch = Scratch::default();
        let mut draft = Draft::new(&[0.0; 3], &mut scratch);
        draft.edit_each(&[2, 0, 2, 99], |logit, is_first| *logit += if is_first { 1.0 } else { 10.0 });
        assert_eq!(draft.logits(), [1.0, 0.0, 11.0]);
    }
}
