//! Plain text as documents: whole files, lines, paragraphs, books of Project Gutenberg, the text of XML.

use super::row::Row;
use super::sink::{Halt, Lines, Sink};
use std::io::BufRead;

/// A document per file. One longer than the piece allowed comes in pieces.
pub(crate) fn whole(text: &mut dyn BufRead, sink: &mut Sink<'_>) -> Result<(), Halt> {
    collect(text, sink, |_| true)
}

/// The lines that `keeps` wants, as one document.
///
/// Pieces are cut before a line that begins with a letter or the like: words are never cut, and white space
/// stays together, so that tokens come out as they would of the whole.
fn collect(
    text: &mut dyn BufRead,
    sink: &mut Sink<'_>,
    mut keeps: impl FnMut(&mut String) -> bool,
) -> Result<(), Halt> {
    let (mut lines, mut piece) = (Lines::default(), String::new());
    while sink.next_line(text, &mut lines)? {
        let starts_clean = !lines.text.starts_with(char::is_whitespace);
        if piece.len() + lines.text.len() > sink.options.piece_bytes_max && starts_clean && !piece.is_empty()
        {
            sink.at("line", 0);
            sink.row(Row::Text(std::mem::take(&mut piece)))?;
            sink.place.continues = true;
        }
        if keeps(&mut lines.text) {
            piece.push_str(&lines.text);
        }
    }
    sink.at("line", 0);
    if piece.is_empty() {
        if !sink.place.continues {
            sink.drop("an empty text");
        }
        return Ok(());
    }
    sink.row(Row::Text(piece))
}

/// A document per line; blank lines are none.
pub(crate) fn lines(text: &mut dyn BufRead, sink: &mut Sink<'_>) -> Result<(), Halt> {
    let mut lines = Lines::default();
    while sink.next_line(text, &mut lines)? {
        let line = lines.text.trim_end_matches(['\n', '\r']);
        if !line.trim().is_empty() {
            sink.row(Row::Text(line.to_string()))?;
        }
    }
    Ok(())
}

/// A document per run of lines without a blank one.
pub(crate) fn paragraphs(text: &mut dyn BufRead, sink: &mut Sink<'_>) -> Result<(), Halt> {
    let (mut lines, mut paragraph) = (Lines::default(), String::new());
    loop {
        let more = sink.next_line(text, &mut lines)?;
        if more && !lines.text.trim().is_empty() {
            paragraph.push_str(&lines.text);
            continue;
        }
        if !paragraph.is_empty() {
            sink.row(Row::Text(std::mem::take(&mut paragraph)))?;
        }
        if !more {
            return Ok(());
        }
    }
}

/// A book between the lines with which Project Gutenberg begins and ends it. Source: their files since 1991,
/// whose oldest say `*END THE SMALL PRINT!` before the text and nothing fixed after it.
pub(crate) fn gutenberg(text: &mut dyn BufRead, sink: &mut Sink<'_>) -> Result<(), Halt> {
    const STARTS: [&str; 4] = ["*** START OF", "***START OF", "*END*THE SMALL PRINT", "*END THE SMALL PRINT"];
    const ENDS: [&str; 4] =
        ["*** END OF", "***END OF", "End of the Project Gutenberg", "End of Project Gutenberg"];
    let (mut has_begun, mut has_ended) = (false, false);
    collect(text, sink, |line| {
        let is_any = |marks: [&str; 4]| marks.iter().any(|mark| line.starts_with(mark));
        if !has_begun {
            has_begun = is_any(STARTS);
            return false;
        }
        has_ended |= is_any(ENDS);
        !has_ended
    })?;
    if !has_begun && !sink.is_halted() {
        sink.wrong("a line that begins with *** START OF or *END*THE SMALL PRINT", "none")?;
    }
    Ok(())
}

/// A text per line whose label is the file's extension.
pub(crate) fn labelled_lines(text: &mut dyn BufRead, sink: &mut Sink<'_>) -> Result<(), Halt> {
    let (mut lines, label) = (Lines::default(), sink.file.extension());
    while sink.next_line(text, &mut lines)? {
        match lines.text.trim() {
            "" => sink.drop("an empty text"),
            line => {
                let row = Row::Classified { text: line.to_string(), text_pair: None, label: label.clone() };
                sink.row(row)?;
            }
        }
    }
    Ok(())
}

