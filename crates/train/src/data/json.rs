//! Objects as rows: one per line, a list of them, or one after the other.

use super::fields::describe;
use super::sink::{Halt, Lines, Sink};
use super::squad;
use crate::Error;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;
use std::io::BufRead;

/// An object per line; blank lines are none.
pub(crate) fn lines(text: &mut dyn BufRead, sink: &mut Sink<'_>) -> Result<(), Halt> {
    let mut lines = Lines::default();
    while sink.next_line(text, &mut lines)? {
        if lines.text.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(&lines.text) {
            Ok(value) => object(value, sink)?,
            Err(error) => sink.wrong("a JSON object", format!("what is no JSON: {error}"))?,
        }
    }
    Ok(())
}

fn object(value: Value, sink: &mut Sink<'_>) -> Result<(), Halt> {
    match value {
        Value::Object(fields) => sink.object(fields),
        other => sink.wrong("a JSON object", describe(Some(&other))),
    }
}

/// Lists of objects and objects, one after the other; the list at `data` of an object counts as such a list.
/// Only one element of a list is held at once.
pub(crate) fn values(text: &mut dyn BufRead, sink: &mut Sink<'_>) -> Result<(), Halt> {
    let mut text = text;
    let mut n_rows = 0;
    loop {
        match skip_space(&mut text) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(source) => return sink.fail(Error::Io { path: sink.place.path.clone(), source }),
        }
        let seed = Top { sink, n_rows: &mut n_rows };
        // The parser takes no byte beyond the value that it reads, so that the next one begins where it
        // stopped.
        if let Err(error) = seed.deserialize(&mut serde_json::Deserializer::from_reader(&mut text)) {
            if sink.is_halted() {
                return Err(Halt);
            }
            // What follows broken JSON cannot be found again: it is an error even where wrong rows are
            // counted.
            let (place, got) = (sink.place.clone(), format!("what is no JSON: {error}"));
            return sink.fail(Error::Row { place, expected: "a JSON list or object".into(), got });
        }
    }
}

/// Skips white space; false at the end.
fn skip_space(text: &mut &mut dyn BufRead) -> std::io::Result<bool> {
    loop {
        let buffer = text.fill_buf()?;
        if buffer.is_empty() {
            return Ok(false);
        }
        let n_space = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let is_found = n_space < buffer.len();
        text.consume(n_space);
        if is_found {
            return Ok(true);
        }
    }
}

/// A value of the top: a list of rows, or an object that is a row or holds a list of them.
struct Top<'a, 'b> {
    sink: &'a mut Sink<'b>,
    n_rows: &'a mut u64,
}

impl Top<'_, '_> {
    fn row<E: serde::de::Error>(&mut self, value: Value) -> Result<(), E> {
        *self.n_rows += 1;
        self.sink.at("row", *self.n_rows);
        let made = match &value {
            Value::Object(fields) if squad::is_article(fields) => squad::article(fields, self.sink),
            _ => object(value, self.sink),
        };
        made.map_err(|Halt| E::custom("halted"))
    }
}

impl<'de> DeserializeSeed<'de> for Top<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Top<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while let Some(value) = items.next_element()? {
            self.row(value)?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let mut fields = serde_json::Map::new();
        let mut holds_list = false;
        while let Some(key) = entries.next_key::<String>()? {
            if key == "data" {
                entries.next_value_seed(Top { sink: &mut *self.sink, n_rows: &mut *self.n_rows })?;
                holds_list = true;
            } else {
                fields.insert(key, entries.next_value()?);
            }
        }
        if holds_list {
            return Ok(());
        }
        self.row(Value::Object(fields))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        Err(E::custom(format!("a list or an object was expected, not the text {text:?}")))
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
    fn objects_come_in_lists_in_lines_or_one_after_the_other() {
        check(
            "a.jsonl",
            "{\"text\": \"a\"}\n\n{\"text\": \"b\"}",
            expect![[r#"
            line 1: Text("a")
            line 3: Text("b")"#]],
        );
        check(
            "a.json",
            "[{\"text\": \"a\"},\n {\"text\": \"b\"}]\n",
            expect![[r#"
            row 1: Text("a")
            row 2: Text("b")"#]],
        );
        check(
            "a.json",
            "{\"text\":\n \"a\"}\n{\"text\": \"b\"}",
            expect![[r#"
            row 1: Text("a")
            row 2: Text("b")"#]],
        );
        check(
            "a.json",
            "{\"version\": 1, \"data\": [{\"text\": \"a\"}], \"n\": 1}",
            expect![[r#"row 1: Text("a")"#]],
        );
    }

    #[test]
    fn broken_json_is_named_with_its_place() {
        check(
            "a.jsonl",
            "{\"text\": \"a\"}\n{\"text\": ",
            expect![[r#"
            line 1: Text("a")
            error: a.jsonl, line 2: expected a JSON object; got what is no JSON: EOF while parsing a value at line 1 column 9"#]],
        );
        check("a.jsonl", "[1]", expect!["error: a.jsonl, line 1: expected a JSON object; got a list, [1]"]);
        check(
            "a.json",
            "[{\"text\": \"a\"}, {\"text\"}]",
            expect![[r#"
            row 1: Text("a")
            error: a.json, row 1: expected a JSON list or object; got what is no JSON: expected `:` at line 1 column 24"#]],
        );
        check(
            "a.json",
            "[{\"text\": \"a\"}, 5]",
            expect![[r#"
            row 1: Text("a")
            error: a.json, row 2: expected a JSON object; got a number, 5"#]],
        );
        check(
            "a.json",
            "\"a\"",
            expect![[
                r#"error: a.json: expected a JSON list or object; got what is no JSON: a list or an object was expected, not the text "a" at line 1 column 3"#
            ]],
        );
    }

    #[test]
    fn fields_can_be_renamed() {
        let options = ReadOptions { fields: vec![("review".into(), "text".into())], ..Default::default() };
        assert_eq!(shown("a.json", b"{\"review\": \"a\"}", &options), "row 1: Text(\"a\")");
    }
}
