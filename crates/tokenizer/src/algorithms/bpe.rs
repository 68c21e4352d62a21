//! BPE with a list of merges: byte-level as in GPT-2, or on characters with byte fallback as in Gemma.
//!
//! Merges are looked up by a pair of ids, not by text. A merge may name a string that is no token; it gets a number
//! beyond the vocabulary, and falls apart into bytes if it is still there at the end.
//! Source: Language Models are Unsupervised Multitask Learners (2019), §2.2.

use super::merge::{Merged, Merger, Symbol};
use crate::Error;
use crate::TokenId;
use crate::byte_level;
use crate::pre_tokenize::{PreTokenizer, Row, Symbols};
use crate::vocabulary::{Kind, QuickMap, Vocabulary};

/// What goes into [`Bpe::new`] beside vocabulary and merges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BpeOptions {
    /// How text is cut and what the symbols are.
    pub row: &'static Row,
    /// For bytes without a token; without it they are dropped, as in Hugging Face's `tokenizers`.
    pub unknown: Option<TokenId>,
}

/// The tables of a BPE.
#[derive(Debug, Clone)]
pub(crate) struct Bpe {
    pre_tokenizer: PreTokenizer,
    symbols: Symbols,
    ignores_merges: bool,
    pairs: PairTable,
    n_tokens: u32,
    /// The token of each byte, `NONE` where there is none.
    bytes: Box<[u32; 256]>,
    unknown: Option<TokenId>,
}

const NONE: u32 = u32::MAX;

/// Words that are remembered within one call of `encode`; text repeats its words.
const CACHE_LEN: usize = 1 << 16;

