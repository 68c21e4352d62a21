//! What a model file says about itself: an ordered map from keys to typed values.
//!
//! One type serves GGUF's key-value section, whose exact number types are kept for writing, and `config.json`, whose
//! nested objects become keys joined by `.` and whose nulls are absent. The getters convert between number types
//! where the value allows it (`10000.0` is an integer), and their errors name file, key, expected and got.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Error, Place};

/// An ordered map of typed values.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    file: PathBuf,
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
}

#[derive(Debug, Clone)]
struct Entry {
    key: String,
    value: Value,
    value_type: ValueType,
}

/// A value, in the widest type of its kind; the exact type is [`Metadata::type_of`] its key.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// An unsigned integer, of any width.
    U64(u64),
    /// A signed integer, of any width.
    I64(i64),
    /// A floating-point number, of any width.
    F64(f64),
    /// Text.
    String(String),
    /// A list.
    Array(Array),
}

/// A list of values of one type, or of mixed ones (JSON only).
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    Strings(Strings),
    /// Lists in a list, each of its own type.
    Arrays(Vec<Array>),
    /// Values of different types; GGUF cannot store it.
    Mixed(Vec<Value>),
}

/// A list of strings in one allocation, since vocabularies have 10^5 of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strings {
    text: String,
    /// Where each string ends in `text`; it starts where the one before ends.
    ends: Vec<usize>,
}

/// The exact types of GGUF values, by their numbers in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

/// A value together with the exact type it is written as; made from a plain Rust value by `into()`.
#[derive(Debug, Clone, PartialEq)]
pub struct TypedValue {
    /// The value.
    pub value: Value,
    /// The type it is written as.
    pub value_type: ValueType,
}

impl Metadata {
    /// No keys; errors of the getters will name `file`.
    pub fn new(file: &Path) -> Metadata {
        Metadata { file: file.to_path_buf(), ..Metadata::default() }
    }

