//! JSON Schemas before they become grammars: what is not supported is refused by name and place, here.
//!
//! Dialect 2020-12, with the arrays and the boolean bounds of its forerunners; `$schema` is not asked. The crate that
//! compiles schemas follows the standard in passing over keywords that it does not know; here they are refused, for a
//! misspelt keyword is a constraint that is lost.
//!
//! Source: JSON Schema, draft 2020-12 (Core and Validation).

mod apart;
mod formats;
mod places;

use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// Schemas within each other, references followed.
const DEPTH_MAX: usize = 200;

/// Schemas that a schema may be made of.
const SCHEMAS_MAX: usize = 20_000;

/// The greatest `minItems`, `maxItems`, `minProperties` or `maxProperties`.
const COUNT_MAX: u64 = 10_000;

/// The greatest `minLength` or `maxLength`.
const LENGTH_MAX: u64 = 100_000;

/// Whole numbers without a bound stay within what every reader of JSON takes exactly. RFC 8259, section 6.
const WHOLE_MAX: u64 = (1 << 53) - 1;

/// White space between the lexemes of JSON, as in llama.cpp: a space, or one or two line ends with up to 20 columns. Small
/// models write line ends without end if they may.
const WHITESPACE: &str = r"\x20|\n{1,2}[\x20\t]{0,20}";

/// Keywords whose value is a schema.
const HOLDS_ONE: &[&str] = &["items", "additionalItems", "additionalProperties"];
/// Keywords whose value is a list of schemas.
const HOLDS_LIST: &[&str] = &["anyOf", "oneOf", "allOf", "prefixItems", "items"];
/// Keywords whose value names schemas.
const HOLDS_MAP: &[&str] = &["properties", "patternProperties"];
/// Keywords that say something about a value themselves.
const ASSERTS: &[&str] = &[
    "type",
    "const",
    "enum",
    "$ref",
    "required",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];
/// Keywords that say nothing about a value.
const ANNOTATES: &[&str] = &[
    "$schema",
    "$comment",
    "$defs",
    "definitions",
    "$anchor",
    "title",
    "description",
    "default",
    "examples",
    "example",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentMediaType",
    "contentEncoding",
    "discriminator",
];

/// The schema as the compiler takes it. An error names keyword and place.
pub(super) fn prepare(text: &str) -> Result<Value, String> {
    let source: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let mut walk = Walk { source: &source, n_schemas: 0, seen: HashSet::new() };
    walk.schema(&source, "#", 0)?;
    let mut schema = match rewritten(&source, &source) {
        Value::Bool(true) => Map::new(),
        Value::Object(schema) => schema,
        _ => return Err("at #: no value satisfies `false`".to_string()),
    };
    schema.shift_remove("$schema");
    schema.entry("x-guidance").or_insert_with(|| json!({ "whitespace_pattern": WHITESPACE }));
    Ok(Value::Object(schema))
}

/// Where in the schema, as prepared, the compiler fails for the reason `reason`; `fails` compiles a part.
pub(super) fn locate(schema: &Value, reason: &str, fails: impl Fn(Value) -> Option<String>) -> String {
    places::locate(schema, reason, fails)
}

/// What a reference inside the schema leads to.
fn resolve<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    let pointer = reference.strip_prefix('#')?;
    if !pointer.contains('%') {
        return root.pointer(pointer);
    }
    let mut bytes = Vec::new();
    let mut rest = pointer.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = if byte == b'%' { after.get(..2) } else { None };
        let code = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(code) => {
                bytes.push(code);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    root.pointer(std::str::from_utf8(&bytes).ok()?)
}

/// A key as JSON Pointer has it.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

struct Walk<'a> {
    source: &'a Value,
    n_schemas: usize,
    /// References that were followed.
    seen: HashSet<&'a str>,
}

