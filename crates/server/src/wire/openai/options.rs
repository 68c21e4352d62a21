//! What chat, completions and responses may ask alike.

use crate::refusal::Refusal;
use crate::residents::KeepAlive;
use crate::wire::fields::Fields;
use crate::wire::pictures::Shown;
use crate::wire::request::{count, random_seed, sampling, schema, stop, wrong};
use rhetor_lm::{Constraint, Overflow, Request};
use serde_json::Value;

/// A request as it was read.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The name of the model, or of an adapter.
    pub model: String,
    /// What it is asked.
    pub request: Request,
    /// How long the model stays afterwards.
    pub keep_alive: Option<KeepAlive>,
    /// Pictures that are not fetched yet.
    pub shown: Vec<Shown>,
    /// The request wishes for thoughts, and is answered without where the model has none.
    pub is_effort: bool,
    /// The reply is a stream of events.
    pub is_stream: bool,
    /// The stream ends with what was used.
    pub with_usage: bool,
    /// What was passed over.
    pub warnings: Vec<String>,
}

/// Fields that tell the caller's own story; they change nothing.
pub(crate) const LABELS: &[&str] = &[
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
    "store",
];

/// Reads the fields that all requests for text share, and their defaults: temperature 1, a random seed.
pub(crate) fn options(fields: &mut Fields, request: &mut Request) -> Result<(), Refusal> {
    request.sampling.temperature = 1.0;
    sampling(fields, &mut request.sampling)?;
    if request.sampling.temperature > 2.0 {
        let message = format!("{} is outside 0 to 2", request.sampling.temperature);
        return Err(wrong(&fields.path("temperature"), message));
    }
    request.sampling.logit_bias = logit_bias(fields)?;
    request.stop = stop(fields, "stop")?;
    request.seed = fields.take::<i64>("seed")?.map_or_else(random_seed, |seed| seed as u64);
    request.n = count(fields, "n")?.unwrap_or(1);
    if !(1..=128).contains(&request.n) {
        return Err(wrong(&fields.path("n"), format!("{} is outside 1 to 128", request.n)));
    }
    request.overflow = overflow(fields)?;
    request.adapters = fields.take("adapters")?;
    request.speculate = count(fields, "speculate")?;
    if let Some(found) = grammar(fields)? {
        constrain(request, found, "grammar")?;
    }
    fields.labels(LABELS);
    Ok(())
}

/// Puts a constraint on the answer, which has none yet.
pub(crate) fn constrain(request: &mut Request, constraint: Constraint, path: &str) -> Result<(), Refusal> {
    if request.constraint.is_some() {
        let message = "an answer keeps to one constraint only: response_format, grammar, guided_json, ...";
        return Err(wrong(path, message));
    }
    request.constraint = Some(constraint);
    Ok(())
}

/// What happens when the context is too short: `error` or `truncate`.
pub(crate) fn overflow(fields: &mut Fields) -> Result<Overflow, Refusal> {
    match fields.take::<String>("overflow")?.as_deref() {
        None | Some("error") => Ok(Overflow::Error),
        Some("truncate") => Ok(Overflow::TruncateOldest),
        Some(other) => {
            Err(wrong(&fields.path("overflow"), format!("{other:?} is neither error nor truncate")))
        }
    }
}

/// `{"50256": -100}`: token ids as text, and what is added to their logits.
fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, Refusal> {
    let path = fields.path("logit_bias");
    let Some(value) = fields.value("logit_bias") else { return Ok(Vec::new()) };
    let Value::Object(entries) = value else {
        return Err(wrong(&path, "expected an object of token ids and numbers"));
    };
    let mut bias = Vec::with_capacity(entries.len());
    for (id, value) in entries {
        let at = format!("{path}.{id}");
        let id = id.parse().map_err(|_| wrong(&at, "the name of the field is no token id"))?;
        let value = value.as_f64().filter(|value| (-100.0..=100.0).contains(value));
        let value = value.ok_or_else(|| wrong(&at, "expected a number from -100 to 100"))?;
        bias.push((id, value as f32));
    }
    Ok(bias)
}

