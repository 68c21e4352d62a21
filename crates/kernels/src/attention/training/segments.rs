//! Which queries of a sequence attend to each other: all, or groups that half of the heads shift.

use super::{TrainSequence, TrainShape};

/// Shifted sparse attention (S²-Attn): attention inside groups of neighbours, which the second half of the
/// query heads has half a group later, so that groups hear of each other. Source: LongLoRA, arXiv:2309.12307,
/// section 3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// Tokens of a group.
    pub len: usize,
    /// What the shift does with the ends of a sequence.
    pub shift: Shift,
}

/// What becomes of the half groups at the two ends of a sequence, in the heads that are shifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shift {
    /// Each is a group of its own. What LongLoRA's fine-tuning on instructions does; no token sees a later
    /// one.
    #[default]
    Cut,
    /// The first tokens come after the last ones, in one group: the paper's algorithm 1, which lets the first
    /// tokens see the end of the sequence.
    Wrapped,
}

impl Groups {
    #[track_caller]
    pub(super) fn check(&self, sequences: &[TrainSequence]) {
        assert!(self.len > 1, "groups of {}", self.len);
        let whole = |s: &TrainSequence| {
            s.len.is_multiple_of(self.len) && (s.prefix_len == 0 || s.prefix_len == s.len)
        };
        let fits = self.shift == Shift::Cut || sequences.iter().all(whole);
        assert!(fits, "wrapped groups of {} in {sequences:?}", self.len);
    }
}

/// Rows of a sequence that attend to each other, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub start: usize,
    pub len: usize,
    /// Rows of the sequence; behind the last one comes the first.
    pub n_rows: usize,
    /// Its first rows, which see each other in both directions.
    pub prefix_len: usize,
}

impl Segment {
    /// Its rows as runs of neighbours: where one begins in the sequence, and which of the segment's rows are
    /// in it.
    pub fn runs(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        let first = self.len.min(self.n_rows - self.start);
        [(self.start, 0..first), (0, first..self.len)].into_iter().filter(|(_, rows)| !rows.is_empty())
    }

    /// Its rows.
    pub fn rows(&self) -> impl Iterator<Item = usize> {
        (self.start..self.start + self.len).map(|row| if row < self.n_rows { row } else { row - self.n_rows })
    }
}

impl TrainShape {
    /// The segments of a sequence for a query head.
    pub(super) fn segments(&self, head: usize, sequence: TrainSequence) -> impl Iterator<Item = Segment> {
        let TrainSequence { len: n_rows, prefix_len } = sequence;
        let len = self.groups.map_or(n_rows, |groups| groups.len).max(1);
        let shifted = self.groups.is_some() && head >= self.n_heads / 2;
        let wrapped = shifted && self.groups.is_some_and(|groups| groups.shift == Shift::Wrapped);
        let offset = if shifted { len / 2 } else { 0 };
        let segment = move |start: usize, len: usize| {
            let before = if wrapped && prefix_len > 0 { len } else { prefix_len.saturating_sub(start) };
            Segment { start, len, n_rows, prefix_len: before.min(len) }
        };
        let first = (offset > 0 && !wrapped).then(|| segment(0, offset.min(n_rows)));
        let others = (offset..n_rows)
            .step_by(len)
            .map(move |start| segment(start, if wrapped { len } else { len.min(n_rows - start) }));
        first.into_iter().chain(others).filter(|segment| segment.len > 0)
    }
}