impl<'a> Walk<'a> {
    /// Checks the schema at `place` and all that it leads to, in the order in which the compiler descends.
    fn schema(&mut self, schema: &'a Value, place: &str, depth: usize) -> Result<(), String> {
        self.n_schemas += 1;
        if self.n_schemas > SCHEMAS_MAX {
            return Err(format!("it is made of more than {SCHEMAS_MAX} schemas"));
        }
        if depth > DEPTH_MAX {
            return Err(format!("at {place}: more than {DEPTH_MAX} schemas within each other"));
        }
        let keywords = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(keywords) => keywords,
            other => {
                return Err(format!("at {place}: a schema is an object or a boolean, not {}", kind(other)));
            }
        };
        for (keyword, value) in keywords {
            let at = format!("{place}/{}", escaped(keyword));
            self.keyword(keyword, value, place, &at, depth)?;
        }
        Ok(())
    }

    fn keyword(
        &mut self,
        keyword: &'a str,
        value: &'a Value,
        place: &str,
        at: &str,
        depth: usize,
    ) -> Result<(), String> {
        match value {
            Value::Object(schemas) if HOLDS_MAP.contains(&keyword) => {
                for (name, schema) in schemas {
                    self.schema(schema, &format!("{at}/{}", escaped(name)), depth + 1)?;
                }
                return Ok(());
            }
            Value::Array(schemas) if HOLDS_LIST.contains(&keyword) => {
                for (i, schema) in schemas.iter().enumerate() {
                    self.schema(schema, &format!("{at}/{i}"), depth + 1)?;
                }
                return Ok(());
            }
            _ if HOLDS_ONE.contains(&keyword) => return self.schema(value, at, depth + 1),
            _ if HOLDS_MAP.contains(&keyword) => {
                return Err(format!("at {at}: schemas by name are expected, not {}", kind(value)));
            }
            _ if HOLDS_LIST.contains(&keyword) => {
                return Err(format!("at {at}: a list of schemas is expected, not {}", kind(value)));
            }
            _ => {}
        }
        match keyword {
            "$ref" => self.reference(value, at, depth),
            "format" => formats::check(value).map_err(|reason| format!("at {at}: {reason}")),
            "minItems" | "maxItems" | "minProperties" | "maxProperties" => bounded(value, COUNT_MAX, at),
            "minLength" | "maxLength" => bounded(value, LENGTH_MAX, at),
            // `false` asks for nothing.
            "uniqueItems" if value == &Value::Bool(false) => Ok(()),
            "$id" | "id" if place == "#" => Ok(()),
            "x-guidance" if place == "#" && is_layout(value) => Ok(()),
            _ if ASSERTS.contains(&keyword) || ANNOTATES.contains(&keyword) => Ok(()),
            _ if keyword.starts_with("x-") && keyword != "x-guidance" => Ok(()),
            _ => Err(format!("at {place}: the keyword `{keyword}` is not supported")),
        }
    }

    fn reference(&mut self, value: &'a Value, at: &str, depth: usize) -> Result<(), String> {
        let Value::String(reference) = value else {
            return Err(format!("at {at}: a reference is a string, not {}", kind(value)));
        };
        if reference != "#" && !reference.starts_with("#/") {
            return Err(format!("at {at}: `{reference}` leads out of the schema; only `#/...` is followed"));
        }
        let Some(target) = resolve(self.source, reference) else {
            return Err(format!("at {at}: there is nothing at `{reference}`"));
        };
        if self.seen.insert(reference) && reference != "#" {
            self.schema(target, reference, depth + 1)
        } else {
            Ok(())
        }
    }
}

/// Whether what is said to the compiler is only how JSON is laid out.
fn is_layout(value: &Value) -> bool {
    let known = ["item_separator", "key_separator", "whitespace_flexible", "whitespace_pattern"];
    value.as_object().is_some_and(|layout| layout.keys().all(|key| known.contains(&key.as_str())))
}