/// The constraint of `grammar`, `guided_json`, `guided_regex`, `guided_grammar` or `guided_choice`, of which one may be
/// there. A grammar is GBNF where it has `::=`, and Lark's otherwise.
fn grammar(fields: &mut Fields) -> Result<Option<Constraint>, Refusal> {
    let mut found = Vec::new();
    for name in ["grammar", "guided_grammar"] {
        found.extend(fields.take::<String>(name)?.map(|text| match text.contains("::=") {
            true => Constraint::Gbnf(text),
            false => Constraint::Lark(text),
        }));
    }
    found.extend(fields.take::<String>("guided_regex")?.map(Constraint::Regex));
    let path = fields.path("guided_json");
    match fields.value("guided_json") {
        None => {}
        // vLLM takes the schema as text too.
        Some(Value::String(text)) => {
            let value = serde_json::from_str(&text).map_err(|error| wrong(&path, error))?;
            found.push(schema(&value, &path)?);
        }
        Some(value) => found.push(schema(&value, &path)?),
    }
    if let Some(choices) = fields.take::<Vec<String>>("guided_choice")? {
        let choices: Vec<Value> = choices.into_iter().map(|choice| literal(&choice).into()).collect();
        if choices.is_empty() {
            return Err(wrong(&fields.path("guided_choice"), "there is nothing to choose from"));
        }
        let texts: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
        found.push(Constraint::Regex(texts.join("|")));
    }
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(wrong(&fields.path("grammar"), "two constraints cannot both hold")),
    }
}

/// A regular expression that matches `text` alone.
fn literal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    format!("({escaped})")
}

/// `stream` and `stream_options`: whether the reply is a stream, and whether it ends with what was used.
pub(crate) fn streaming(fields: &mut Fields) -> Result<(bool, bool), Refusal> {
    let is_stream = fields.take("stream")?.unwrap_or(false);
    let Some(mut options) = fields.object("stream_options")? else { return Ok((is_stream, false)) };
    if !is_stream {
        return Err(wrong(&fields.path("stream_options"), "it is of use with `stream` only"));
    }
    let with_usage = options.take("include_usage")?.unwrap_or(false);
    // Padding against listeners who measure packets: nothing here leaves the machine unencrypted by itself.
    if options.take("include_obfuscation")?.unwrap_or(false) {
        options.unsupported("include_obfuscation", "no padding is sent")?;
    }
    fields.close(options)?;
    Ok((is_stream, with_usage))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_lm::Prompt;
    use serde_json::json;

    fn read(body: Value) -> Result<Request, Refusal> {
        let mut request = Request::new(Prompt::Ids(Vec::new()));
        let mut fields = Fields::of(body, "", false)?;
        options(&mut fields, &mut request)?;
        fields.finish()?;
        Ok(request)
    }

    #[test]
    fn the_defaults_are_those_of_openai() {
        let request = read(json!({ "user": "me", "metadata": {}, "store": true })).unwrap();
        assert_eq!((request.sampling.temperature, request.n, request.constraint), (1.0, 1, None));
        assert_eq!(read(json!({ "seed": -3 })).unwrap().seed as i64, -3);
    }

    #[test]
    fn what_is_out_of_range_or_said_twice_is_refused_by_name() {
        let refused = |body| read(body).unwrap_err().param.unwrap();
        assert_eq!(refused(json!({ "temperature": 3 })), "temperature");
        assert_eq!(refused(json!({ "n": 0 })), "n");
        assert_eq!(refused(json!({ "logit_bias": { "x": 1 } })), "logit_bias.x");
        assert_eq!(refused(json!({ "logit_bias": { "7": 101 } })), "logit_bias.7");
        assert_eq!(refused(json!({ "overflow": "shift" })), "overflow");
        assert_eq!(refused(json!({ "grammar": "a", "guided_regex": "b" })), "grammar");
        assert_eq!(refused(json!({ "warmth": 1 })), "warmth");
    }

    #[test]
    fn a_grammar_is_told_by_its_dialect_and_choices_become_an_expression() {
        let of = |body| read(body).unwrap().constraint.unwrap();
        assert_eq!(of(json!({ "grammar": "root ::= \"a\"" })).name(), "gbnf");
        assert_eq!(of(json!({ "grammar": "start: \"a\"" })).name(), "lark");
        assert_eq!(of(json!({ "guided_json": "{}" })), Constraint::JsonSchema("{}".to_string()));
        let choices = of(json!({ "guided_choice": ["yes.", "no"] }));
        assert_eq!(choices, Constraint::Regex("(yes\\.)|(no)".to_string()));
    }
}