    /// The file that the values come from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Sets `key`, in place if it exists, else at the end. The Rust type says how GGUF stores it: `7u32`, `1e-5f32`.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<TypedValue>) {
        let (key, TypedValue { value, value_type }) = (key.into(), value.into());
        match self.index.get(&key) {
            Some(&i) => self.entries[i] = Entry { key, value, value_type },
            None => {
                self.index.insert(key.clone(), self.entries.len());
                self.entries.push(Entry { key, value, value_type });
            }
        }
    }

    /// Removes `key` and returns its value; the order of the others stays.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let i = self.index.remove(key)?;
        let entry = self.entries.remove(i);
        self.index.values_mut().filter(|at| **at > i).for_each(|at| *at -= 1);
        Some(entry.value)
    }

    /// Whether `key` exists.
    pub fn contains(&self, key: &str) -> bool {
        self.index.contains_key(key)
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        Some(&self.entries[*self.index.get(key)?].value)
    }

    /// The exact type of the value of `key`.
    pub fn type_of(&self, key: &str) -> Option<ValueType> {
        Some(self.entries[*self.index.get(key)?].value_type)
    }

    /// Every key and value, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|entry| (entry.key.as_str(), &entry.value))
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The non-negative integer of `key`; floats without a fraction count.
    pub fn get_u64(&self, key: &str) -> Result<Option<u64>, Error> {
        self.typed(key, "a non-negative integer", Value::as_u64)
    }

    /// The non-negative integer of `key` as a size.
    pub fn get_usize(&self, key: &str) -> Result<Option<usize>, Error> {
        self.typed(key, "a non-negative integer", |value| value.as_u64()?.try_into().ok())
    }

    /// The integer of `key`; floats without a fraction count.
    pub fn get_i64(&self, key: &str) -> Result<Option<i64>, Error> {
        self.typed(key, "an integer", Value::as_i64)
    }

    /// The number of `key`.
    pub fn get_f64(&self, key: &str) -> Result<Option<f64>, Error> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// The number of `key`, rounded to f32.
    pub fn get_f32(&self, key: &str) -> Result<Option<f32>, Error> {
        self.typed(key, "a number", |value| value.as_f64().map(|x| x as f32))
    }

    /// The truth value of `key`.
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// The text of `key`.
    pub fn get_str(&self, key: &str) -> Result<Option<&str>, Error> {
        self.typed(key, "a string", Value::as_str)
    }

    /// The list of `key`.
    pub fn get_array(&self, key: &str) -> Result<Option<&Array>, Error> {
        self.typed(key, "an array", Value::as_array)
    }

    /// The list of strings of `key`.
    pub fn get_strings(&self, key: &str) -> Result<Option<&Strings>, Error> {
        self.typed(key, "an array of strings", |value| value.as_array()?.as_strings())
    }

    /// The list of non-negative integers of `key`.
    pub fn get_u64s(&self, key: &str) -> Result<Option<Vec<u64>>, Error> {
        self.typed(key, "an array of non-negative integers", |value| value.as_array()?.collect(Value::as_u64))
    }

    /// The list of integers of `key`.
    pub fn get_i64s(&self, key: &str) -> Result<Option<Vec<i64>>, Error> {
        self.typed(key, "an array of integers", |value| value.as_array()?.collect(Value::as_i64))
    }

    /// The list of numbers of `key`, rounded to f32.
    pub fn get_f32s(&self, key: &str) -> Result<Option<Vec<f32>>, Error> {
        self.typed(key, "an array of numbers", |value| {
            value.as_array()?.collect(|item| item.as_f64().map(|x| x as f32))
        })
    }

    /// As [`Metadata::get_u64`], but an absent key is an error.
    pub fn require_u64(&self, key: &str) -> Result<u64, Error> {
        self.get_u64(key)?.ok_or_else(|| self.missing(key, "a non-negative integer"))
    }

    /// As [`Metadata::get_usize`], but an absent key is an error.
    pub fn require_usize(&self, key: &str) -> Result<usize, Error> {
        self.get_usize(key)?.ok_or_else(|| self.missing(key, "a non-negative integer"))
    }

    /// As [`Metadata::get_i64`], but an absent key is an error.
    pub fn require_i64(&self, key: &str) -> Result<i64, Error> {
        self.get_i64(key)?.ok_or_else(|| self.missing(key, "an integer"))
    }

    /// As [`Metadata::get_f64`], but an absent key is an error.
    pub fn require_f64(&self, key: &str) -> Result<f64, Error> {
        self.get_f64(key)?.ok_or_else(|| self.missing(key, "a number"))
    }

    /// As [`Metadata::get_f32`], but an absent key is an error.
    pub fn require_f32(&self, key: &str) -> Result<f32, Error> {
        self.get_f32(key)?.ok_or_else(|| self.missing(key, "a number"))
    }

    /// As [`Metadata::get_bool`], but an absent key is an error.
    pub fn require_bool(&self, key: &str) -> Result<bool, Error> {
        self.get_bool(key)?.ok_or_else(|| self.missing(key, "true or false"))
    }

    /// As [`Metadata::get_str`], but an absent key is an error.
    pub fn require_str(&self, key: &str) -> Result<&str, Error> {
        self.get_str(key)?.ok_or_else(|| self.missing(key, "a string"))
    }

    /// As [`Metadata::get_array`], but an absent key is an error.
    pub fn require_array(&self, key: &str) -> Result<&Array, Error> {
        self.get_array(key)?.ok_or_else(|| self.missing(key, "an array"))
    }

    /// As [`Metadata::get_strings`], but an absent key is an error.
    pub fn require_strings(&self, key: &str) -> Result<&Strings, Error> {
        self.get_strings(key)?.ok_or_else(|| self.missing(key, "an array of strings"))
    }

    /// Adds a JSON object: nested objects as keys joined by `.`, nulls left out, numbers by their spelling.
    ///
    /// Lists of plain values stay lists; a list that holds objects or nulls becomes keys `list.0`, `list.1` ...
    /// Errors: two spellings of one key, as in `{"a.b": 1, "a": {"b": 2}}`.
    pub fn add_json(&mut self, object: &serde_json::Map<String, serde_json::Value>) -> Result<(), Error> {
        object.iter().try_for_each(|(key, value)| self.add_value(key.clone(), value))
    }

    /// The depth is bounded by the JSON reader, which refuses more than 128 levels.
    fn add_value(&mut self, key: String, value: &serde_json::Value) -> Result<(), Error> {
        use serde_json::Value as Json;
        match value {
            Json::Null => Ok(()),
            Json::Object(object) => {
                object.iter().try_for_each(|(name, value)| self.add_value(format!("{key}.{name}"), value))
            }
            Json::Array(items) if items.iter().any(|item| item.is_object() || item.is_null()) => {
                items.iter().enumerate().try_for_each(|(i, item)| self.add_value(format!("{key}.{i}"), item))
            }
            _ if self.contains(&key) => {
                Err(Error::Duplicate { place: Place::new(&self.file, "key", 0), got: key })
            }
            _ => {
                self.set(key, from_json(value));
                Ok(())
            }
        }
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => {
                let (file, key) = (self.file.clone(), key.to_owned());
                Err(Error::WrongType { file, key, expected, got: value.to_string() })
            }
        }
    }

    fn missing(&self, key: &str, expected: &'static str) -> Error {
        Error::MissingKey { file: self.file.clone(), key: key.to_owned(), expected }
    }
}

