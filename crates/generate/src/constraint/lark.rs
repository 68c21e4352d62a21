//! Lark grammars before they are compiled: schemas inside become those of this crate, and what would have no effect is
//! refused by name.

use super::schema;
use serde_json::Value;
use std::collections::HashMap;

/// Attributes of rules that the parser knows and that change no answer here, or one that is not as written.
const REFUSED: &[&str] = &["temperature", "capture", "stop_capture", "stop"];

/// What a terminal may unfold to.
const UNFOLDED_MAX: usize = 20_000;

/// The grammar with each `%json` schema checked and made ready.
pub(super) fn prepare(text: &str) -> Result<String, String> {
    check_sizes(text)?;
    let mut result = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let len = if let Some(after) = rest.strip_prefix("%json") {
            result.push_str("%json ");
            let (schema, len) = json(after).map_err(|reason| placed(text, at, &reason))?;
            let prepared = schema::prepare(&schema).map_err(|reason| placed(text, at, &reason))?;
            result.push_str(&prepared.to_string());
            "%json".len() + len
        } else {
            let len = piece(rest);
            let name = &rest[..len];
            let follows = rest[len..].trim_start_matches([' ', '\t']);
            let is_attribute = follows.starts_with(['=', ']', ',']) && in_brackets(&text[..at]);
            if REFUSED.contains(&name) && is_attribute {
                return Err(placed(text, at, &format!("the attribute `{name}` is not supported")));
            }
            result.push_str(name);
            len
        };
        at += len;
    }
    Ok(result)
}

/// Refuses terminals that are made of terminals, and these of others, without measure: each is put in where it is named.
fn check_sizes(text: &str) -> Result<(), String> {
    fn size<'a>(
        name: &'a str,
        parts: &HashMap<&'a str, Vec<&'a str>>,
        known: &mut HashMap<&'a str, usize>,
    ) -> usize {
        if let Some(&size) = known.get(name) {
            return size;
        }
        // One that leads back to itself is refused later.
        known.insert(name, 1);
        let inner = parts.get(name).map_or(&[][..], Vec::as_slice);
        let sum = inner.iter().fold(1, |sum: usize, part| sum.saturating_add(size(part, parts, known)));
        known.insert(name, sum);
        sum
    }
    let is_terminal = |word: &str| word.trim_start_matches('_').starts_with(|c: char| c.is_ascii_uppercase());
    let mut parts: HashMap<&str, Vec<&str>> = HashMap::new();
    let (mut current, mut at) = (None, 0);
    while at < text.len() {
        let len = piece(&text[at..]);
        let word = &text[at..at + len];
        let line = text[..at].rsplit('\n').next().unwrap_or_default();
        if line.trim().is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_') {
            current = is_terminal(word).then_some(word);
        } else if let Some(name) = current.filter(|_| is_terminal(word)) {
            parts.entry(name).or_default().push(word);
        }
        at += len;
    }
    let mut known = HashMap::new();
    match parts.keys().find(|name| size(name, &parts, &mut known) > UNFOLDED_MAX) {
        Some(name) => Err(format!("the terminal `{name}` unfolds to more than {UNFOLDED_MAX} parts")),
        None => Ok(()),
    }
}

/// Whether what follows `before` stands in the square brackets of a rule's head: on a line that has no colon yet.
fn in_brackets(before: &str) -> bool {
    let line = &before[before.rfind('\n').map_or(0, |end| end + 1)..];
    line.contains('[') && !line.contains(':')
}

fn placed(text: &str, at: usize, reason: &str) -> String {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    format!("line {line}, column {column}: {reason}")
}

/// The length of the comment, string, regular expression, word or other sign that `text` begins with.
fn piece(text: &str) -> usize {
    let first = text.chars().next().expect("the caller stops at the end");
    let line = text.find('\n').unwrap_or(text.len());
    if first == '#' || text.starts_with("//") {
        return line.max(1);
    }
    if first == '"' || first == '/' {
        // Both end on their line; a backslash hides the sign after it.
        let mut is_hidden = false;
        for (at, c) in text[..line].char_indices().skip(1) {
            match c {
                _ if is_hidden => is_hidden = false,
                '\\' => is_hidden = true,
                c if c == first => return at + 1,
                _ => {}
            }
        }
        return first.len_utf8();
    }
    let word = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    if word > 0 { word } else { first.len_utf8() }
}

/// The JSON value that `text` begins with, and where it ends.
fn json(text: &str) -> Result<(String, usize), String> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match values.next() {
        Some(Ok(value)) => Ok((value.to_string(), values.byte_offset())),
        Some(Err(error)) => Err(format!("after %json: {error}")),
        None => Err("after %json: a schema is expected".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_made_ready_and_the_rest_stays() {
        let text =
            "start: \"%json {\" /a\\/%json/ x // %json [\nx: %json {\"type\": \"null\"} \"]\" # stop=\n";
        let prepared = prepare(text).unwrap();
        let (before, after) = text.split_once("x: %json").unwrap();
        assert!(prepared.starts_with(before), "{prepared}");
        assert!(prepared.ends_with(&after[after.find("} ").unwrap() + 1..]), "{prepared}");
        assert!(prepared.contains("x-guidance"), "{prepared}");
    }

    #[test]
    fn what_would_have_no_effect_is_refused_with_its_place() {
        let doubled: String = (0..40).map(|i| format!("A{i}: A{0} A{0}\n", i + 1)).collect();
        let doubled = format!("start: A0\n{doubled}A40: \"x\"");
        for (text, expected) in [
            ("start: a\na[temperature=0.5]: /x/", "line 2, column 3: the attribute `temperature`"),
            ("start[max_tokens=3, capture]: /x/", "column 21: the attribute `capture`"),
            ("start[stop = \"x\"]: /x/", "the attribute `stop`"),
            ("start: %json {\"if\": 1}", "line 1, column 8: at #: the keyword `if`"),
            (&doubled, "unfolds to more than 20000 parts"),
            ("start: %json", "after %json: a schema is expected"),
            ("start: %json {", "after %json: EOF"),
        ] {
            let reason = prepare(text).unwrap_err();
            assert!(reason.contains(expected), "{text}: {reason}");
        }
        assert_eq!(prepare("stop: \"a\" stop\nstart: stop").unwrap(), "stop: \"a\" stop\nstart: stop");
    }
}
