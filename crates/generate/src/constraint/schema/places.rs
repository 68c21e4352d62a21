//! Where in a schema something is wrong, told by compiling its parts.

use super::{HOLDS_LIST, HOLDS_MAP, HOLDS_ONE, escaped};
use serde_json::Value;

/// Parts that are compiled to find a place.
const TRIES: usize = 200;

/// The innermost part of `schema` that fails for the same reason as the whole.
pub(super) fn locate(schema: &Value, reason: &str, fails: impl Fn(Value) -> Option<String>) -> String {
    let (mut place, mut part) = ("#".to_string(), schema);
    let mut tries = 0;
    'inner: loop {
        for (step, inner) in parts(part) {
            tries += 1;
            if tries > TRIES {
                return place;
            }
            let mut alone = inner.clone();
            if let Value::Object(keywords) = &mut alone {
                for shared in ["$defs", "definitions", "x-guidance"] {
                    if let Some(value) = schema.get(shared) {
                        keywords.insert(shared.to_string(), value.clone());
                    }
                }
            }
            if fails(alone).is_some_and(|other| other == reason) {
                place += &step;
                part = inner;
                continue 'inner;
            }
        }
        return place;
    }
}

/// The schemas directly in `schema`, with the way to each; definitions last.
fn parts(schema: &Value) -> Vec<(String, &Value)> {
    let mut parts = Vec::new();
    let Value::Object(keywords) = schema else { return parts };
    for (keyword, value) in keywords {
        let name = keyword.as_str();
        match value {
            Value::Object(schemas)
                if HOLDS_MAP.contains(&name) || ["$defs", "definitions"].contains(&name) =>
            {
                let inner = schemas.iter();
                parts.extend(inner.map(|(key, schema)| (format!("/{name}/{}", escaped(key)), schema)));
            }
            Value::Array(schemas) if HOLDS_LIST.contains(&name) => {
                let inner = schemas.iter().enumerate();
                parts.extend(inner.map(|(i, schema)| (format!("/{name}/{i}"), schema)));
            }
            _ if HOLDS_ONE.contains(&name) => parts.push((format!("/{name}"), value)),
            _ => {}
        }
    }
    parts
}