/// What stands between the tags, lines without text left out. Comments, declarations and processing
/// instructions are no text; the five entities of XML and numbers become characters.
pub(crate) fn xml(text: &mut dyn BufRead, sink: &mut Sink<'_>) -> Result<(), Halt> {
    let mut ends_with: Option<&str> = None;
    collect(text, sink, |line| {
        let mut out = String::new();
        let mut rest = line.as_str();
        while !rest.is_empty() {
            if let Some(end) = ends_with {
                let Some(at) = rest.find(end) else { break };
                rest = &rest[at + end.len()..];
                ends_with = None;
                continue;
            }
            let at = rest.find('<').unwrap_or(rest.len());
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            if !rest.is_empty() {
                ends_with = Some(if rest.starts_with("<!--") { "-->" } else { ">" });
            }
        }
        *line = unescaped(out.trim());
        let has_text = !line.is_empty();
        line.push('\n');
        has_text
    })
}

/// Entities as the characters that they stand for; those that are not known stay.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let entity = rest.find(';').map(|end| &rest[1..end]).filter(|entity| entity.len() <= 8);
        let stands_for = entity.and_then(|entity| match entity {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => match entity.strip_prefix("#x") {
                Some(hex) => u32::from_str_radix(hex, 16).ok().and_then(char::from_u32),
                None => entity.strip_prefix('#')?.parse().ok().and_then(char::from_u32),
            },
        });
        match (stands_for, entity) {
            (Some(c), Some(entity)) => {
                out.push(c);
                rest = &rest[entity.len() + 2..];
            }
            _ => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::super::options::{LineEnds, ReadOptions};
    use super::super::readers::tests::shown;
    use expect_test::{Expect, expect};

    fn check(format: &str, content: &str, expected: Expect) {
        let options = ReadOptions { format: Some(format.to_string()), ..Default::default() };
        expected.assert_eq(&shown("a.pos", content.as_bytes(), &options));
    }

    #[test]
    fn plain_text_is_a_document_per_file_line_or_paragraph() {
        let text = "one\r\ntwo\n\n\nthree\n";
        check("text", text, expect![[r#"Text("one\ntwo\n\n\nthree\n")"#]]);
        check(
            "lines",
            text,
            expect![[r#"
            line 1: Text("one")
            line 2: Text("two")
            line 5: Text("three")"#]],
        );
        check(
            "paragraphs",
            text,
            expect![[r#"
            line 3: Text("one\ntwo\n")
            line 5: Text("three\n")"#]],
        );
        check(
            "labelled-lines",
            text,
            expect![[r#"
            line 1: Classified { text: "one", text_pair: None, label: "pos" }
            line 2: Classified { text: "two", text_pair: None, label: "pos" }
            line 5: Classified { text: "three", text_pair: None, label: "pos" }
            dropped 2: an empty text, first at a.pos, line 3"#]],
        );
    }

    #[test]
    fn line_ends_stay_where_that_is_asked_for() {
        let options = ReadOptions { line_ends: LineEnds::Keep, ..Default::default() };
        assert_eq!(shown("a.txt", b"one\r\ntwo", &options), r#"Text("one\r\ntwo")"#);
    }

    #[test]
    fn a_long_document_comes_in_pieces_that_begin_with_a_word() {
        let options = ReadOptions { piece_bytes_max: 6, ..Default::default() };
        let shown = shown("a.txt", b"one\ntwo\n\n  three\nfour\n", &options);
        assert_eq!(shown, "Text(\"one\\n\")\n... Text(\"two\\n\\n  three\\n\")\n... Text(\"four\\n\")");
    }

    #[test]
    fn a_book_loses_the_licence_around_it() {
        let book = "Licence\n*** START OF THIS BOOK ***\nText\n*** END OF THIS BOOK ***\nLicence\n";
        check("gutenberg", book, expect![[r#"Text("Text\n")"#]]);
        check(
            "gutenberg",
            "Text only\n",
            expect![
                "error: a.pos: expected a line that begins with *** START OF or *END*THE SMALL PRINT; got none"
            ],
        );
    }

    #[test]
    fn xml_leaves_its_text() {
        check(
            "xml",
            "<?xml version=\"1.0\"?>\n<!-- no\n text > -->\n<a\n b='c'>x &amp; y</a>\n\n<l>&#233;&#x41;&lt;&nbsp;</l>\n",
            expect![[r#"Text("x & y\néA<&nbsp;\n")"#]],
        );
    }
}
