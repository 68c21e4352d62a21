//! The loop that both kinds of BPE share: merge the best pair of neighbours until none is left.
//!
//! Source: Neural Machine Translation of Rare Words with Subword Units, arXiv:1508.07909, §3.2.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A stretch of a word: its token (or a number beyond the vocabulary, if it is none), and where it lies in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub id: u32,
    pub start: u32,
    pub end: u32,
}

/// What a pair of neighbours merges into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Merged {
    /// Smaller comes first; of equal ones the leftmost.
    pub rank: u32,
    pub id: u32,
}

/// Longer words go through a heap: the plain loop is quadratic, but has no overhead.
const SHORT: usize = 48;

/// Buffers that live as long as one call of `encode`.
#[derive(Default)]
pub(crate) struct Merger {
    /// The word: filled by the caller, merged by [`Merger::run`].
    pub symbols: Vec<Symbol>,
    pairs: Vec<Option<Merged>>,
    next: Vec<u32>,
    previous: Vec<u32>,
    heap: BinaryHeap<Reverse<(u32, u32, u32, u32)>>,
}

const NONE: u32 = u32::MAX;

impl Merger {
    /// Merges `symbols` until `pair` knows no more.
    pub fn run(&mut self, pair: impl Fn(Symbol, Symbol) -> Option<Merged>) {
        if self.symbols.len() <= SHORT { self.run_short(pair) } else { self.run_long(pair) }
    }

    fn run_short(&mut self, pair: impl Fn(Symbol, Symbol) -> Option<Merged>) {
        let Merger { symbols, pairs, .. } = self;
        pairs.clear();
        pairs.extend(symbols.windows(2).map(|two| pair(two[0], two[1])));
        loop {
            let mut best: Option<(usize, Merged)> = None;
            for (i, merged) in pairs.iter().enumerate() {
                if let Some(merged) = merged {
                    if best.is_none_or(|(_, best)| merged.rank < best.rank) {
                        best = Some((i, *merged));
                    }
                }
            }
            let Some((i, merged)) = best else { return };
            symbols[i] = Symbol { id: merged.id, start: symbols[i].start, end: symbols[i + 1].end };
            symbols.remove(i + 1);
            pairs.remove(i);
            if i > 0 {
                pairs[i - 1] = pair(symbols[i - 1], symbols[i]);
            }
            if i < pairs.len() {
                pairs[i] = pair(symbols[i], symbols[i + 1]);
            }
        }
    }

    fn run_long(&mut self, pair: impl Fn(Symbol, Symbol) -> Option<Merged>) {
        let Merger { symbols, next, previous, heap, .. } = self;
        let n = symbols.len() as u32;
        next.clear();
        next.extend((1..=n).map(|i| if i < n { i } else { NONE }));
        previous.clear();
        previous.extend((0..n).map(|i| i.wrapping_sub(1)));
        heap.clear();
        // An entry is (rank, left, id, end of the right one): it is out of date if its pair ends elsewhere by now.
        let entry = |symbols: &[Symbol], left: u32, right: u32| {
            let (a, b) = (symbols[left as usize], symbols[right as usize]);
            pair(a, b).map(|merged| Reverse((merged.rank, left, merged.id, b.end)))
        };
        heap.extend((1..n).filter_map(|right| entry(symbols, right - 1, right)));
        while let Some(Reverse((_, left, id, end))) = heap.pop() {
            let l = left as usize;
            let right = next[l];
            // A symbol that was merged into its left neighbour has no next one and no length.
            if right == NONE || symbols[l].start == symbols[l].end || symbols[right as usize].end != end {
                continue;
            }
            let r = right as usize;
            symbols[l] = Symbol { id, start: symbols[l].start, end };
            symbols[r].start = symbols[r].end;
            next[l] = next[r];
            next[r] = NONE;
            if next[l] != NONE {
                previous[next[l] as usize] = left;
                heap.extend(entry(symbols, left, next[l]));
            }
            if previous[l] != NONE {
                heap.extend(entry(symbols, previous[l], left));
            }
        }
        symbols.retain(|symbol| symbol.start < symbol.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_heap_and_the_plain_loop_agree(
            word in proptest::collection::vec(0u32..4, 0..200),
            salt in any::<u32>(),
        ) {
            // A random table of merges, some of equal rank, that makes chains.
            let pair = |a: Symbol, b: Symbol| {
                let h = (a.id.wrapping_mul(31).wrapping_add(b.id) ^ salt).wrapping_mul(0x9E37_79B9);
                (h % 3 == 0).then_some(Merged { rank: h >> 28, id: (h >> 8) % 40 })
            };
            let symbols: Vec<Symbol> =
                (0u32..).zip(&word).map(|(i, &id)| Symbol { id, start: i, end: i + 1 }).collect();
            let (mut short, mut long) = (Merger::default(), Merger::default());
            short.symbols = symbols.clone();
            short.run_short(pair);
            long.symbols = symbols;
            long.run_long(pair);
            prop_assert_eq!(short.symbols, long.symbols);
        }
    }
}
