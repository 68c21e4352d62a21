//! The functions that templates may call.

use super::print;
use super::value::Value;
use serde_json::Value as Json;
use std::cmp::Ordering;

/// A function of templates.
pub(super) struct Function {
    pub name: &'static str,
    /// The fewest and the most arguments.
    arity: (usize, usize),
    call: for<'a> fn(&[Value<'a>], i64) -> Result<Value<'a>, String>,
}

/// Two functions are the same if they have the same name.
impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const MANY: usize = usize::MAX;

/// All of them. `and` and `or` are the evaluator's: they look at no more arguments than they need.
pub(super) const FUNCTIONS: &[Function] = &[
    Function { name: "and", arity: (1, MANY), call: |_, _| Ok(Value::of(())) },
    Function { name: "or", arity: (1, MANY), call: |_, _| Ok(Value::of(())) },
    Function { name: "not", arity: (1, 1), call: |args, _| Ok(Value::of(!args[0].is_true())) },
    Function { name: "eq", arity: (2, MANY), call: |args, _| equals_any(args).map(Value::of) },
    Function { name: "ne", arity: (2, 2), call: |args, _| Ok(Value::of(!args[0].equals(&args[1])?)) },
    Function { name: "lt", arity: (2, 2), call: |args, _| ordered(args, &[Ordering::Less]) },
    Function { name: "le", arity: (2, 2), call: |args, _| ordered(args, &[Ordering::Less, Ordering::Equal]) },
    Function { name: "gt", arity: (2, 2), call: |args, _| ordered(args, &[Ordering::Greater]) },
    Function {
        name: "ge",
        arity: (2, 2),
        call: |args, _| ordered(args, &[Ordering::Greater, Ordering::Equal]),
    },
    Function { name: "len", arity: (1, 1), call: |args, _| length(&args[0]) },
    Function { name: "index", arity: (1, MANY), call: |args, _| index(args) },
    Function { name: "slice", arity: (1, 3), call: |args, _| slice(args) },
    Function { name: "print", arity: (0, MANY), call: |args, _| Ok(Value::of(print::print(args))) },
    Function { name: "println", arity: (0, MANY), call: |args, _| Ok(Value::of(print::print_line(args))) },
    Function { name: "printf", arity: (1, MANY), call: |args, _| format(args) },
    Function { name: "json", arity: (1, 1), call: |args, _| Ok(Value::of(args[0].json().to_string())) },
    Function { name: "currentDate", arity: (0, 1), call: |_, now| Ok(Value::of(date(now))) },
    Function { name: "yesterdayDate", arity: (0, 1), call: |_, now| Ok(Value::of(date(now - 86_400))) },
    Function {
        name: "toTypeScriptType",
        arity: (1, 1),
        call: |args, _| Ok(Value::of(type_script(&args[0].json(), 0))),
    },
];

impl Function {
    /// Calls it at the time `now`, in seconds since 1970.
    pub fn call<'a>(&self, args: &[Value<'a>], now: i64) -> Result<Value<'a>, String> {
        let (fewest, most) = self.arity;
        if args.len() < fewest || args.len() > most {
            return Err(format!(
                "{}: {} arguments; expected {}",
                self.name,
                args.len(),
                match (fewest, most) {
                    (a, MANY) => format!("at least {a}"),
                    (a, b) if a == b => a.to_string(),
                    (a, b) => format!("{a} to {b}"),
                }
            ));
        }
        (self.call)(args, now).map_err(|error| format!("{}: {error}", self.name))
    }
}

fn equals_any(args: &[Value<'_>]) -> Result<bool, String> {
    for other in &args[1..] {
        if args[0].equals(other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn ordered<'a>(args: &[Value<'a>], wanted: &[Ordering]) -> Result<Value<'a>, String> {
    Ok(Value::of(wanted.contains(&args[0].order(&args[1])?)))
}

fn length<'a>(value: &Value<'a>) -> Result<Value<'a>, String> {
    let len = value.len().ok_or_else(|| format!("{} has no length", value.kind()))?;
    Ok(Value::of(len as u64))
}

