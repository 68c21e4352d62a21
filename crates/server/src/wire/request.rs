//! What both dialects ask a model in the same words, read into the fields of a [`rhetor_lm::Request`].
//!
//! Ranges of numbers are checked by the engine, whose table of samplers knows them.

use crate::refusal::Refusal;
use crate::wire::fields::Fields;
use rhetor_lm::{Constraint, Sampling, Tool};
use serde_json::{Value, json};
use std::hash::{BuildHasher, Hasher, RandomState};

/// The most stop strings of a request.
const MAX_STOPS: usize = 64;
/// The most tools of a request.
const MAX_TOOLS: usize = 128;

/// Reads how tokens are chosen; what is not given stays as it is in `sampling`.
///
/// `repeat_last_n` is llama.cpp's: 0 switches the penalty on repeats off, -1 is the whole context. `mirostat` is 0 or 2.
pub(crate) fn sampling(fields: &mut Fields, sampling: &mut Sampling) -> Result<(), Refusal> {
    let numbers: [(&[&str], &mut f32); 12] = [
        (&["temperature"], &mut sampling.temperature),
        (&["top_p"], &mut sampling.top_p),
        (&["min_p"], &mut sampling.min_p),
        (&["typical_p"], &mut sampling.typical_p),
        (&["repeat_penalty", "repetition_penalty"], &mut sampling.repetition_penalty),
        (&["frequency_penalty"], &mut sampling.frequency_penalty),
        (&["presence_penalty"], &mut sampling.presence_penalty),
        (&["dry_multiplier"], &mut sampling.dry_multiplier),
        (&["dry_base"], &mut sampling.dry_base),
        (&["xtc_probability"], &mut sampling.xtc_probability),
        (&["xtc_threshold"], &mut sampling.xtc_threshold),
        (&["mirostat_eta"], &mut sampling.mirostat_eta),
    ];
    for (names, target) in numbers {
        for name in names {
            if let Some(number) = fields.take::<f64>(name)? {
                *target = number as f32;
            }
        }
    }
    if let Some(top_k) = whole(fields, "top_k")? {
        // Clients of llama.cpp's kin write -1 for "all".
        sampling.top_k = usize::try_from(top_k).unwrap_or(0);
    }
    if let Some(length) = whole(fields, "dry_allowed_length")? {
        let path = fields.path("dry_allowed_length");
        sampling.dry_allowed_length =
            usize::try_from(length).map_err(|_| wrong(&path, format!("{length} is below 0")))?;
    }
    match whole(fields, "repeat_last_n")? {
        None => {}
        Some(0) => sampling.repetition_penalty = 1.0,
        Some(n) => sampling.penalty_last_n = usize::try_from(n).unwrap_or(0),
    }
    let tau = fields.take::<f64>("mirostat_tau")?;
    match whole(fields, "mirostat")? {
        Some(2) => sampling.mirostat_tau = tau.unwrap_or(5.0) as f32,
        Some(0) => sampling.mirostat_tau = 0.0,
        Some(other) => {
            let path = fields.path("mirostat");
            return Err(wrong(&path, format!("{other} is neither 0 (off) nor 2 (Mirostat 2)")));
        }
        None => sampling.mirostat_tau = tau.map_or(sampling.mirostat_tau, |tau| tau as f32),
    }
    Ok(())
}

/// A whole number, also if it is written as 40.0.
pub(crate) fn whole(fields: &mut Fields, name: &str) -> Result<Option<i64>, Refusal> {
    let path = fields.path(name);
    let Some(number) = fields.take::<f64>(name)? else { return Ok(None) };
    if number.fract() == 0.0 && number.abs() < 9e15 {
        Ok(Some(number as i64))
    } else {
        Err(wrong(&path, format!("{number} is no whole number")))
    }
}

/// A number of tokens or of other things, 0 or more.
pub(crate) fn count(fields: &mut Fields, name: &str) -> Result<Option<usize>, Refusal> {
    let path = fields.path(name);
    let count = whole(fields, name)?;
    count.map(|n| usize::try_from(n).map_err(|_| wrong(&path, format!("{n} is below 0")))).transpose()
}

/// Strings before which an answer ends: one, or a list of them. None of them is empty.
pub(crate) fn stop(fields: &mut Fields, name: &str) -> Result<Vec<String>, Refusal> {
    let path = fields.path(name);
    let stops = match fields.value(name) {
        None => return Ok(Vec::new()),
        Some(Value::String(stop)) => vec![stop],
        Some(value) => serde_json::from_value::<Vec<String>>(value)
            .map_err(|_| wrong(&path, "expected a string or a list of strings"))?,
    };
    if stops.len() > MAX_STOPS {
        return Err(wrong(&path, format!("{} strings are more than {MAX_STOPS}", stops.len())));
    }
    match stops.iter().any(String::is_empty) {
        true => Err(wrong(&path, "an empty string would end every answer before it begins")),
        false => Ok(stops),
    }
}

/// A seed of the system's choice, small enough for every reader of JSON.
pub(crate) fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 32
}

/// A JSON Schema as a constraint: an object, or `true`.
pub(crate) fn schema(schema: &Value, path: &str) -> Result<Constraint, Refusal> {
    match schema {
        Value::Object(_) | Value::Bool(true) => Ok(Constraint::JsonSchema(schema.to_string())),
        _ => Err(wrong(path, "expected a JSON Schema, which is an object")),
    }
}

