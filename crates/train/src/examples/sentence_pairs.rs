//! Pairs of segments for BERT's next-sentence and ALBERT's sentence-order prediction.
//!
//! Source: google-research/bert, create_pretraining_data.py, create_instances_from_document; ALBERT,
//! arXiv:1909.11942, §3.1. Masking is done to the finished pair, by [`super::masked_lm`].

use crate::random::below;
use crate::{Error, Label};
use rhetor_generate::Rng;
use rhetor_tokenizer::{Special, Tokenizer};

/// What is said about the second segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairObjective {
    /// It follows the first (class 0) or comes from another document (class 1).
    NextSentence,
    /// It follows the first (class 0) or comes before it (class 1).
    SentenceOrder,
}

/// How pairs are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairOptions {
    /// What is said about the second segment.
    pub objective: PairObjective,
    /// The most tokens of a pair, `[CLS]` and both `[SEP]` included; BERT's 128 or 512.
    pub max_len: usize,
    /// How many of the pairs are made shorter at random; BERT's 0.1.
    pub short_share: f64,
}

/// A document as its sentences, each as its tokens.
pub type Sentences = Vec<Vec<u32>>;

/// A finished pair: `[CLS] A [SEP] B [SEP]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// 0 up to the first `[SEP]`, 1 from there on.
    pub segments: Vec<u8>,
    /// Class 0 or 1.
    pub label: Label,
}

/// Makes pairs for one vocabulary.
#[derive(Debug, Clone, Copy)]
pub struct Pairs {
    options: PairOptions,
    class: u32,
    separator: u32,
}

impl Pairs {
    /// Fails if the vocabulary has no `[CLS]` or `[SEP]`, or pairs would have no room.
    pub fn new(tokenizer: &Tokenizer, options: PairOptions) -> Result<Pairs, Error> {
        let missing =
            |token: &str| Error::MissingToken { objective: "pairs of segments", token: token.to_string() };
        if options.max_len < 5 {
            let reason = format!("a pair has at least 5 tokens, got {}", options.max_len);
            return Err(Error::InvalidOption { option: "max-len", reason });
        }
        Ok(Pairs {
            options,
            class: tokenizer.class().ok_or_else(|| missing("[CLS]"))?,
            separator: tokenizer.separator().ok_or_else(|| missing("[SEP]"))?,
        })
    }

    /// The pairs of document `index`. Other documents give the second segments that do not follow; with a
    /// single document, they come from elsewhere in it.
    pub fn of_document(&self, documents: &[Sentences], index: usize, rng: &mut Rng) -> Vec<Pair> {
        let document: Vec<&[u32]> =
            documents[index].iter().map(Vec::as_slice).filter(|sentence| !sentence.is_empty()).collect();
        let n_max = self.options.max_len - 3;
        let mut n_target = self.target_len(rng);
        let (mut pairs, mut chunk, mut n_chunk, mut i) = (Vec::new(), Vec::new(), 0, 0);
        while i < document.len() {
            chunk.push(document[i]);
            n_chunk += document[i].len();
            i += 1;
            if i < document.len() && n_chunk < n_target {
                continue;
            }
            let n_first = if chunk.len() > 1 { 1 + below(rng, chunk.len() - 1) } else { 1 };
            let (first, rest) = chunk.split_at(n_first);
            let mut a = first.concat();
            let (mut b, class) = match self.options.objective {
                PairObjective::NextSentence if rest.is_empty() || rng.uniform() < 0.5 => {
                    let b = elsewhere(documents, index, n_target.saturating_sub(a.len()), rng);
                    // Sentences that were not used are put back.
                    i -= rest.len();
                    (b, 1)
                }
                PairObjective::SentenceOrder if !rest.is_empty() && rng.uniform() < 0.5 => {
                    (std::mem::replace(&mut a, rest.concat()), 1)
                }
                _ => (rest.concat(), 0),
            };
            if !a.is_empty() && !b.is_empty() {
                truncate(&mut a, &mut b, n_max, rng);
                pairs.push(self.pair(&a, &b, class));
            }
            chunk.clear();
            n_chunk = 0;
            n_target = self.target_len(rng);
        }
        pairs
    }

    fn target_len(&self, rng: &mut Rng) -> usize {
        let n_max = self.options.max_len - 3;
        if rng.uniform() < self.options.short_share { 2 + below(rng, n_max - 1) } else { n_max }
    }

    fn pair(&self, a: &[u32], b: &[u32], class: u32) -> Pair {
        let tokens = [&[self.class], a, &[self.separator], b, &[self.separator]].concat();
        let mut segments = vec![0; a.len() + 2];
        segments.resize(tokens.len(), 1);
        Pair { tokens, segments, label: Label::Class(class) }
    }
}

/// The sentences of a text: its lines, tokenized.
pub fn sentences(text: &str, tokenizer: &Tokenizer) -> Sentences {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| tokenizer.encode(line, Special::Literal)).collect()
}

