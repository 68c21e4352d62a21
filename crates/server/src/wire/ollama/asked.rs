//! What `/api/generate` and `/api/chat` may ask.

use super::messages::{Talk, messages, pictures};
use crate::refusal::Refusal;
use crate::residents::KeepAlive;
use crate::wire::fields::Fields;
use crate::wire::keep_alive::keep_alive;
use crate::wire::request::{count, schema, tools, wrong};
use rhetor_lm::{Constraint, Overflow, Tool};
use serde_json::Value;
use std::sync::Arc;

/// A request as it was read; what the model itself brings is not in it yet.
pub(crate) struct Asked {
    /// The model's name, as it was written.
    pub model: String,
    /// What is to be continued.
    pub what: What,
    /// The object `options`, not read yet: the model's own parameters come first.
    pub options: Option<Fields>,
    pub is_stream: bool,
    pub keep_alive: Option<KeepAlive>,
    pub constraint: Option<Constraint>,
    pub think: Option<bool>,
    pub overflow: Overflow,
    /// Alternatives to each token, if log-probabilities are wanted.
    pub logprobs: Option<usize>,
    /// The prompt is shown, and not run.
    pub is_rendered_only: bool,
    /// What was passed over.
    pub warnings: Vec<String>,
}

/// What is to be continued.
pub(crate) enum What {
    Generate(Box<Generate>),
    Chat { talk: Talk, tools: Vec<Tool> },
}

/// What `/api/generate` asks beside the options.
#[derive(Debug, Default)]
pub(crate) struct Generate {
    pub prompt: String,
    pub suffix: Option<String>,
    pub system: Option<String>,
    pub template: Option<String>,
    pub context: Vec<u32>,
    pub is_raw: bool,
    pub pictures: Vec<Arc<[u8]>>,
}

impl What {
    /// Whether there is nothing to continue: the model is only to be loaded or unloaded.
    pub fn is_empty(&self) -> bool {
        match self {
            What::Generate(generate) => generate.prompt.is_empty() && generate.suffix.is_none(),
            What::Chat { talk, .. } => talk.messages.is_empty(),
        }
    }
}

/// Reads the body of `/api/generate`.
pub(crate) fn generate(body: Value, lenient: bool) -> Result<Asked, Refusal> {
    let mut fields = Fields::of(body, "", lenient)?;
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    let generate = Generate {
        prompt: fields.take("prompt")?.unwrap_or_default(),
        suffix: text(fields.take("suffix")?),
        system: text(fields.take("system")?),
        template: text(fields.take("template")?),
        context: fields.take("context")?.unwrap_or_default(),
        is_raw: fields.take("raw")?.unwrap_or(false),
        pictures: pictures(&mut fields, "images")?,
    };
    for name in ["width", "height", "steps"] {
        fields.refuse(name, "no pictures are made here")?;
    }
    shared(fields, What::Generate(Box::new(generate)))
}

/// Reads the body of `/api/chat`.
pub(crate) fn chat(body: Value, lenient: bool) -> Result<Asked, Refusal> {
    let mut fields = Fields::of(body, "", lenient)?;
    let what = What::Chat { talk: messages(&mut fields)?, tools: tools(&mut fields)? };
    shared(fields, what)
}

fn shared(mut fields: Fields, what: What) -> Result<Asked, Refusal> {
    let is_logprobs: bool = fields.take("logprobs")?.unwrap_or(false);
    let top = count(&mut fields, "top_logprobs")?;
    if top.is_some_and(|top| top > 20) {
        return Err(Refusal::field("top_logprobs", "top_logprobs must be between 0 and 20"));
    }
    if !is_logprobs && top.is_some_and(|top| top > 0) {
        return Err(wrong("top_logprobs", "it needs `logprobs`"));
    }
    let model = fields.take("model")?.unwrap_or_default();
    let options = fields.object("options")?;
    let think = think(&mut fields)?;
    let constraint = format(&mut fields)?;
    if fields.take::<bool>("shift")? == Some(true) {
        fields.unsupported("shift", "an answer ends where the context is full; nothing is cut out of it")?;
    }
    let overflow = match fields.take::<bool>("truncate")? {
        Some(false) => Overflow::Error,
        None | Some(true) => Overflow::TruncateOldest,
    };
    let is_stream = fields.take("stream")?.unwrap_or(true);
    let keep_alive = keep_alive(&mut fields)?;
    let is_rendered_only = fields.take("_debug_render_only")?.unwrap_or(false);
    Ok(Asked {
        model,
        what,
        options,
        is_stream,
        keep_alive,
        constraint,
        think,
        overflow,
        logprobs: is_logprobs.then_some(top.unwrap_or(0)),
        is_rendered_only,
        warnings: fields.finish()?,
    })
}

/// `think`: whether the model is to think. Models here know no levels; `medium` is what `true` means.
fn think(fields: &mut Fields) -> Result<Option<bool>, Refusal> {
    match fields.value("think") {
        None => Ok(None),
        Some(Value::Bool(think)) => Ok(Some(think)),
        Some(Value::String(level)) => match level.as_str() {
            "" => Ok(None),
            "medium" => Ok(Some(true)),
            "low" | "high" | "max" => {
                fields.unsupported("think", "models here know no levels of thinking but true and false")?;
                Ok(Some(true))
            }
            _ => Err(invalid_think(&level)),
        },
        Some(other) => Err(invalid_think(&other.to_string())),
    }
}

fn invalid_think(got: &str) -> Refusal {
    let message = format!(
        "invalid think value: {got:?} (must be \"high\", \"medium\", \"low\", \"max\", true, or false)"
    );
    Refusal::field("think", message).code("invalid_value")
}

/// `format`: `"json"` or a JSON Schema.
fn format(fields: &mut Fields) -> Result<Option<Constraint>, Refusal> {
    match fields.value("format") {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text == "json" => Ok(Some(Constraint::Json)),
        Some(value @ Value::Object(_)) => schema(&value, "format").map(Some),
        Some(other) => {
            let message = format!("invalid format: {other}; expected \"json\" or a valid JSON Schema object");
            Err(Refusal::field("format", message).code("invalid_value"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_clients_leave_out_has_ollamas_defaults() {
        let asked = generate(json!({ "model": "m" }), false).unwrap();
        assert!(asked.is_stream && asked.what.is_empty() && asked.overflow == Overflow::TruncateOldest);
        let asked =
            chat(json!({ "model": "m", "messages": [], "format": "", "think": "medium" }), false).unwrap();
        assert!(asked.what.is_empty() && asked.constraint.is_none() && asked.think == Some(true));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (body, name) in [
            (json!({ "format": "yaml" }), "format"),
            (json!({ "top_logprobs": 21, "logprobs": true }), "top_logprobs"),
            (json!({ "top_logprobs": 3 }), "top_logprobs"),
            (json!({ "shift": true }), "shift"),
            (json!({ "think": "high" }), "think"),
            (json!({ "think": "hard" }), "think"),
            (json!({ "width": 512 }), "width"),
            (json!({ "colour": 1 }), "colour"),
            (json!({ "stream": "yes" }), "stream"),
        ] {
            let refusal = generate(body, false).err().unwrap();
            assert_eq!(refusal.param.as_deref(), Some(name));
            assert!(refusal.message.contains(name), "{}", refusal.message);
        }
        let lenient = generate(json!({ "shift": true, "colour": 1 }), true).unwrap();
        assert_eq!(lenient.warnings.len(), 2);
        assert!(generate(json!({ "shift": false }), false).is_ok());
    }
}