/// Two maps are equal if keys, values and exact types are, in order; the files may differ.
impl PartialEq for Metadata {
    fn eq(&self, other: &Metadata) -> bool {
        let same =
            |(a, b): (&Entry, &Entry)| a.key == b.key && a.value_type == b.value_type && a.value == b.value;
        self.len() == other.len() && self.entries.iter().zip(&other.entries).all(same)
    }
}

fn from_json(value: &serde_json::Value) -> TypedValue {
    use serde_json::Value as Json;
    match value {
        // Objects and nulls never come here from a map; inside of nested lists their text is kept.
        Json::Null | Json::Object(_) => value.to_string().into(),
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(n), _) => n.into(),
            (None, Some(n)) => n.into(),
            (None, None) => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => {
            let array = if !items.is_empty() && items.iter().all(serde_json::Value::is_string) {
                Array::Strings(items.iter().filter_map(serde_json::Value::as_str).collect())
            } else {
                Array::Mixed(items.iter().map(|item| from_json(item).value).collect())
            };
            array.into()
        }
    }
}

impl Value {
    /// The value as a non-negative integer, if it is one; a float without a fraction counts.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U64(n) => Some(n),
            Value::I64(n) => n.try_into().ok(),
            Value::F64(x) if x.fract() == 0.0 && (0.0..18446744073709551616.0).contains(&x) => Some(x as u64),
            _ => None,
        }
    }

    /// The value as an integer, if it is one; a float without a fraction counts.
    pub fn as_i64(&self) -> Option<i64> {
        const BOUND: f64 = 9223372036854775808.0;
        match *self {
            Value::U64(n) => n.try_into().ok(),
            Value::I64(n) => Some(n),
            Value::F64(x) if x.fract() == 0.0 && (-BOUND..BOUND).contains(&x) => Some(x as i64),
            _ => None,
        }
    }

    /// The value as a number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::U64(n) => Some(n as f64),
            Value::I64(n) => Some(n as f64),
            Value::F64(x) => Some(x),
            _ => None,
        }
    }

    /// The value, if it is a truth value.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(value) = *self { Some(value) } else { None }
    }

    /// The value, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = self { Some(text) } else { None }
    }

    /// The value, if it is a list.
    pub fn as_array(&self) -> Option<&Array> {
        if let Value::Array(array) = self { Some(array) } else { None }
    }
}

/// Text and lists are cut: what is printed is for people.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::U64(n) => write!(f, "{n}"),
            Value::I64(n) => write!(f, "{n}"),
            // 1e-5 that was stored in 32 bits is to read as 1e-5.
            Value::F64(x) if f64::from(*x as f32) == *x => write!(f, "{:?}", *x as f32),
            Value::F64(x) => write!(f, "{x:?}"),
            Value::String(text) => {
                let short: String = text.chars().take(60).collect();
                let dots = if short.len() < text.len() { "..." } else { "" };
                write!(f, "{short:?}{dots}")
            }
            Value::Array(array) => write!(f, "{array}"),
        }
    }
}

