//! Neighbours of the chunks of sequences: which rows read which passages.

use rhetor_tensor::ops::scored_attention::CrossSequence;

use super::{Pass, SourceTokens};

/// The chunks of the sequences of a pass, one after another, and the passages that were retrieved for each.
///
/// A sequence of n tokens has ⌊n / m⌋ chunks, each with equally many passages in [`SourceTokens`]; a passage of no tokens
/// is none. What was retrieved for chunk u is read by its last token and the m − 1 after it, since the last token
/// predicts the first of the next chunk. Source: RETRO, arXiv:2112.04426, section 2.4.
pub struct Chunks {
    /// m: tokens of a chunk.
    pub len: usize,
    chunks: Vec<Chunk>,
}

struct Chunk {
    /// Row of its first token in the pass.
    row: usize,
    /// Rows that read its passages, from its last token on.
    n_readers: usize,
    /// The lengths of its passages, without empty ones.
    passages: Vec<usize>,
}

impl Chunks {
    /// The chunks of `len` tokens of the sequences of `pass`, whose neighbours are `source`'s passages.
    ///
    /// Panics if a sequence's passages cannot be shared out evenly among its chunks.
    #[track_caller]
    pub fn new(source: &SourceTokens, pass: &Pass, len: usize) -> Chunks {
        let (mut chunks, mut first) = (Vec::new(), 0);
        for (span, passages) in pass.spans.iter().zip(&source.passages) {
            let n_chunks = span.len / len;
            let per_chunk = passages.len() / n_chunks.max(1);
            assert_eq!(
                per_chunk * n_chunks,
                passages.len(),
                "passages for {n_chunks} chunks of {len} tokens"
            );
            for u in 0..n_chunks {
                let own = &passages[u * per_chunk..(u + 1) * per_chunk];
                chunks.push(Chunk {
                    row: first + u * len,
                    n_readers: len.min(span.len + 1 - (u + 1) * len),
                    passages: own.iter().copied().filter(|&len| len > 0).collect(),
                });
            }
            first += span.len;
        }
        Chunks { len, chunks }
    }

    /// The passages as sources of their own, in order. `tokens`: theirs.
    pub fn passages(&self, tokens: &[u32]) -> SourceTokens {
        let lens = self.chunks.iter().flat_map(|chunk| &chunk.passages);
        SourceTokens { tokens: tokens.to_vec(), passages: lens.map(|&len| vec![len]).collect() }
    }

    /// For each passage the rows of its chunk, which the passage's own rows see; the passage's rows are the queries.
    pub fn seen_by_passages(&self) -> (Vec<usize>, Vec<CrossSequence>) {
        let (mut rows, mut sequences) = (Vec::new(), Vec::new());
        for chunk in &self.chunks {
            for &n_queries in &chunk.passages {
                rows.extend(chunk.row..chunk.row + self.len);
                sequences.push(CrossSequence { n_queries, n_keys: self.len });
            }
        }
        (rows, sequences)
    }

    /// The rows that read passages, with their positions for attention, and how many rows of passages each chunk's see.
    ///
    /// As retro-pytorch has it, the first reader of a chunk stands at 2m − 2 and the others at 0: its padding moves the
    /// angles with the rows.
    pub fn readers(&self) -> (Vec<usize>, Vec<usize>, Vec<CrossSequence>) {
        let (mut rows, mut positions, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in &self.chunks {
            let first = chunk.row + self.len - 1;
            rows.extend(first..first + chunk.n_readers);
            positions.extend((0..chunk.n_readers).map(|i| if i == 0 { 2 * self.len - 2 } else { 0 }));
            let n_keys = chunk.passages.iter().sum();
            sequences.push(CrossSequence { n_queries: chunk.n_readers, n_keys });
        }
        (rows, positions, sequences)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Active;

    #[test]
    fn the_last_token_of_a_chunk_is_the_first_to_read_what_was_retrieved_for_it() {
        // Two sequences of 9 and 4 tokens, chunks of 4, two passages a chunk, some of them empty.
        let text = SourceTokens { tokens: vec![0; 13], passages: vec![vec![9], vec![4]] };
        let pass = text.pass(Active::All, None);
        let source = SourceTokens { tokens: vec![0; 13], passages: vec![vec![5, 0, 2, 2], vec![0, 4]] };
        let chunks = Chunks::new(&source, &pass, 4);
        let (rows, positions, sequences) = chunks.readers();
        assert_eq!(rows, [3, 4, 5, 6, 7, 8, 12]);
        assert_eq!(positions, [6, 0, 0, 0, 6, 0, 6]);
        let pairs = |s: &[CrossSequence]| s.iter().map(|s| (s.n_queries, s.n_keys)).collect::<Vec<_>>();
        assert_eq!(pairs(&sequences), [(4, 5), (2, 4), (1, 4)]);
        let (rows, sequences) = chunks.seen_by_passages();
        assert_eq!(rows, [0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7, 9, 10, 11, 12]);
        assert_eq!(pairs(&sequences), [(5, 4), (2, 4), (2, 4), (4, 4)]);
        assert_eq!(chunks.passages(&source.tokens).passages, [[5], [2], [2], [4]]);
    }
}
