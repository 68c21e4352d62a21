//! Sets of characters.

/// A set of characters as ranges of code points, both ends included: sorted, apart from each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Class(Vec<(u32, u32)>);

/// Code points that are no characters.
const SURROGATES: (u32, u32) = (0xD800, 0xDFFF);

impl Class {
    /// The characters of `ranges`.
    pub fn new(mut ranges: Vec<(u32, u32)>) -> Class {
        ranges.retain(|range| range.0 <= range.1);
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (from, to) in ranges {
            match merged.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Class(merged)
    }

    /// A single character.
    pub fn of(c: char) -> Class {
        Class(vec![(c as u32, c as u32)])
    }

    /// All other characters.
    pub fn negated(&self) -> Class {
        let mut taken = self.0.clone();
        taken.push(SURROGATES);
        let taken = Class::new(taken);
        let mut next = 0;
        let mut ranges = Vec::new();
        for &(from, to) in &taken.0 {
            if next < from {
                ranges.push((next, from - 1));
            }
            next = to + 1;
        }
        if next <= char::MAX as u32 {
            ranges.push((next, char::MAX as u32));
        }
        Class(ranges)
    }

    /// The characters of both.
    pub fn union(&self, other: &Class) -> Class {
        Class::new([&self.0[..], &other.0[..]].concat())
    }

    /// Whether a character is in both.
    pub fn meets(&self, other: &Class) -> bool {
        self.0.iter().any(|a| other.0.iter().any(|b| a.0 <= b.1 && b.0 <= a.1))
    }

    /// With every character whose UTF-8 begins with the same byte as that of a character in it.
    pub fn widened(&self) -> Class {
        // Code points up to which a character has so many bytes, and how many share their first byte.
        const KINDS: [(u32, u32, u32); 4] =
            [(0, 0x7F, 1), (0x80, 0x7FF, 64), (0x800, 0xFFFF, 4096), (0x1_0000, 0x10_FFFF, 262_144)];
        let mut ranges = Vec::new();
        for &(from, to) in &self.0 {
            for (first, last, block) in KINDS {
                let (from, to) = (from.max(first), to.min(last));
                if from <= to {
                    ranges.push((
                        (from / block * block).max(first),
                        (to / block * block + block - 1).min(last),
                    ));
                }
            }
        }
        Class::new(ranges)
    }

    /// Whether no character is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its only character, if it has just one.
    pub fn single(&self) -> Option<char> {
        match self.0[..] {
            [(from, to)] if from == to => char::from_u32(from),
            _ => None,
        }
    }

    /// Whether `c` is in it.
    #[cfg(test)]
    pub fn has(&self, c: char) -> bool {
        self.0.iter().any(|range| range.0 <= c as u32 && c as u32 <= range.1)
    }

    /// As a regular expression.
    pub fn regex(&self) -> String {
        let code = |c: u32| format!("\\u{{{c:x}}}");
        let range = |&(from, to): &(u32, u32)| match from == to {
            true => code(from),
            false => format!("{}-{}", code(from), code(to)),
        };
        format!("[{}]", self.0.iter().map(range).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negated_class_has_every_other_character_and_no_surrogate() {
        let class = Class::new(vec![(0x61, 0x63), (0x62, 0x7A), (0, 9)]);
        assert_eq!(class, Class(vec![(0, 9), (0x61, 0x7A)]));
        let other = class.negated();
        assert_eq!(other, Class(vec![(10, 0x60), (0x7B, 0xD7FF), (0xE000, 0x10FFFF)]));
        assert_eq!(other.negated(), class);
        assert!(!class.meets(&other) && class.meets(&Class::of('z')) && !class.has('A'));
        assert!(Class::default().negated().negated().is_empty());
        let wide = Class::new(vec![(0x61, 0x62), (0xE9, 0xE9)]).widened();
        assert_eq!(wide, Class(vec![(0x61, 0x62), (0xC0, 0xFF)]));
        assert_eq!((Class::of('x').single(), class.single()), (Some('x'), None));
    }
}