impl Array {
    /// The number of items.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(items) => items.len(),
            Array::I8(items) => items.len(),
            Array::U16(items) => items.len(),
            Array::I16(items) => items.len(),
            Array::U32(items) => items.len(),
            Array::I32(items) => items.len(),
            Array::U64(items) => items.len(),
            Array::I64(items) => items.len(),
            Array::F32(items) => items.len(),
            Array::F64(items) => items.len(),
            Array::Bool(items) => items.len(),
            Array::Strings(items) => items.len(),
            Array::Arrays(items) => items.len(),
            Array::Mixed(items) => items.len(),
        }
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of item `i`.
    pub fn get(&self, i: usize) -> Option<Value> {
        Some(match self {
            Array::U8(items) => Value::U64((*items.get(i)?).into()),
            Array::I8(items) => Value::I64((*items.get(i)?).into()),
            Array::U16(items) => Value::U64((*items.get(i)?).into()),
            Array::I16(items) => Value::I64((*items.get(i)?).into()),
            Array::U32(items) => Value::U64((*items.get(i)?).into()),
            Array::I32(items) => Value::I64((*items.get(i)?).into()),
            Array::U64(items) => Value::U64(*items.get(i)?),
            Array::I64(items) => Value::I64(*items.get(i)?),
            Array::F32(items) => Value::F64((*items.get(i)?).into()),
            Array::F64(items) => Value::F64(*items.get(i)?),
            Array::Bool(items) => Value::Bool(*items.get(i)?),
            Array::Strings(items) => Value::String(items.get(i)?.to_owned()),
            Array::Arrays(items) => Value::Array(items.get(i)?.clone()),
            Array::Mixed(items) => items.get(i)?.clone(),
        })
    }

    /// Copies of the items, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Value> {
        (0..self.len()).map(|i| self.get(i).expect("i < len"))
    }

    /// The strings, if the list is one of strings.
    pub fn as_strings(&self) -> Option<&Strings> {
        if let Array::Strings(strings) = self { Some(strings) } else { None }
    }

    /// The items converted; `None` if one cannot be.
    fn collect<T>(&self, convert: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
        self.iter().map(|item| convert(&item)).collect()
    }
}

impl fmt::Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        f.write_str("[")?;
        for i in 0..self.len().min(SHOWN) {
            let comma = if i == 0 { "" } else { ", " };
            match self {
                // The type has no end of nesting, so its print must have one.
                Array::Arrays(items) => write!(f, "{comma}[{} items]", items[i].len())?,
                _ => write!(f, "{comma}{}", self.get(i).expect("i < len"))?,
            }
        }
        if self.len() > SHOWN {
            write!(f, ", ... {} items", self.len())?;
        }
        f.write_str("]")
    }
}

impl Strings {
    /// An empty list with room for `n` strings.
    pub fn with_capacity(n: usize) -> Strings {
        Strings { text: String::new(), ends: Vec::with_capacity(n) }
    }

    /// The strings that end at `ends` of one text; `None` if one of them is no UTF-8. `ends` must rise up to the length.
    pub(crate) fn from_utf8(text: Vec<u8>, ends: Vec<usize>) -> Option<Strings> {
        let text = String::from_utf8(text).ok()?;
        ends.iter().all(|end| text.is_char_boundary(*end)).then_some(Strings { text, ends })
    }

    /// Appends a string.
    pub fn push(&mut self, string: &str) {
        self.text.push_str(string);
        self.ends.push(self.text.len());
    }

    /// The number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no string.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// String `i`.
    pub fn get(&self, i: usize) -> Option<&str> {
        let end = *self.ends.get(i)?;
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        Some(&self.text[start..end])
    }

    /// The strings, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|i| self.get(i).expect("i < len"))
    }
}

impl<'a> FromIterator<&'a str> for Strings {
    fn from_iter<I: IntoIterator<Item = &'a str>>(strings: I) -> Strings {
        let mut list = Strings::default();
        strings.into_iter().for_each(|string| list.push(string));
        list
    }
}

impl ValueType {
    /// Every type; the place in the list is the number in GGUF files.
    pub const ALL: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::String,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    /// The type with that number in GGUF files.
    pub fn from_gguf_id(id: u32) -> Option<ValueType> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// The type's number in GGUF files.
    pub fn gguf_id(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 13] =
            ["u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"];
        f.write_str(NAMES[*self as usize])
    }
}