fn bounded(value: &Value, max: u64, at: &str) -> Result<(), String> {
    match value
        .as_u64()
        .or_else(|| value.as_f64().filter(|x| x.fract() == 0.0 && *x >= 0.0).map(|x| x as u64))
    {
        Some(n) if n <= max => Ok(()),
        Some(n) => Err(format!("at {at}: {n} is more than {max}")),
        None => Err(format!("at {at}: a whole number from 0 to {max} is expected, not {value}")),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The schema with what the compiler knows less of put into what it knows: `oneOf` of schemas that exclude each other is
/// `anyOf`; formats are patterns; whole numbers are written as such; identifiers of other documents are gone.
fn rewritten(schema: &Value, root: &Value) -> Value {
    let Value::Object(keywords) = schema else { return schema.clone() };
    let mut result = Map::new();
    let mut also = Vec::new();
    for (keyword, value) in keywords {
        let name = keyword.as_str();
        let inner = match value {
            Value::Object(schemas)
                if HOLDS_MAP.contains(&name) || ["$defs", "definitions"].contains(&name) =>
            {
                let inner = schemas.iter().map(|(name, schema)| (name.clone(), rewritten(schema, root)));
                Value::Object(inner.collect())
            }
            Value::Array(schemas) if HOLDS_LIST.contains(&name) => {
                schemas.iter().map(|schema| rewritten(schema, root)).collect()
            }
            _ if HOLDS_ONE.contains(&name) => rewritten(value, root),
            _ => value.clone(),
        };
        match name {
            "oneOf" if apart::all_apart(value, root) => {
                if keywords.contains_key("anyOf") {
                    also.push(json!({ "anyOf": inner }));
                } else {
                    result.insert("anyOf".to_string(), inner);
                }
            }
            "format" => match formats::pattern(value) {
                Some(pattern) if keywords.contains_key("pattern") => also.push(json!({ "pattern": pattern })),
                Some(pattern) => {
                    result.insert("pattern".to_string(), pattern.into());
                }
                None => {
                    result.insert(keyword.clone(), inner);
                }
            },
            "minItems" | "maxItems" | "minProperties" | "maxProperties" | "minLength" | "maxLength" => {
                let whole = value.as_u64().or_else(|| value.as_f64().map(|x| x as u64));
                result.insert(keyword.clone(), whole.into());
            }
            "$id" | "id" | "uniqueItems" | "$anchor" => {}
            _ => {
                result.insert(keyword.clone(), inner);
            }
        }
    }
    bound_whole(&mut result);
    if !also.is_empty() {
        let all = result.entry("allOf").or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(all) = all {
            all.extend(also);
        }
    }
    Value::Object(result)
}

/// Gives whole numbers the bounds that the schema leaves open.
fn bound_whole(keywords: &mut Map<String, Value>) {
    let is_whole = match keywords.get("type") {
        Some(Value::String(kind)) => kind == "integer",
        Some(Value::Array(kinds)) => kinds.contains(&"integer".into()) && !kinds.contains(&"number".into()),
        _ => false,
    };
    if !is_whole || keywords.contains_key("const") || keywords.contains_key("enum") {
        return;
    }
    let bound = |names: [&str; 2]| names.iter().find_map(|name| keywords.get(*name).and_then(Value::as_f64));
    let (min, max) = (bound(["minimum", "exclusiveMinimum"]), bound(["maximum", "exclusiveMaximum"]));
    let limit = WHOLE_MAX as f64;
    if max.is_none() && min.is_none_or(|min| min < limit) {
        keywords.insert("maximum".to_string(), WHOLE_MAX.into());
    }
    if min.is_none() && max.is_none_or(|max| max > -limit) {
        keywords.insert("minimum".to_string(), (-(WHOLE_MAX as i64)).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_supported_is_refused_by_name_and_place() {
        let refusal = |schema: Value| prepare(&schema.to_string()).unwrap_err();
        for (schema, expected) in [
            (json!({"properties": {"a/b": {"if": true}}}), "at #/properties/a~1b: the keyword `if` is not"),
            (json!({"items": {"minLenght": 3}}), "at #/items: the keyword `minLenght` is not supported"),
            (json!({"not": {}}), "at #: the keyword `not` is not supported"),
            (json!({"uniqueItems": true}), "the keyword `uniqueItems`"),
            (json!({"nullable": true}), "the keyword `nullable`"),
            (json!({"x-guidance": {"lenient": true}}), "the keyword `x-guidance`"),
            (json!({"items": {"$id": "http://x"}}), "at #/items: the keyword `$id`"),
            (json!({"$ref": "http://x/y"}), "at #/$ref: `http://x/y` leads out of the schema"),
            (json!({"$ref": "#/$defs/a"}), "at #/$ref: there is nothing at `#/$defs/a`"),
            (json!({"$ref": 1}), "at #/$ref: a reference is a string, not a number"),
            (json!({"format": "regex"}), "at #/format: the format `regex` is not supported"),
            (json!({"format": "unknown"}), "the format `unknown` is not supported"),
            (json!({"maxItems": 10_001}), "at #/maxItems: 10001 is more than 10000"),
            (json!({"maxLength": -1}), "at #/maxLength: a whole number from 0 to 100000"),
            (json!({"anyOf": {}}), "at #/anyOf: a list of schemas is expected, not an object"),
            (json!({"properties": []}), "at #/properties: schemas by name are expected, not an array"),
            (json!({"anyOf": [1]}), "at #/anyOf/0: a schema is an object or a boolean, not a number"),
            (json!({"$ref": "#/$defs/a", "$defs": {"a": {"then": 1}}}), "at #/$defs/a: the keyword `then`"),
            (json!(false), "no value satisfies `false`"),
            (json!("x"), "at #: a schema is an object or a boolean, not a string"),
        ] {
            let reason = refusal(schema.clone());
            assert!(reason.contains(expected), "{schema}: {reason}");
        }
        assert!(prepare("{").unwrap_err().contains("it is no JSON: EOF"));
        let deep = (0..60).fold(json!({}), |inner, _| json!({ "items": inner }));
        assert!(prepare(&deep.to_string()).is_ok());
        let text = "{\"items\":".repeat(5000) + "{}" + &"}".repeat(5000);
        assert!(prepare(&text).unwrap_err().contains("recursion limit"));
        let chain: Map<String, Value> = (0..1000)
            .map(|i| (format!("d{i}"), json!({ "$ref": format!("#/$defs/d{}", (i + 1) % 1000) })))
            .collect();
        let reason = refusal(json!({ "$ref": "#/$defs/d0", "$defs": chain }));
        assert!(reason.contains("more than 200 schemas within each other"), "{reason}");
    }

    #[test]
    fn options_that_exclude_each_other_need_no_counting() {
        let text = r##"{"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], "$defs": {
            "cat": {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]},
            "dog": {"type": "object", "properties": {"kind": {"enum": ["dog", "wolf"]}}, "required": ["kind"]}},
            "$schema": "http://json-schema.org/draft-07/schema#", "title": "a pet", "maxItems": 3.0}"##;
        let schema = prepare(text).unwrap();
        assert!(
            schema.get("oneOf").is_none() && schema.get("anyOf").is_some() && schema.get("$schema").is_none()
        );
        assert_eq!(schema["maxItems"], json!(3));
        let both = prepare(r#"{"oneOf": [{"type": "string"}, {"minLength": 3}]}"#).unwrap();
        assert!(both.get("oneOf").is_some(), "a long string satisfies both");
        let beside = prepare(r#"{"oneOf": [{"type": "string"}, {"type": "null"}], "anyOf": [{}]}"#).unwrap();
        assert_eq!(beside["allOf"], json!([{"anyOf": [{"type": "string"}, {"type": "null"}]}]));
    }

    #[test]
    fn whole_numbers_without_bounds_get_those_of_exact_floats() {
        let bounds = |text: &str| {
            let schema = prepare(text).unwrap();
            (schema.get("minimum").cloned(), schema.get("maximum").cloned())
        };
        let (low, high) = (Some(json!(-9007199254740991i64)), Some(json!(9007199254740991u64)));
        assert_eq!(bounds(r#"{"type": "integer"}"#), (low.clone(), high.clone()));
        assert_eq!(bounds(r#"{"type": ["integer", "null"], "minimum": 3}"#), (Some(json!(3)), high));
        assert_eq!(bounds(r#"{"type": "integer", "minimum": 1e17}"#), (Some(json!(1e17)), None));
        assert_eq!(bounds(r#"{"type": "integer", "exclusiveMaximum": 3}"#), (low, None));
        assert_eq!(bounds(r#"{"type": "number"}"#), (None, None));
        assert_eq!(bounds(r#"{"type": "integer", "const": 3}"#), (None, None));
    }

    #[test]
    fn references_are_decoded() {
        let root = json!({"$defs": {"a b/c": {"type": "null"}}});
        assert_eq!(resolve(&root, "#/$defs/a%20b~1c"), Some(&json!({"type": "null"})));
        assert_eq!((resolve(&root, "#"), resolve(&root, "x")), (Some(&root), None));
    }
}
