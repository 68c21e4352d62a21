//! Values of a template: JSON, borrowed from the data where it can be.

use serde_json::Value as Json;
use std::borrow::Cow;
use std::cmp::Ordering;

/// A value, or a part of a list of the data.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Json(Cow<'a, Json>),
    Part(&'a [Json]),
}

impl<'a> Value<'a> {
    pub fn of(json: impl Into<Json>) -> Value<'a> {
        Value::Json(Cow::Owned(json.into()))
    }

    pub fn borrowed(json: &'a Json) -> Value<'a> {
        Value::Json(Cow::Borrowed(json))
    }

    /// Everything but nothing, zero and what is empty.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Part(items) => !items.is_empty(),
            Value::Json(json) => match json.as_ref() {
                Json::Null => false,
                Json::Bool(value) => *value,
                Json::Number(number) => number.as_f64() != Some(0.0),
                Json::String(text) => !text.is_empty(),
                Json::Array(items) => !items.is_empty(),
                Json::Object(map) => !map.is_empty(),
            },
        }
    }

    /// The field of an object; nothing if there is none. Go's names begin with a capital where JSON's do not: `.Function`
    /// is `function` too.
    pub fn field(&self, name: &str) -> Value<'a> {
        let lower =
            || name.chars().next().filter(char::is_ascii_uppercase).map(|_| name.to_ascii_lowercase());
        match self {
            Value::Json(Cow::Borrowed(Json::Object(map))) => {
                let found = map.get(name).or_else(|| map.get(&lower()?));
                found.map_or(Value::of(()), Value::borrowed)
            }
            Value::Json(Cow::Owned(Json::Object(map))) => {
                Value::of(map.get(name).or_else(|| map.get(&lower()?)).cloned().unwrap_or_default())
            }
            _ => Value::of(()),
        }
    }

    /// The items of a list.
    pub fn items(&self) -> Option<Vec<Value<'a>>> {
        match self {
            Value::Part(items) => Some(items.iter().map(Value::borrowed).collect()),
            Value::Json(Cow::Borrowed(Json::Array(items))) => {
                Some(items.iter().map(Value::borrowed).collect())
            }
            Value::Json(Cow::Owned(Json::Array(items))) => {
                Some(items.iter().cloned().map(Value::of).collect())
            }
            _ => None,
        }
    }

    /// How many items, keys or bytes there are.
    pub fn len(&self) -> Option<usize> {
        match self {
            Value::Part(items) => Some(items.len()),
            Value::Json(json) => match json.as_ref() {
                Json::Array(items) => Some(items.len()),
                Json::Object(map) => Some(map.len()),
                Json::String(text) => Some(text.len()),
                _ => None,
            },
        }
    }

    /// As JSON.
    pub fn json(&self) -> Cow<'_, Json> {
        match self {
            Value::Json(json) => Cow::Borrowed(json.as_ref()),
            Value::Part(items) => Cow::Owned(Json::Array(items.to_vec())),
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Json(json) => json.as_str(),
            Value::Part(_) => None,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Json(json) => json.as_i64(),
            Value::Part(_) => None,
        }
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Json(json) => json.as_f64(),
            Value::Part(_) => None,
        }
    }

    /// What kind of value it is, with its article.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Part(_) => "a list",
            Value::Json(json) => match json.as_ref() {
                Json::Null => "nothing",
                Json::Bool(_) => "a boolean",
                Json::Number(_) => "a number",
                Json::String(_) => "a string",
                Json::Array(_) => "a list",
                Json::Object(_) => "an object",
            },
        }
    }

    /// Whether two values are the same; those of different kinds cannot be compared, but with nothing.
    pub fn equals(&self, other: &Value<'_>) -> Result<bool, String> {
        let (a, b) = (self.json(), other.json());
        match (a.as_ref(), b.as_ref()) {
            (Json::Null, other) | (other, Json::Null) => Ok(other.is_null()),
            (Json::Number(a), Json::Number(b)) => Ok(a.as_f64() == b.as_f64()),
            (a, b) if std::mem::discriminant(a) == std::mem::discriminant(b) => Ok(a == b),
            _ => Err(format!("{} and {} cannot be compared", self.kind(), other.kind())),
        }
    }

    /// The order of two numbers or two strings.
    pub fn order(&self, other: &Value<'_>) -> Result<Ordering, String> {
        let order = match (self.as_f64(), other.as_f64(), self.as_str(), other.as_str()) {
            (Some(a), Some(b), ..) => a.partial_cmp(&b),
            (_, _, Some(a), Some(b)) => Some(a.cmp(b)),
            _ => None,
        };
        order.ok_or_else(|| format!("{} and {} have no order", self.kind(), other.kind()))
    }
}
