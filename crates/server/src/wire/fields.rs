//! Reads a JSON object strictly: each field is taken by name and type, and what nobody took is refused by name.

use crate::refusal::Refusal;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// An object of a request whose fields are taken one by one.
///
/// `null` counts as absent, as clients that send every field mean it.
pub struct Fields {
    /// Where the object stands: empty, or as in `messages[2]`.
    path: String,
    fields: Map<String, Value>,
    /// Warn instead of refusing what is unknown.
    lenient: bool,
    warnings: Vec<String>,
}

impl Fields {
    /// The fields of `value`, which must be an object.
    pub fn of(value: Value, path: impl Into<String>, lenient: bool) -> Result<Fields, Refusal> {
        let path = path.into();
        match value {
            Value::Object(fields) => Ok(Fields { path, fields, lenient, warnings: Vec::new() }),
            other => {
                let place = if path.is_empty() { "the body" } else { path.as_str() };
                Err(Refusal::field(place, format!("{place}: expected an object, got {}", kind(&other))))
            }
        }
    }

    /// The path of a field.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }

    /// Whether the field is there and was not taken yet.
    pub fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    /// The field as it is, if it is there.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.fields.shift_remove(name).filter(|value| !value.is_null())
    }

    /// What was not taken, as an object again.
    pub fn rest(self) -> Value {
        self.fields.into()
    }

    /// The field as a `T`, if it is there.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Refusal> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match serde_json::from_value(value) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                let path = self.path(name);
                Err(Refusal::field(&path, format!("{path}: {error}")).code("invalid_value"))
            }
        }
    }

    /// The field as a `T`, which must be there.
    pub fn need<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Refusal> {
        let path = self.path(name);
        self.take(name)?.ok_or_else(|| Refusal::field(&path, format!("{path} is required")))
    }

    /// The field as an object, if it is there.
    pub fn object(&mut self, name: &str) -> Result<Option<Fields>, Refusal> {
        let (path, lenient) = (self.path(name), self.lenient);
        self.value(name).map(|value| Fields::of(value, path, lenient)).transpose()
    }

    /// The field as a list, if it is there.
    pub fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, Refusal> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => {
                let path = self.path(name);
                Err(Refusal::field(&path, format!("{path}: expected a list, got {}", kind(&other))))
            }
        }
    }

    /// The fields that nobody took so far; they stay.
    pub fn left(&self) -> Map<String, Value> {
        self.fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// A part of this object, which stands at `path`, as fields.
    pub fn part(&self, value: Value, path: impl Into<String>) -> Result<Fields, Refusal> {
        Fields::of(value, path, self.lenient)
    }

    /// Ends the reading of a part of this object, whose warnings become this one's.
    pub fn close(&mut self, part: Fields) -> Result<(), Refusal> {
        self.warnings.extend(part.finish()?);
        Ok(())
    }

    /// Takes fields that say something to the caller and nothing to the model.
    pub fn labels(&mut self, names: &[&str]) {
        for name in names {
            self.fields.shift_remove(*name);
        }
    }

    /// Refuses, or warns of, the known field `name` if it is there, for the reason `why`.
    pub fn refuse(&mut self, name: &str, why: &str) -> Result<(), Refusal> {
        match self.value(name) {
            Some(_) => self.unsupported(name, why),
            None => Ok(()),
        }
    }

    /// A field that is known and has no effect here with this value: refused, or warned of.
    pub fn unsupported(&mut self, name: &str, why: &str) -> Result<(), Refusal> {
        let path = self.path(name);
        let message = format!("{path} is not supported: {why}");
        if !self.lenient {
            return Err(Refusal::field(path, message).code("unsupported_parameter"));
        }
        self.warnings.push(message);
        Ok(())
    }

    /// Refuses, or warns of, every field that nobody took; returns the warnings.
    pub fn finish(mut self) -> Result<Vec<String>, Refusal> {
        for (name, _) in std::mem::take(&mut self.fields).into_iter().filter(|(_, value)| !value.is_null()) {
            let path = self.path(&name);
            let message = format!("unknown field {path}");
            if !self.lenient {
                return Err(Refusal::field(path, message).code("unknown_parameter"));
            }
            self.warnings.push(message);
        }
        Ok(self.warnings)
    }
}

/// What kind of JSON value it is.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_nobody_took_is_refused_by_its_path_or_warned_of() {
        let body = json!({ "a": 1, "nested": { "b": true, "c": null } });
        let mut fields = Fields::of(body.clone(), "", false).unwrap();
        assert_eq!(fields.take::<u32>("a").unwrap(), Some(1));
        let nested = fields.object("nested").unwrap().unwrap();
        assert_eq!(nested.finish().unwrap_err().param.as_deref(), Some("nested.b"));
        assert_eq!(fields.finish(), Ok(Vec::new()));
        let lenient = Fields::of(body, "", true).unwrap();
        assert_eq!(lenient.finish().unwrap(), ["unknown field a", "unknown field nested"]);
    }

    #[test]
    fn a_wrong_type_names_the_field() {
        let mut fields = Fields::of(json!({ "n": "three" }), "options", false).unwrap();
        assert_eq!(fields.take::<u32>("n").unwrap_err().param.as_deref(), Some("options.n"));
    }
}