/// The functions in `tools`, each as `{"type": "function", "function": {"name", "description", "parameters"}}`.
pub(crate) fn tools(fields: &mut Fields) -> Result<Vec<Tool>, Refusal> {
    let path = fields.path("tools");
    let listed = fields.list("tools")?.unwrap_or_default();
    let mut tools = Vec::with_capacity(listed.len());
    for (i, listed) in listed.into_iter().enumerate() {
        let mut entry = fields.part(listed, format!("{path}[{i}]"))?;
        let kind = entry.take::<String>("type")?;
        if kind.is_some_and(|kind| kind != "function") {
            return Err(wrong(&entry.path("type"), "only tools of the type `function` can be called"));
        }
        let mut function = entry.object("function")?.ok_or_else(|| {
            let path = entry.path("function");
            Refusal::field(&path, format!("{path} is required"))
        })?;
        tools.push(tool(&mut function)?);
        entry.close(function)?;
        fields.close(entry)?;
    }
    check_tools(tools, &path)
}

/// One function: `{"name", "description", "parameters", "strict"}`. Arguments always keep to the schema where a call is
/// enforced, whatever `strict` says.
pub(crate) fn tool(function: &mut Fields) -> Result<Tool, Refusal> {
    let name: String = function.need("name")?;
    let path = function.path("name");
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_name) {
        return Err(wrong(
            &path,
            format!("{name:?} is no name of 1 to 64 letters, digits, `_`, `-` and `.`"),
        ));
    }
    let description = function.take("description")?;
    let strict: Option<bool> = function.take("strict")?;
    let _ = strict;
    let parameters = function.value("parameters").unwrap_or(json!({ "type": "object", "properties": {} }));
    if !parameters.is_object() {
        return Err(wrong(&function.path("parameters"), "expected a JSON Schema, which is an object"));
    }
    Ok(Tool { name, description, parameters: parameters.to_string() })
}

/// Refuses too many tools, and two of one name.
pub(crate) fn check_tools(tools: Vec<Tool>, path: &str) -> Result<Vec<Tool>, Refusal> {
    if tools.len() > MAX_TOOLS {
        return Err(wrong(path, format!("{} tools are more than {MAX_TOOLS}", tools.len())));
    }
    for (i, tool) in tools.iter().enumerate() {
        if tools[..i].iter().any(|other| other.name == tool.name) {
            return Err(wrong(path, format!("two tools are called `{}`", tool.name)));
        }
    }
    Ok(tools)
}

/// 400: the value at `path` is wrong.
pub(crate) fn wrong(path: &str, message: impl std::fmt::Display) -> Refusal {
    Refusal::field(path, format!("{path}: {message}")).code("invalid_value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::of(value, "", false).unwrap()
    }

    #[test]
    fn numbers_that_are_not_given_stay_as_they_are() {
        let mut chosen = Sampling { temperature: 1.0, top_k: 40, ..Sampling::default() };
        let mut body =
            fields(json!({ "top_p": 0.5, "repeat_penalty": 1.25, "repeat_last_n": -1, "mirostat": 2 }));
        sampling(&mut body, &mut chosen).unwrap();
        assert_eq!(body.finish(), Ok(Vec::new()));
        let expected = Sampling {
            temperature: 1.0,
            top_k: 40,
            top_p: 0.5,
            repetition_penalty: 1.25,
            mirostat_tau: 5.0,
            ..Sampling::default()
        };
        assert_eq!(chosen, expected);
    }

    #[test]
    fn wrong_numbers_are_refused_by_name() {
        let refused = |body| {
            sampling(&mut fields(body), &mut Sampling::default()).unwrap_err().param.unwrap_or_default()
        };
        assert_eq!(refused(json!({ "top_k": 1.5 })), "top_k");
        assert_eq!(refused(json!({ "mirostat": 1 })), "mirostat");
        assert_eq!(refused(json!({ "temperature": "warm" })), "temperature");
    }

    #[test]
    fn stop_is_a_string_or_a_list_of_strings_none_of_them_empty() {
        let of = |body| stop(&mut fields(body), "stop").map_err(|refusal| refusal.message);
        assert_eq!(of(json!({ "stop": "a" })).unwrap(), ["a"]);
        assert_eq!(of(json!({ "stop": ["a", "b"] })).unwrap(), ["a", "b"]);
        assert!(of(json!({ "stop": null })).unwrap().is_empty());
        assert!(of(json!({ "stop": ["a", ""] })).is_err());
        assert!(of(json!({ "stop": 3 })).is_err());
    }

    #[test]
    fn tools_keep_the_order_of_their_parameters_and_are_refused_by_path() {
        let tool = json!({ "type": "function", "function": {
            "name": "weather", "parameters": { "type": "object", "properties": { "z": {}, "a": {} } },
        } });
        let mut body = fields(json!({ "tools": [tool] }));
        let read = tools(&mut body).unwrap();
        assert_eq!(read[0].parameters, r#"{"type":"object","properties":{"z":{},"a":{}}}"#);
        assert_eq!(body.finish(), Ok(Vec::new()));
        let refused = |body| tools(&mut fields(body)).unwrap_err().param.unwrap();
        assert_eq!(refused(json!({ "tools": [tool, tool] })), "tools");
        assert_eq!(refused(json!({ "tools": [{ "type": "custom" }] })), "tools[0].type");
        let unknown = json!({ "tools": [{ "function": { "name": "a", "colour": 1 } }] });
        assert_eq!(refused(unknown), "tools[0].function.colour");
        assert_eq!(
            refused(json!({ "tools": [{ "function": { "name": "a b" } }] })),
            "tools[0].function.name"
        );
    }
}
