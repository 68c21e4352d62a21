//! Which schemas no value satisfies together.

use super::resolve;
use serde_json::Value;

/// How deep properties and references are looked into.
const DEPTH_MAX: usize = 8;

/// Whether no value satisfies two of these schemas; false also if that cannot be told.
pub(super) fn all_apart(options: &Value, root: &Value) -> bool {
    let Value::Array(options) = options else { return false };
    let pairs = options.iter().enumerate().flat_map(|(i, a)| options[i + 1..].iter().map(move |b| (a, b)));
    // Every pair costs; who has that many options has given them a `const`, but may not have been told.
    options.len() <= 200 && pairs.into_iter().all(|(a, b)| apart(a, b, root, 0))
}

fn apart(a: &Value, b: &Value, root: &Value, depth: usize) -> bool {
    if depth > DEPTH_MAX {
        return false;
    }
    if a == &Value::Bool(false) || b == &Value::Bool(false) {
        return true;
    }
    let next = |a: &Value, b: &Value| apart(a, b, root, depth + 1);
    // What a schema refers to or consists of excludes what the whole excludes.
    let parts = |schema: &Value, other: &Value| {
        let referred = schema.get("$ref").and_then(Value::as_str).and_then(|name| resolve(root, name));
        let list = |keyword: &str| schema.get(keyword).and_then(Value::as_array);
        referred.is_some_and(|target| next(target, other))
            || list("allOf").is_some_and(|all| all.iter().any(|part| next(part, other)))
            || ["anyOf", "oneOf"]
                .into_iter()
                .filter_map(list)
                .any(|any| any.iter().all(|part| next(part, other)))
    };
    parts(a, b) || parts(b, a) || kinds_apart(a, b) || values_apart(a, b) || numbers_apart(a, b) || {
        let is_object = |schema: &Value| types(schema) == Some(vec!["object"]);
        is_object(a) && is_object(b) && objects_apart(a, b, next)
    }
}

/// The types of a schema's values, if it names them.
fn types(schema: &Value) -> Option<Vec<&str>> {
    match schema.get("type")? {
        Value::String(one) => Some(vec![one]),
        Value::Array(many) => many.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

fn kinds_apart(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (types(a), types(b)) else { return false };
    let family = |kind: &str| if kind == "integer" { "number".to_string() } else { kind.to_string() };
    a.iter().all(|a| b.iter().all(|b| family(a) != family(b)))
}

/// The values of a schema, if it lists them.
fn values(schema: &Value) -> Option<Vec<&Value>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(Value::Array(values))) => Some(values.iter().collect()),
        _ => None,
    }
}

fn values_apart(a: &Value, b: &Value) -> bool {
    let differ = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a != b,
        _ => a != b && !a.is_array() && !a.is_object(),
    };
    let kind_of = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let listed_and_typed = |listed: &Value, typed: &Value| {
        let (Some(values), Some(types)) = (values(listed), types(typed)) else { return false };
        values.iter().all(|value| {
            types.iter().all(|&kind| kind_of(value) != if kind == "integer" { "number" } else { kind })
        })
    };
    match (values(a), values(b)) {
        (Some(a), Some(b)) => a.iter().all(|a| b.iter().all(|b| differ(a, b))),
        _ => listed_and_typed(a, b) || listed_and_typed(b, a),
    }
}

fn numbers_apart(a: &Value, b: &Value) -> bool {
    let is_number = |schema: &Value| {
        types(schema).is_some_and(|types| types.iter().all(|kind| ["integer", "number"].contains(kind)))
    };
    let bound = |schema: &Value, keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    let below = |a: &Value, b: &Value| {
        let (max, above) = (bound(a, "maximum"), bound(a, "exclusiveMaximum"));
        let (min, under) = (bound(b, "minimum"), bound(b, "exclusiveMinimum"));
        max.zip(min).is_some_and(|(max, min)| max < min)
            || max.zip(under).is_some_and(|(max, under)| max <= under)
            || above.zip(min).is_some_and(|(above, min)| above <= min)
            || above.zip(under).is_some_and(|(above, under)| above <= under)
    };
    is_number(a) && is_number(b) && (below(a, b) || below(b, a))
}

/// Whether two schemas of objects exclude each other by a property that one of them requires.
fn objects_apart(a: &Value, b: &Value, apart: impl Fn(&Value, &Value) -> bool) -> bool {
    let required = |schema: &Value| -> Vec<String> {
        let names = schema.get("required").and_then(Value::as_array);
        names
            .map(|names| names.iter().filter_map(Value::as_str).map(str::to_string).collect())
            .unwrap_or_default()
    };
    let property =
        |schema: &Value, name: &str| schema.get("properties").and_then(|all| all.get(name)).cloned();
    let forbids = |schema: &Value, name: &str| {
        schema.get("additionalProperties") == Some(&Value::Bool(false))
            && schema.get("patternProperties").is_none()
            && property(schema, name).is_none()
    };
    let (of_a, of_b) = (required(a), required(b));
    of_a.iter().any(|name| forbids(b, name))
        || of_b.iter().any(|name| forbids(a, name))
        || of_a
            .iter()
            .filter(|name| of_b.contains(name))
            .any(|name| property(a, name).zip(property(b, name)).is_some_and(|(a, b)| apart(&a, &b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_are_apart_only_if_that_can_be_told() {
        let root = json!({"$defs": {"n": {"type": "null"}, "loop": {"$ref": "#/$defs/loop"}}});
        let tagged =
            |tag: &str| json!({"type": "object", "properties": {"t": {"const": tag}}, "required": ["t"]});
        let closed = json!({"type": "object", "properties": {"u": {}}, "additionalProperties": false});
        for (a, b, expected) in [
            (json!({"type": "string"}), json!({"type": ["null", "array"]}), true),
            (json!({"type": "integer"}), json!({"type": "number"}), false),
            (json!({"const": 1}), json!({"const": 1.0}), false),
            (json!({"const": "a"}), json!({"enum": ["b", null]}), true),
            (json!({"const": "a"}), json!({"type": "integer"}), true),
            (json!({"const": [1]}), json!({"const": [1.0]}), false),
            (
                json!({"type": "integer", "maximum": 3}),
                json!({"type": "number", "exclusiveMinimum": 3}),
                true,
            ),
            (json!({"type": "integer", "maximum": 3}), json!({"type": "number", "minimum": 3}), false),
            (json!({"maximum": 3}), json!({"minimum": 4}), false),
            (json!({"$ref": "#/$defs/n"}), json!({"type": "string"}), true),
            (json!({"$ref": "#/$defs/loop"}), json!({"type": "string"}), false),
            (json!({"anyOf": [{"type": "null"}, {"const": 1}]}), json!({"type": "string"}), true),
            (json!({"allOf": [{}, {"type": "null"}]}), json!({"type": "string"}), true),
            (tagged("a"), tagged("b"), true),
            (tagged("a"), tagged("a"), false),
            (tagged("a"), closed, true),
            (json!({"properties": {"t": {"const": 1}}, "required": ["t"]}), tagged("b"), false),
            (json!(false), json!(true), true),
        ] {
            assert_eq!(apart(&a, &b, &root, 0), expected, "{a} and {b}");
            assert_eq!(apart(&b, &a, &root, 0), expected, "{b} and {a}");
        }
    }
}
