//! The Unicode classes that pre-tokenizers tell apart: one letter of the general category, with marks in two.
//!
//! The table is generated from the same data that the regular expressions use, so that a hand-written scanner and the
//! expression that it stands for see the same classes; the test below regenerates it (`UPDATE_EXPECT=1`).
//! White space is not a class here: `char::is_whitespace` is `\s`.

use std::sync::LazyLock;

/// The first letter of the general category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    /// `\p{L}`
    Letter,
    /// `\p{Mn}`
    MarkNonspacing,
    /// `\p{Mc}`, `\p{Me}`
    MarkOther,
    /// `\p{N}`
    Number,
    /// `\p{P}`
    Punctuation,
    /// `\p{S}`
    Symbol,
    /// `\p{Z}`
    Separator,
    /// `\p{Cc}`, `\p{Cf}`, `\p{Co}`
    Other,
    /// `\p{Cn}`
    Unassigned,
}

/// The class of `c`.
pub(crate) fn class_of(c: char) -> Class {
    match BASIC_PLANE.get(c as usize) {
        Some(&class) => class,
        None => search(c as u32),
    }
}

/// The classes of the first 2^16 code points, since nearly all text lies there; surrogates are no characters.
static BASIC_PLANE: LazyLock<Box<[Class]>> = LazyLock::new(|| {
    let mut classes = vec![Class::Unassigned; 0x10000].into_boxed_slice();
    for (i, &(start, class)) in RANGES.iter().enumerate() {
        let end = RANGES.get(i + 1).map_or(0x11_0000, |next| next.0).min(0x10000);
        if start < end {
            classes[start as usize..end as usize].fill(class);
        }
    }
    classes
});

fn search(c: u32) -> Class {
    let after = RANGES.partition_point(|range| range.0 <= c);
    after.checked_sub(1).map_or(Class::Unassigned, |i| RANGES[i].1)
}

use Class::{
    Letter as L, MarkNonspacing as M, MarkOther as E, Number as N, Other as C, Punctuation as P,
    Separator as Z, Symbol as S, Unassigned as U,
};

/// Where each run of code points of one class starts.
const RANGES: &[(u32, Class)] = include!("unicode_ranges.in");

#[cfg(test)]
mod tests {
    use super::*;

    const PROPERTIES: [(&str, char); 9] = [
        ("L", 'L'),
        ("Mn", 'M'),
        ("[\\p{Mc}\\p{Me}]", 'E'),
        ("N", 'N'),
        ("P", 'P'),
        ("S", 'S'),
        ("Z", 'Z'),
        ("[\\p{Cc}\\p{Cf}\\p{Co}]", 'C'),
        ("Cn", 'U'),
    ];

    #[test]
    fn the_table_is_what_the_regular_expressions_see() {
        let every_char: String = (0..=0x10_FFFF).filter_map(char::from_u32).collect();
        let mut starts: Vec<(u32, char)> = Vec::new();
        for (property, letter) in PROPERTIES {
            let class =
                if property.starts_with('[') { property.to_string() } else { format!("\\p{{{property}}}") };
            let regex = fancy_regex::Regex::new(&format!("{class}+")).unwrap();
            starts.extend(regex.find_iter(&every_char).map(|found| {
                let first = found.unwrap().as_str().chars().next().unwrap();
                (first as u32, letter)
            }));
        }
        starts.sort();
        starts.dedup_by_key(|start| start.1);
        let mut table = String::from("&[\n");
        for row in starts.chunks(8) {
            let row: Vec<String> =
                row.iter().map(|(start, letter)| format!("(0x{start:X}, {letter})")).collect();
            table.push_str(&format!("    {},\n", row.join(", ")));
        }
        table.push_str("]\n");
        expect_test::expect_file!["unicode_ranges.in"].assert_eq(&table);
    }

    #[test]
    fn the_fast_table_and_the_search_agree() {
        for c in (0..=0x10_FFFF).step_by(7).filter_map(char::from_u32) {
            assert_eq!(class_of(c), search(c as u32), "{c:?}");
        }
    }
}
