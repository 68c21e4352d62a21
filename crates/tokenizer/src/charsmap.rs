//! How SentencePiece prepares text: a table of replacements (`precompiled_charsmap`), white space, U+2581 for spaces.
//!
//! The table is a double array (darts-clone) over UTF-8 bytes, followed by the replacements, each ended by a zero
//! byte; the longest match at each position is replaced. Every index is checked, since the table is foreign.
//! Source: SentencePiece: A simple and language independent subword tokenizer, arXiv:1808.06226, §3.2, and
//! `normalizer.cc` of its code.

use crate::Error;
use crate::added_tokens::{AddedToken, AddedTokens, Fragment};
use crate::algorithms::After;
use crate::{Special, TokenId};

/// U+2581, what SentencePiece writes for a space.
pub(crate) const SPACE: &str = "\u{2581}";

/// A table of replacements.
#[derive(Debug, Clone, Default)]
pub(crate) struct Charsmap {
    units: Vec<u32>,
    replacements: Vec<u8>,
}

impl Charsmap {
    /// Reads the blob: its first four bytes are the length of the double array in bytes.
    pub fn read(blob: &[u8], source_name: &str) -> Result<Charsmap, Error> {
        if blob.is_empty() {
            return Ok(Charsmap::default());
        }
        let wrong =
            |expected: String, got: String| Error::field(source_name, "precompiled_charsmap", expected, got);
        let Some((head, rest)) = blob.split_first_chunk::<4>() else {
            return Err(wrong("at least 4 bytes".into(), format!("{} bytes", blob.len())));
        };
        let len = u32::from_le_bytes(*head) as usize;
        if len > rest.len() || len % 4 != 0 {
            let expected = format!("a table of whole units in {} bytes", rest.len());
            return Err(wrong(expected, format!("{len} bytes")));
        }
        let (units, replacements) = rest.split_at(len);
        let units =
            units.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]));
        Ok(Charsmap { units: units.collect(), replacements: replacements.to_vec() })
    }

    /// Whether every index that any text can lead to is inside the table.
    ///
    /// [`Charsmap::longest`] does not need it; the crate `tokenizers`, which reads the same tables, does.
    pub fn is_sound(&self) -> bool {
        let Ok(replacements) = std::str::from_utf8(&self.replacements) else { return false };
        let offset = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let mut seen = vec![false; self.units.len()];
        let mut open = match self.units.first() {
            Some(&root) => vec![offset(root)],
            None => return false,
        };
        while let Some(base) = open.pop() {
            // The bytes that may follow lead to the 256 units around `base`.
            let Some(seen) = seen.get_mut(base as usize).filter(|_| ((base | 0xFF) as usize) < self.units.len())
            else {
                return false;
            };
            if std::mem::replace(seen, true) {
                continue;
            }
            for byte in 1..=0xFF {
                let at = base ^ byte;
                let unit = self.units[at as usize];
                if unit & (1 << 31 | 0xFF) != byte {
                    continue;
                }
                let next = at ^ offset(unit);
                if unit >> 8 & 1 == 1 {
                    let leaf = self.units.get(next as usize).map(|leaf| leaf & !(1 << 31));
                    if !leaf.is_some_and(|start| replacements.is_char_boundary(start as usize)) {
                        return false;
                    }
                }
                open.push(next);
            }
        }
        true
    }

    /// The length of the longest prefix of `text` with a replacement, and the replacement.
    fn longest(&self, text: &str) -> Option<(usize, &str)> {
        let unit = |at: u32| self.units.get(at as usize).copied();
        let offset = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let mut found = None;
        let mut at = offset(unit(0)?);
        for (i, byte) in text.bytes().enumerate().take_while(|&(_, byte)| byte != 0) {
            at ^= byte as u32;
            let Some(node) = unit(at) else { break };
            if node & (1 << 31 | 0xFF) != byte as u32 {
                break;
            }
            at ^= offset(node);
            if node >> 8 & 1 == 1 {
                let Some(leaf) = unit(at) else { break };
                found = Some((i + 1, leaf & !(1 << 31)));
            }
        }
        let (len, start) = found?;
        let bytes = self.replacements.get(start as usize..)?;
        let end = bytes.iter().position(|&byte| byte == 0)?;
        let replacement = std::str::from_utf8(&bytes[..end]).ok()?;
        text.is_char_boundary(len).then_some((len, replacement))
    }

    fn is_empty(&self) -> bool {
        self.units.is_empty()
    }
}