impl Bpe {
    /// `merges` in the order of their ranks: the left part, a space, the right part.
    pub fn new<'m>(
        vocabulary: &Vocabulary,
        merges: impl ExactSizeIterator<Item = &'m str>,
        options: BpeOptions,
    ) -> Result<Bpe, Error> {
        let n_tokens = vocabulary.len() as u32;
        let mut pairs = PairTable::with_capacity(merges.len());
        let mut ghosts: QuickMap<String, u32> = QuickMap::default();
        let mut number = |piece: &str| {
            let token = vocabulary.id(piece).filter(|&id| vocabulary.kind(id) != Kind::Control);
            token.unwrap_or_else(|| {
                let next = n_tokens + ghosts.len() as u32;
                *ghosts.entry(piece.to_string()).or_insert(next)
            })
        };
        let mut whole = String::new();
        // Most vocabularies list the tokens in the order of the merges that make them: looking at the next one first
        // saves a search in a table that no cache holds.
        let mut next: TokenId = 0;
        for (rank, merge) in merges.enumerate() {
            // The space is looked for from the second byte, since a part may be a space itself.
            let space = merge.bytes().skip(1).position(|b| b == b' ').map(|i| i + 1);
            let Some((left, right)) = space.and_then(|at| Some((merge.get(..at)?, merge.get(at + 1..)?)))
            else {
                let got = format!("{merge:?}");
                return Err(Error::field("merges", format!("merge {rank}"), "two parts and a space", got));
            };
            let is_next = next < n_tokens
                && vocabulary.kind(next) != Kind::Control
                && vocabulary.piece(next).strip_prefix(left) == Some(right);
            let id = if is_next {
                next
            } else {
                whole.clear();
                whole.push_str(left);
                whole.push_str(right);
                number(&whole)
            };
            next = id.saturating_add(1);
            pairs.insert(number(left), number(right), Merged { rank: rank as u32, id });
        }
        let mut bytes = Box::new([NONE; 256]);
        for byte in 0..=255u8 {
            let id = match options.row.symbols {
                Symbols::Bytes => vocabulary.id(byte_level::char_of_byte(byte).encode_utf8(&mut [0; 4])),
                Symbols::Characters => vocabulary.byte_id(byte),
            };
            bytes[byte as usize] = id.unwrap_or(NONE);
        }
        Ok(Bpe {
            pre_tokenizer: PreTokenizer::new(options.row.splits)?,
            symbols: options.row.symbols,
            ignores_merges: options.row.ignores_merges,
            pairs,
            n_tokens,
            bytes,
            unknown: options.unknown,
        })
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<TokenId>) {
        let escaped;
        let text = match self.symbols {
            Symbols::Bytes => text,
            Symbols::Characters => {
                escaped = text.replace(' ', "\u{2581}");
                &escaped
            }
        };
        let mut merger = Merger::default();
        let mut cache: QuickMap<&[u8], (u32, u32)> = QuickMap::default();
        self.pre_tokenizer.split(text, &mut |word| {
            if word.len() == 1
                && self.bytes[word.as_bytes()[0] as usize] != NONE
                && self.symbols == Symbols::Bytes
            {
                out.push(self.bytes[word.as_bytes()[0] as usize]);
                return;
            }
            if let Some(&(start, end)) = cache.get(word.as_bytes()) {
                out.extend_from_within(start as usize..end as usize);
                return;
            }
            let start = out.len();
            self.encode_word(vocabulary, word, &mut merger, out);
            if cache.len() < CACHE_LEN && out.len() < u32::MAX as usize {
                cache.insert(word.as_bytes(), (start as u32, out.len() as u32));
            }
        });
    }

    fn encode_word(&self, vocabulary: &Vocabulary, word: &str, merger: &mut Merger, out: &mut Vec<TokenId>) {
        if self.ignores_merges
            && let Some(id) = self.whole(vocabulary, word)
        {
            out.push(id);
            return;
        }
        merger.symbols.clear();
        match self.symbols {
            // A byte without a token is left out before its neighbours merge, as in Hugging Face's `tokenizers`.
            Symbols::Bytes => merger.symbols.extend((0u32..).zip(word.bytes()).filter_map(|(i, byte)| {
                let id = self.bytes[byte as usize];
                (id != NONE || self.unknown.is_some()).then_some(Symbol { id, start: i, end: i + 1 })
            })),
            Symbols::Characters => merger.symbols.extend(word.char_indices().map(|(i, c)| Symbol {
                id: vocabulary.id(c.encode_utf8(&mut [0; 4])).unwrap_or(NONE),
                start: i as u32,
                end: (i + c.len_utf8()) as u32,
            })),
        }
        merger.run(|left, right| self.pairs.get(left.id, right.id));
        for symbol in &merger.symbols {
            if symbol.id < self.n_tokens {
                out.push(symbol.id);
            } else {
                let bytes = &word.as_bytes()[symbol.start as usize..symbol.end as usize];
                out.extend(bytes.iter().filter_map(|&byte| match self.bytes[byte as usize] {
                    NONE => self.unknown,
                    id => Some(id),
                }));
            }
        }
    }

    /// The token that is `word` as a whole.
    fn whole(&self, vocabulary: &Vocabulary, word: &str) -> Option<TokenId> {
        let id = match self.symbols {
            Symbols::Bytes => {
                let mut piece = String::with_capacity(word.len() * 2);
                byte_level::encode_into(word.as_bytes(), &mut piece);
                vocabulary.id(&piece)
            }
            Symbols::Characters => vocabulary.id(word),
        };
        id.filter(|&id| vocabulary.kind(id) != Kind::Control)
    }
}

/// Merges by the pair of ids: one open-addressing table, probed linearly.
#[derive(Debug, Clone)]
struct PairTable {
    slots: Vec<(u64, Merged)>,
    mask: usize,
}

const EMPTY: u64 = u64::MAX;

impl PairTable {
    fn with_capacity(n: usize) -> PairTable {
        let len = (n * 2).next_power_of_two().max(16);
        PairTable { slots: vec![(EMPTY, Merged { rank: 0, id: 0 }); len], mask: len - 1 }
    }

    /// Of two merges of the same pair the first counts.
    fn insert(&mut self, left: u32, right: u32, merged: Merged) {
        let key = (left as u64) << 32 | right as u64;
        let mut at = self.start(key);
        while self.slots[at].0 != EMPTY {
            if self.slots[at].0 == key {
                return;
            }
            at = (at + 1) & self.mask;
        }
        self.slots[at] = (key, merged);
    }

    #[inline]
    fn get(&self, left: u32, right: u32) -> Option<Merged> {
        let key = (left as u64) << 32 | right as u64;
        if key == EMPTY {
            return None;
        }
        let mut at = self.start(key);
        loop {
            let slot = &self.slots[at];
            if slot.0 == key {
                return Some(slot.1);
            }
            if slot.0 == EMPTY {
                return None;
            }
            at = (at + 1) & self.mask;
        }
    }

    #[inline]
    fn start(&self, key: u64) -> usize {
        let h = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (h >> 32) as usize & self.mask
    }
}
