//! What is kept for validation: the same documents in every run, whatever order they come in.

use super::files::Source;
use crate::Error;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// Which part of the data measures the model and is never learnt.
#[derive(Debug, Clone, PartialEq)]
pub enum Validation {
    /// None.
    Off,
    /// Documents by a hash of their text: that share of them, the same in every run and whatever else is in
    /// the data.
    Hash(f64),
    /// The last share of one text, as nanoGPT divides TinyShakespeare.
    Tail(f64),
    /// A file of its own.
    Separate(Source),
}

/// The part of the data that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What is learnt.
    Train,
    /// What measures.
    Validation,
}

impl FromStr for Validation {
    type Err = Error;

    /// `off`, `hash 5%`, `tail 10%`, or a file.
    fn from_str(text: &str) -> Result<Validation, Error> {
        let refused = |reason: &str| Error::InvalidOption {
            option: "validation",
            reason: format!("`{text}`: {reason}; expected `off`, `hash 5%`, `tail 10%` or a file"),
        };
        let share = |percent: &str| {
            let percent = percent.trim().strip_suffix('%').ok_or_else(|| refused("no percentage"))?;
            let share = percent.trim().parse::<f64>().map_err(|_| refused("no number"))? / 100.0;
            if share > 0.0 && share < 1.0 { Ok(share) } else { Err(refused("not between 0 % and 100 %")) }
        };
        match text.trim().split_once(' ') {
            Some(("hash", percent)) => share(percent).map(Validation::Hash),
            Some(("tail", percent)) => share(percent).map(Validation::Tail),
            _ if text.trim() == "off" => Ok(Validation::Off),
            _ if text.trim().is_empty() => Err(refused("empty")),
            _ => Ok(Validation::Separate(Source::parse(text.trim()))),
        }
    }
}

impl fmt::Display for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Validation::Off => f.write_str("off"),
            Validation::Hash(share) => write!(f, "hash {}%", share * 100.0),
            Validation::Tail(share) => write!(f, "tail {}%", share * 100.0),
            Validation::Separate(source) => source.fmt(f),
        }
    }
}

/// The part to which a document belongs when a share is kept by hash; of a document in pieces, the first
/// decides.
pub fn part_by_hash(document: &str, share: f64) -> Part {
    let digest = Sha256::digest(document.as_bytes());
    let hash = u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"));
    match (hash >> 11) as f64 / (1u64 << 53) as f64 {
        draw if draw < share => Part::Validation,
        _ => Part::Train,
    }
}

/// A text cut in two: what is learnt, and the last `share` of its characters.
pub fn tail(text: &str, share: f64) -> (&str, &str) {
    let n = text.chars().count();
    let n_train = n_before_tail(n as u64, share) as usize;
    let at = text.char_indices().map(|(at, _)| at).nth(n_train).unwrap_or(text.len());
    text.split_at(at)
}

/// How many of `n` items come before the last `share` of them: `int(n * (1 - share))`, as nanoGPT counts.
pub fn n_before_tail(n: u64, share: f64) -> u64 {
    (n as f64 * (1.0 - share)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_documents_is_kept_by_what_they_say() {
        let parts: Vec<Part> = (0..20_000).map(|i| part_by_hash(&format!("document {i}"), 0.05)).collect();
        let n = parts.iter().filter(|&&part| part == Part::Validation).count();
        assert!((930..1070).contains(&n), "{n}");
        assert_eq!(part_by_hash("document 17", 0.05), parts[17]);
        // What a small share keeps, a larger one keeps as well.
        let keeps = |share| {
            (0..20_000).filter(move |i| part_by_hash(&format!("document {i}"), share) == Part::Validation)
        };
        let larger: std::collections::BTreeSet<i32> = keeps(0.1).collect();
        assert!(keeps(0.05).all(|i| larger.contains(&i)));
    }

    #[test]
    fn the_tail_of_a_text_is_counted_in_characters() {
        assert_eq!(tail("ééééééééab", 0.2), ("éééééééé", "ab"));
        assert_eq!(tail("", 0.1), ("", ""));
        assert_eq!(n_before_tail(1_115_394, 0.1), 1_003_854, "nanoGPT's shakespeare_char");
    }

    #[test]
    fn validation_is_written_as_people_say_it() {
        let parse = |text: &str| text.parse::<Validation>();
        assert_eq!(parse("tail 10%").unwrap(), Validation::Tail(0.1));
        assert_eq!(parse("hash 0.5 %").unwrap(), Validation::Hash(0.005));
        assert_eq!(parse("off").unwrap().to_string(), "off");
        assert_eq!(parse("a.jsonl").unwrap(), Validation::Separate(Source::of("a.jsonl")));
        assert_eq!(parse("tail 10%").unwrap().to_string(), "tail 10%");
        for wrong in ["tail 10", "hash 0%", "tail 100%", "hash x%", ""] {
            let refused = parse(wrong).unwrap_err().to_string();
            assert!(refused.starts_with("option `validation`: `"), "{refused}");
        }
    }
}