/// Everything that is done to text before it is cut into pieces.
#[derive(Debug, Clone)]
pub(crate) struct SentencePieceNormalizer {
    pub charsmap: Charsmap,
    /// Where the space that marks the start of a word goes, if text gets one.
    pub dummy_space: DummySpace,
    /// Whether runs of spaces become one and those at both ends vanish.
    pub merges_spaces: bool,
    /// Whether the space of [`DummySpace::Before`] comes again after a user-defined token, as in llama.cpp.
    pub again_after_user_defined: bool,
    /// Text that is not changed.
    pub user_defined: Option<AddedTokens>,
}

/// Where SentencePiece adds a space to the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DummySpace {
    Before,
    After,
    None,
}

impl SentencePieceNormalizer {
    /// Only writes U+2581 for spaces and puts one before the text.
    pub fn plain(dummy_space: DummySpace) -> SentencePieceNormalizer {
        SentencePieceNormalizer {
            charsmap: Charsmap::default(),
            dummy_space,
            merges_spaces: false,
            again_after_user_defined: true,
            user_defined: None,
        }
    }

    /// Leaves `tokens` as they are.
    pub fn keep(&mut self, tokens: impl Iterator<Item = (TokenId, String)>) {
        let tokens: Vec<AddedToken> = tokens.map(|(id, text)| AddedToken::new(&text, id, false)).collect();
        self.user_defined = (!tokens.is_empty()).then(|| AddedTokens::new(tokens));
    }

    /// The text as the algorithm sees it; empty if nothing is left.
    pub fn normalize(&self, text: &str, after: After) -> String {
        let mut mapped = String::with_capacity(text.len() + text.len() / 4 + 3);
        if self.charsmap.is_empty() {
            mapped.push_str(text);
        } else {
            match &self.user_defined {
                Some(kept) => kept.split(text, Special::Literal, |fragment| match fragment {
                    Fragment::Text(part) => self.map(part, &mut mapped),
                    Fragment::Token(id) => mapped.push_str(kept.text_of(id).unwrap_or_default()),
                }),
                None => self.map(text, &mut mapped),
            }
        }
        let trimmed = if self.merges_spaces { mapped.trim_matches(' ') } else { &mapped };
        if trimmed.is_empty() {
            return String::new();
        }
        let mut out = String::with_capacity(trimmed.len() + trimmed.len() / 4 + 3);
        if self.dummy_space == DummySpace::Before && (after == After::Start || self.again_after_user_defined)
        {
            out.push_str(SPACE);
        }
        let mut was_space = false;
        for c in trimmed.chars() {
            if c != ' ' {
                out.push(c);
            } else if !(was_space && self.merges_spaces) {
                out.push_str(SPACE);
            }
            was_space = c == ' ';
        }
        if self.dummy_space == DummySpace::After {
            out.push_str(SPACE);
        }
        out
    }

    fn map(&self, text: &str, out: &mut String) {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let len = match self.charsmap.longest(rest) {
                Some((len, replacement)) => {
                    out.push_str(replacement);
                    len
                }
                None => {
                    out.push(c);
                    c.len_utf8()
                }
            };
            rest = &rest[len..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spaces_are_written_as_the_options_say() {
        let check = |dummy_space, merges_spaces, text: &str, expected: &str| {
            let normalizer =
                SentencePieceNormalizer { merges_spaces, ..SentencePieceNormalizer::plain(dummy_space) };
            assert_eq!(normalizer.normalize(text, After::Start), expected, "{text:?}");
        };
        check(DummySpace::Before, false, " a  b", "▁▁a▁▁b");
        check(DummySpace::Before, true, " a  b ", "▁a▁b");
        check(DummySpace::After, true, "a b", "a▁b▁");
        check(DummySpace::None, false, "a b", "a▁b");
        check(DummySpace::Before, true, "  ", "");
        check(DummySpace::Before, false, "", "");
    }

    #[test]
    fn a_table_that_does_not_fit_is_refused() {
        for (blob, expected) in [(&[1u8, 2][..], "at least 4 bytes"), (&[8, 0, 0, 0, 1], "whole units")] {
            let error = Charsmap::read(blob, "x.gguf").unwrap_err().to_string();
            assert!(error.contains("precompiled_charsmap") && error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_table_makes_it_panic(mut blob in proptest::collection::vec(any::<u8>(), 8..400), text in ".{0,40}") {
            let len = (blob.len() - 4) / 8 * 4;
            blob[..4].copy_from_slice(&(len as u32).to_le_bytes());
            let charsmap = Charsmap::read(&blob, "x").unwrap();
            charsmap.is_sound();
            let mut normalizer = SentencePieceNormalizer::plain(DummySpace::Before);
            normalizer.charsmap = charsmap;
            normalizer.normalize(&text, After::Start);
        }
    }
}