fn index<'a>(args: &[Value<'a>]) -> Result<Value<'a>, String> {
    let mut value = args[0].clone();
    for key in &args[1..] {
        value = match (key.as_i64(), key.as_str(), value.items()) {
            (Some(i), _, Some(items)) => {
                let item = usize::try_from(i).ok().and_then(|i| items.get(i).cloned());
                item.ok_or_else(|| format!("{i} is outside a list of {}", items.len()))?
            }
            (_, Some(name), None) => value.field(name),
            _ => return Err(format!("{} cannot be indexed by {}", value.kind(), key.kind())),
        };
    }
    Ok(value)
}

fn slice<'a>(args: &[Value<'a>]) -> Result<Value<'a>, String> {
    let len = args[0].len().ok_or_else(|| format!("{} cannot be sliced", args[0].kind()))?;
    let bound = |i: usize, otherwise: usize| match args.get(i).map(Value::as_i64) {
        None => Ok(otherwise as i64),
        Some(Some(bound)) => Ok(bound),
        Some(None) => Err("the bounds are whole numbers".to_string()),
    };
    let (from, to) = (bound(1, 0)?, bound(2, len)?);
    let kind = if args[0].as_str().is_some() { "string" } else { "list" };
    if from < 0 || from > to || to > len as i64 {
        return Err(format!("{from} to {to} is outside a {kind} of {len}"));
    }
    let range = from as usize..to as usize;
    match &args[0] {
        Value::Part(items) => Ok(Value::Part(&items[range])),
        Value::Json(std::borrow::Cow::Borrowed(Json::Array(items))) => Ok(Value::Part(&items[range])),
        other => match other.json().as_ref() {
            Json::Array(items) => Ok(Value::of(items[range].to_vec())),
            Json::String(text) => {
                let part = text.get(range).ok_or_else(|| "a bound is inside a character".to_string())?;
                Ok(Value::of(part))
            }
            _ => Err(format!("{} cannot be sliced", other.kind())),
        },
    }
}

fn format<'a>(args: &[Value<'a>]) -> Result<Value<'a>, String> {
    let format = args[0].as_str().ok_or_else(|| format!("{} is no format", args[0].kind()))?;
    print::print_format(format, &args[1..]).map(Value::of)
}

/// The day of `now`, as in `2026-11-24`.
fn date(now: i64) -> String {
    crate::jinja::strftime("%Y-%m-%d", now)
}

/// A property of a JSON Schema as TypeScript writes its type.
fn type_script(schema: &Json, depth: usize) -> String {
    if depth > 16 {
        return "any".to_string();
    }
    if let Some(several) = schema["anyOf"].as_array() {
        return several.iter().map(|one| type_script(one, depth + 1)).collect::<Vec<_>>().join(" | ");
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(Json::to_string).collect::<Vec<_>>().join(" | ");
    }
    let one = |name: &str| match name {
        "string" => "string".to_string(),
        "number" | "integer" => "number".to_string(),
        "boolean" => "boolean".to_string(),
        "null" => "null".to_string(),
        "object" => "Record<string, any>".to_string(),
        "array" if schema["items"].is_object() => {
            let inner = type_script(&schema["items"], depth + 1);
            if inner.contains(" | ") { format!("({inner})[]") } else { format!("{inner}[]") }
        }
        "array" => "any[]".to_string(),
        _ => "any".to_string(),
    };
    match &schema["type"] {
        Json::String(name) => one(name),
        Json::Array(names) => {
            names.iter().map(|n| one(n.as_str().unwrap_or(""))).collect::<Vec<_>>().join(" | ")
        }
        _ => "any".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_become_types_of_typescript() {
        for (schema, expected) in [
            (json!({ "type": "string" }), "string"),
            (json!({ "type": ["integer", "null"] }), "number | null"),
            (json!({ "type": "array", "items": { "enum": ["a", "b"] } }), "(\"a\" | \"b\")[]"),
            (
                json!({ "anyOf": [{ "type": "boolean" }, { "type": "object" }] }),
                "boolean | Record<string, any>",
            ),
            (json!({}), "any"),
        ] {
            assert_eq!(type_script(&schema, 0), expected);
        }
    }

    #[test]
    fn dates_are_those_of_the_clock_given() {
        assert_eq!(FUNCTIONS[16].call(&[], 951_782_400).unwrap().as_str(), Some("2000-02-29"));
        assert_eq!(FUNCTIONS[17].call(&[], 951_782_400).unwrap().as_str(), Some("2000-02-28"));
    }
}
