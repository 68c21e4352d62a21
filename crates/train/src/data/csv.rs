//! Tables of text: a header with the names of the fields, then a row each (RFC 4180).
//!
//! Fields in double quotes may hold the divider, line breaks, and quotes written twice. In tables divided by
//! tabs a quote is a character like others, as those who write them mean it.

use super::sink::{Halt, Lines, Sink};
use serde_json::{Map, Value};
use std::io::BufRead;

pub(crate) fn commas(text: &mut dyn BufRead, sink: &mut Sink<'_>) -> Result<(), Halt> {
    table(text, sink, ',', Quotes::Enclose)
}

pub(crate) fn tabs(text: &mut dyn BufRead, sink: &mut Sink<'_>) -> Result<(), Halt> {
    table(text, sink, '\t', Quotes::AreText)
}

#[derive(Clone, Copy, PartialEq)]
enum Quotes {
    Enclose,
    AreText,
}

fn table(text: &mut dyn BufRead, sink: &mut Sink<'_>, divider: char, quotes: Quotes) -> Result<(), Halt> {
    let mut lines = Lines::default();
    let mut header: Option<Vec<String>> = None;
    while sink.next_line(text, &mut lines)? {
        if lines.text.trim().is_empty() {
            continue;
        }
        let start = sink.place.number;
        let mut record = Record { fields: vec![String::new()], ..Record::default() };
        record.take(&lines.text, divider, quotes);
        while record.is_quoted && sink.next_line(text, &mut lines)? {
            record.take(&lines.text, divider, quotes);
        }
        sink.at("line", start);
        if record.is_quoted {
            return sink.wrong("a double quote that ends the field", "the end of the file");
        }
        let fields = record.fields;
        let Some(names) = &header else {
            header = Some(fields.into_iter().map(|name| name.trim().to_string()).collect());
            continue;
        };
        if fields.len() != names.len() {
            let expected = format!("{} fields ({})", names.len(), names.join(", "));
            sink.wrong(expected, format!("{} fields", fields.len()))?;
            continue;
        }
        let named = names.iter().cloned().zip(fields.into_iter().map(Value::String));
        sink.object(named.collect::<Map<String, Value>>())?;
    }
    Ok(())
}

/// The fields of a row as far as they are read.
#[derive(Default)]
struct Record {
    fields: Vec<String>,
    /// Whether the last field is inside its quotes.
    is_quoted: bool,
    /// Whether the last field's quotes are closed.
    was_quoted: bool,
}

impl Record {
    fn take(&mut self, line: &str, divider: char, quotes: Quotes) {
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            let field = self.fields.last_mut().expect("a record has a field");
            match c {
                '"' if self.is_quoted && chars.peek() == Some(&'"') => {
                    chars.next();
                    field.push('"');
                }
                '"' if self.is_quoted => (self.is_quoted, self.was_quoted) = (false, true),
                c if self.is_quoted => field.push(c),
                '"' if quotes == Quotes::Enclose && field.is_empty() && !self.was_quoted => {
                    self.is_quoted = true
                }
                '\r' | '\n' if chars.clone().all(|c| c == '\n') => return,
                c if c == divider => {
                    self.fields.push(String::new());
                    self.was_quoted = false;
                }
                c => field.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::ReadOptions;
    use super::super::readers::tests::shown;
    use expect_test::{Expect, expect};

    fn check(name: &str, content: &str, expected: Expect) {
        expected.assert_eq(&shown(name, content.as_bytes(), &ReadOptions::default()));
    }

    #[test]
    fn quotes_enclose_dividers_line_breaks_and_quotes() {
        check(
            "a.csv",
            "text,label\r\n\"a, \"\"b\"\"\r\nc\",x\r\nd \"e\",\"\"\r\n",
            expect![[r#"
            line 2: Classified { text: "a, \"b\"\nc", text_pair: None, label: "x" }
            line 4: Classified { text: "d \"e\"", text_pair: None, label: "" }"#]],
        );
        check(
            "a.tsv",
            "text\tlabel\n\"a\tx\nb, c\t1\n",
            expect![[r#"
            line 2: Classified { text: "\"a", text_pair: None, label: "x" }
            line 3: Classified { text: "b, c", text_pair: None, label: "1" }"#]],
        );
    }

    #[test]
    fn broken_tables_are_named_with_their_line() {
        check(
            "a.csv",
            "text,label\na,b\nc\n",
            expect![[r#"
            line 2: Classified { text: "a", text_pair: None, label: "b" }
            error: a.csv, line 3: expected 2 fields (text, label); got 1 fields"#]],
        );
        check(
            "a.csv",
            "text,label\n\"a,b\nc,d\n",
            expect![
                "error: a.csv, line 2: expected a double quote that ends the field; got the end of the file"
            ],
        );
        check(
            "a.csv",
            "one,two\na,b\n",
            expect![
                "error: a.csv, line 2: expected fields of one of these kinds: chosen + rejected; prompt + completion + label; messages; conversations; image + answer|caption|completion|response|output; instruction + instances; instruction + output|response; context + question + answers; words|tokens + tags|ner_tags|pos_tags; translation; source + target; text|sentence|sentence1|premise + label; prompt|question + completion|response|answer; paragraphs; text|content; got the fields one, two"
            ],
        );
        check("a.csv", "text,label\n", expect!["error: a.csv has no row to train on: 0 rows in 1 files"]);
    }
}