/// Sentences of another document from a random one on, up to about `n` tokens. Ten draws at most look for
/// another.
fn elsewhere(documents: &[Sentences], index: usize, n: usize, rng: &mut Rng) -> Vec<u32> {
    let mut other = index;
    for _ in 0..10 {
        other = below(rng, documents.len());
        if other != index {
            break;
        }
    }
    let document = &documents[other];
    if document.is_empty() {
        return Vec::new();
    }
    let start = below(rng, document.len());
    let mut b = Vec::new();
    for sentence in &document[start..] {
        b.extend_from_slice(sentence);
        if b.len() >= n {
            break;
        }
    }
    b
}

/// Takes tokens from the longer of two, from its front or its end, until both have `n_max` together.
fn truncate(a: &mut Vec<u32>, b: &mut Vec<u32>, n_max: usize, rng: &mut Rng) {
    let (mut cut_a, mut cut_b) = ((0, a.len()), (0, b.len()));
    while cut_a.1 - cut_a.0 + cut_b.1 - cut_b.0 > n_max {
        let longer = if cut_a.1 - cut_a.0 > cut_b.1 - cut_b.0 { &mut cut_a } else { &mut cut_b };
        match rng.uniform() < 0.5 {
            true => longer.0 += 1,
            false => longer.1 -= 1,
        }
    }
    *a = a[cut_a.0..cut_a.1].to_vec();
    *b = b[cut_b.0..cut_b.1].to_vec();
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{characters, word_pieces};
    use super::*;
    use crate::random::keyed;

    /// Documents whose tokens tell where they stand: 1000 · document + 10 · sentence + place.
    fn documents() -> Vec<Sentences> {
        let sentence = |d: u32, s: u32| (0..3 + (d + s) % 6).map(|t| 1000 * (d + 1) + 10 * s + t).collect();
        (0..30).map(|d| (0..40).map(|s| sentence(d, s)).collect()).collect()
    }

    fn pairs(objective: PairObjective, max_len: usize) -> Vec<Pair> {
        let options = PairOptions { objective, max_len, short_share: 0.1 };
        let pairs = Pairs::new(&word_pieces(), options).unwrap();
        let documents = documents();
        let of = |epoch: u64| {
            let (pairs, documents) = (&pairs, &documents);
            (0..30).flat_map(move |d| pairs.of_document(documents, d, &mut keyed(3, epoch, d as u64)))
        };
        (0..10).flat_map(of).collect()
    }

    fn halves(pair: &Pair) -> (&[u32], &[u32]) {
        let n_first = pair.segments.iter().filter(|&&segment| segment == 0).count();
        (&pair.tokens[1..n_first - 1], &pair.tokens[n_first..pair.tokens.len() - 1])
    }

    #[test]
    fn half_of_the_segments_follow_and_half_come_from_elsewhere() {
        let pairs = pairs(PairObjective::NextSentence, 64);
        let n_other = pairs.iter().filter(|pair| pair.label == Label::Class(1)).count();
        let share = n_other as f64 / pairs.len() as f64;
        assert!(pairs.len() > 1000 && (share - 0.5).abs() < 0.05, "{share} of {}", pairs.len());
        for pair in &pairs {
            let (a, b) = halves(pair);
            assert!(pair.tokens.len() <= 64 && pair.segments.len() == pair.tokens.len());
            assert!(!a.is_empty() && !b.is_empty());
            let is_other = a[0] / 1000 != b[0] / 1000;
            assert_eq!(pair.label, Label::Class(u32::from(is_other)));
            assert!(is_other || a[a.len() - 1] < b[0], "what follows comes later");
        }
    }

    #[test]
    fn half_of_the_ordered_segments_are_swapped() {
        let pairs = pairs(PairObjective::SentenceOrder, 64);
        let mut n_swapped = 0;
        for pair in &pairs {
            let (a, b) = halves(pair);
            assert_eq!(a[0] / 1000, b[0] / 1000);
            assert_eq!(pair.label, Label::Class(u32::from(a[0] > b[0])));
            n_swapped += usize::from(a[0] > b[0]);
        }
        let share = n_swapped as f64 / pairs.len() as f64;
        assert!((share - 0.5).abs() < 0.05, "{share}");
    }

    #[test]
    fn a_lone_document_gives_pairs_and_an_empty_one_none() {
        let options = PairOptions { objective: PairObjective::NextSentence, max_len: 16, short_share: 0.0 };
        let pairs = Pairs::new(&word_pieces(), options).unwrap();
        assert!(!pairs.of_document(&documents()[..1], 0, &mut keyed(0, 0, 0)).is_empty());
        assert!(pairs.of_document(&[vec![]], 0, &mut keyed(0, 0, 0)).is_empty());
        assert_eq!(sentences("the dog\n\n the fox\n", &word_pieces()).len(), 2);
    }

    #[test]
    fn a_vocabulary_without_separators_and_pairs_without_room_are_refused() {
        let options = PairOptions { objective: PairObjective::NextSentence, max_len: 16, short_share: 0.0 };
        assert!(matches!(Pairs::new(&characters(), options), Err(Error::MissingToken { .. })));
        let options = PairOptions { max_len: 4, ..options };
        assert!(matches!(Pairs::new(&word_pieces(), options), Err(Error::InvalidOption { .. })));
    }
}
