//! JSON inside a growing text: where a value ends, and its parts as they were written.

use std::borrow::Cow;

/// What the beginning of a growing text turned out to be. `Done` and `Broken` stay what they are, whatever follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scan<T> {
    /// It is there, and has that many bytes.
    Done(T, usize),
    /// It may still become it.
    Partial,
    /// It is something else.
    Broken,
}

/// The object or array at the beginning of `text`.
pub(crate) fn container(text: &str) -> Scan<&str> {
    match text.as_bytes().first() {
        None => return Scan::Partial,
        Some(b'{' | b'[') => {}
        Some(_) => return Scan::Broken,
    }
    let mut depth = 0;
    let mut is_quoted = false;
    let mut is_escaped = false;
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'{' | b'[' if !is_quoted => depth += 1,
            b'}' | b']' if !is_quoted => {
                depth -= 1;
                if depth == 0 {
                    let value = &text[..i + 1];
                    let is_json = serde_json::from_str::<serde_json::Value>(value).is_ok();
                    return if is_json { Scan::Done(value, i + 1) } else { Scan::Broken };
                }
            }
            _ => {}
        }
    }
    Scan::Partial
}

/// The members of a valid object: key and value, the value as it was written.
pub(crate) fn members(object: &str) -> Vec<(String, &str)> {
    let split = |member: &str| parts(member, b':').first().map_or(0, |key| key.len());
    inner(object)
        .into_iter()
        .map(|member| {
            let (key, value) = member.split_at(split(member));
            (text_of(key.trim()).into_owned(), value[1..].trim())
        })
        .collect()
}

/// The items of a valid array, as they were written.
pub(crate) fn items(array: &str) -> Vec<&str> {
    inner(array).into_iter().map(str::trim).collect()
}

/// What a JSON string says; anything else stays as it is.
pub(crate) fn text_of(value: &str) -> Cow<'_, str> {
    serde_json::from_str::<String>(value).map_or(Cow::Borrowed(value), Cow::Owned)
}

/// What stands between the brackets of a container, cut at its own commas.
fn inner(container: &str) -> Vec<&str> {
    let inner = &container[1..container.len() - 1];
    if inner.trim().is_empty() { Vec::new() } else { parts(inner, b',') }
}

/// `text`, cut at each `separator` that stands in no container and no string.
fn parts(text: &str, separator: u8) -> Vec<&str> {
    let (mut depth, mut is_quoted, mut is_escaped, mut start) = (0, false, false, 0);
    let mut parts = Vec::new();
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'{' | b'[' if !is_quoted => depth += 1,
            b'}' | b']' if !is_quoted => depth -= 1,
            byte if byte == separator && !is_quoted && depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_where_its_bracket_closes() {
        assert_eq!(container(r#"{"a": "}\"{"} tail"#), Scan::Done(r#"{"a": "}\"{"}"#, 13));
        assert_eq!(container("[[], {}]]"), Scan::Done("[[], {}]", 8));
        assert_eq!(container(r#"{"a": [1, 2"#), Scan::Partial);
        assert_eq!(container(""), Scan::Partial);
        assert_eq!(container("{a: 1}"), Scan::Broken);
        assert_eq!(container("[1}"), Scan::Broken);
        assert_eq!(container("x{}"), Scan::Broken);
    }

    #[test]
    fn members_keep_their_order_and_their_spelling() {
        let found = members(r#"{ "b:,": 1.50 , "a\"": {"x": [1,2], "y": ","}, "c": "d" }"#);
        let expected = [("b:,", "1.50"), ("a\"", r#"{"x": [1,2], "y": ","}"#), ("c", "\"d\"")];
        assert_eq!(found, expected.map(|(key, value)| (key.to_string(), value)));
        assert_eq!((members("{}").len(), items("[ ]").len()), (0, 0));
        assert_eq!(items("[1, [2, 3], \"4,5\"]"), ["1", "[2, 3]", "\"4,5\""]);
        assert_eq!((text_of("\"a\\n\""), text_of("12")), ("a\n".into(), "12".into()));
    }
}