/// `u32 => U64(u64), U32`: the Rust type, the variant that holds it, the type in the file.
macro_rules! typed {
    ($($rust:ty => $variant:ident($wide:ty), $value_type:ident;)*) => {$(
        impl From<$rust> for TypedValue {
            fn from(value: $rust) -> TypedValue {
                TypedValue { value: Value::$variant(<$wide>::from(value)), value_type: ValueType::$value_type }
            }
        }
    )*};
}

typed! {
    u8 => U64(u64), U8;
    u16 => U64(u64), U16;
    u32 => U64(u64), U32;
    u64 => U64(u64), U64;
    i8 => I64(i64), I8;
    i16 => I64(i64), I16;
    i32 => I64(i64), I32;
    i64 => I64(i64), I64;
    f32 => F64(f64), F32;
    f64 => F64(f64), F64;
    bool => Bool(bool), Bool;
    &str => String(String), String;
    String => String(String), String;
    Array => Array(Array), Array;
}

impl From<Strings> for TypedValue {
    fn from(strings: Strings) -> TypedValue {
        Array::Strings(strings).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_text(json: &str) -> Result<Metadata, Error> {
        let mut metadata = Metadata::new(Path::new("config.json"));
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        metadata.add_json(value.as_object().unwrap())?;
        Ok(metadata)
    }

    #[test]
    fn nested_json_becomes_joined_keys_and_null_is_absent() {
        let config = from_text(
            r#"{"rope_parameters": {"rope_theta": 10000.0, "type": null}, "layers": ["a", "b"], "eos_token_id": [1, 2],
                "id2label": {"0": "no"}, "experts": [{"n": 1}, {"n": 2}], "scale": -1, "eps": 1e-5, "empty": []}"#,
        )
        .unwrap();
        assert_eq!(config.require_u64("rope_parameters.rope_theta").unwrap(), 10000);
        assert!(!config.contains("rope_parameters.type"));
        assert_eq!(config.get_strings("layers").unwrap().unwrap().iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(config.get_u64s("eos_token_id").unwrap(), Some(vec![1, 2]));
        assert_eq!(config.require_str("id2label.0").unwrap(), "no");
        assert_eq!(config.require_u64("experts.1.n").unwrap(), 2);
        assert_eq!(config.require_i64("scale").unwrap(), -1);
        assert_eq!(config.require_f32("eps").unwrap(), 1e-5);
        assert!(config.require_array("empty").unwrap().is_empty());
    }

    #[test]
    fn an_error_names_file_key_expected_and_got() {
        let config = from_text(r#"{"hidden_size": "big", "n": 1.5, "minus": -1}"#).unwrap();
        let message = |error: Error| error.to_string();
        assert_eq!(
            message(config.require_u64("hidden_size").unwrap_err()),
            "config.json: metadata key `hidden_size`: expected a non-negative integer, got \"big\""
        );
        assert_eq!(
            message(config.require_f32("eps").unwrap_err()),
            "config.json: metadata key `eps` is missing: expected a number"
        );
        assert!(matches!(config.get_u64("n"), Err(Error::WrongType { .. })));
        assert!(matches!(config.get_u64("minus"), Err(Error::WrongType { .. })));
        assert!(matches!(config.get_strings("minus"), Err(Error::WrongType { .. })));
    }

    #[test]
    fn a_key_spelt_in_two_ways_is_refused() {
        let error = from_text(r#"{"a.b": 1, "a": {"b": 2}}"#).unwrap_err();
        assert!(matches!(error, Error::Duplicate { got, .. } if got == "a.b"));
    }

    #[test]
    fn removing_a_key_keeps_the_order_of_the_others() {
        let mut metadata = Metadata::default();
        for key in ["a", "b", "c"] {
            metadata.set(key, 1u32);
        }
        assert_eq!(metadata.remove("b"), Some(Value::U64(1)));
        metadata.set("c", 2u8);
        assert_eq!(metadata.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!((metadata.get_u64("c").unwrap(), metadata.type_of("c")), (Some(2), Some(ValueType::U8)));
    }
}
