//! GPT-2's alphabet for bytes: each of the 256 bytes is written as one printable character, so that a vocabulary of
//! byte strings can be stored as text.
//!
//! Bytes 33-126, 161-172 and 174-255 are written as themselves, the other 68 as U+0100 onwards, in order.
//! Source: Language Models are Unsupervised Multitask Learners (2019), §2.2, and the `bytes_to_unicode` of its code.

/// The character that stands for `byte`.
pub(crate) fn char_of_byte(byte: u8) -> char {
    let c = match byte {
        33..=126 | 161..=172 | 174..=255 => byte as u32,
        0..=32 => 256 + byte as u32,
        127..=160 => 256 + 33 + (byte as u32 - 127),
        173 => 256 + 67,
    };
    char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that `c` stands for, if any.
pub(crate) fn byte_of_char(c: char) -> Option<u8> {
    Some(match c as u32 {
        c @ (33..=126 | 161..=172 | 174..=255) => c as u8,
        c @ 256..=288 => (c - 256) as u8,
        c @ 289..=322 => (c - 289 + 127) as u8,
        323 => 173,
        _ => return None,
    })
}

/// Appends the bytes that `piece` stands for. A piece with a character outside the alphabet is text as it is, as in
/// Hugging Face's decoder.
pub(crate) fn decode_into(piece: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in piece.chars() {
        match byte_of_char(c) {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(piece.as_bytes());
                return;
            }
        }
    }
}

/// Appends `text` in the alphabet.
pub(crate) fn encode_into(text: &[u8], out: &mut String) {
    out.extend(text.iter().map(|&byte| char_of_byte(byte)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        let mut seen = std::collections::BTreeSet::new();
        for byte in 0..=255 {
            let c = char_of_byte(byte);
            assert!(seen.insert(c) && !c.is_whitespace() && !c.is_control(), "{byte} is {c:?}");
            assert_eq!(byte_of_char(c), Some(byte));
        }
        assert_eq!((char_of_byte(b' '), char_of_byte(b'\n'), char_of_byte(173)), ('Ġ', 'Ċ', 'Ń'));
        assert_eq!((0..0x500).filter_map(char::from_u32).filter_map(byte_of_char).count(), 256);
    }

    #[test]
    fn a_piece_outside_the_alphabet_is_text_as_it_is() {
        let mut out = Vec::new();
        decode_into("Ġé", &mut out);
        decode_into("a b", &mut out);
        assert_eq!(out, [b' ', 0xE9, b'a', b' ', b'b']);
    }
}
