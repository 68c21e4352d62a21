//! `POST /v1/embeddings`: the request and the reply.

use super::options::{LABELS, overflow};
use crate::refusal::Refusal;
use crate::residents::KeepAlive;
use crate::wire::fields::Fields;
use crate::wire::keep_alive::keep_alive;
use crate::wire::request::{count, wrong};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rhetor_lm::Overflow;
use serde_json::{Value, json};

/// The most inputs of a request.
const MAX_INPUTS: usize = 2048;

/// A request for embeddings.
#[derive(Debug)]
pub(crate) struct AskedVectors {
    /// The model's name.
    pub model: String,
    /// What is to be embedded.
    pub inputs: Vec<Input>,
    /// Vectors come as base64 of their 32-bit numbers, least significant byte first.
    pub is_base64: bool,
    /// The first so many numbers of each vector, made a unit vector again; `None` = all, as they are.
    pub dimensions: Option<usize>,
    /// What happens to a text that is too long.
    pub overflow: Overflow,
    /// The name of the prompt that the model's files give, to be put before each text.
    pub prompt_name: Option<String>,
    /// How long the model stays afterwards.
    pub keep_alive: Option<KeepAlive>,
    /// What was passed over.
    pub warnings: Vec<String>,
}

/// Something to be embedded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// A text.
    Text(String),
    /// Tokens of the model's vocabulary.
    Ids(Vec<u32>),
}

/// Reads a request.
pub(crate) fn read(body: Value, lenient: bool) -> Result<AskedVectors, Refusal> {
    let mut fields = Fields::of(body, "", lenient)?;
    let model = fields.need("model")?;
    let inputs = inputs(fields.value("input"))?;
    let is_base64 = match fields.take::<String>("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            return Err(wrong("encoding_format", format!("{other:?} is neither float nor base64")));
        }
    };
    let dimensions = count(&mut fields, "dimensions")?;
    if dimensions == Some(0) {
        return Err(wrong("dimensions", "a vector has at least one number"));
    }
    let overflow = overflow(&mut fields)?;
    let prompt_name = fields.take("prompt_name")?;
    let keep_alive = keep_alive(&mut fields)?;
    fields.labels(LABELS);
    let warnings = fields.finish()?;
    Ok(AskedVectors { model, inputs, is_base64, dimensions, overflow, prompt_name, keep_alive, warnings })
}

/// A text, texts, tokens, or lists of tokens; none of them empty.
fn inputs(value: Option<Value>) -> Result<Vec<Input>, Refusal> {
    let expected =
        || wrong("input", "expected a text, a list of texts, a list of tokens, or a list of those");
    let inputs: Vec<Input> = match value {
        None => return Err(Refusal::field("input", "input is required")),
        Some(Value::String(text)) => vec![Input::Text(text)],
        Some(Value::Array(items)) if items.first().is_some_and(Value::is_number) => {
            vec![Input::Ids(serde_json::from_value(items.into()).map_err(|_| expected())?)]
        }
        Some(Value::Array(items)) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(Input::Text(text)),
                other => serde_json::from_value(other).map(Input::Ids).map_err(|_| expected()),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(expected()),
    };
    if inputs.is_empty() || inputs.len() > MAX_INPUTS {
        return Err(wrong("input", format!("{} inputs are outside 1 to {MAX_INPUTS}", inputs.len())));
    }
    let is_empty = |input: &Input| match input {
        Input::Text(text) => text.is_empty(),
        Input::Ids(ids) => ids.is_empty(),
    };
    match inputs.iter().position(is_empty) {
        Some(i) => Err(wrong("input", format!("input {i} is empty"))),
        None => Ok(inputs),
    }
}

/// The first `n` numbers of a vector, made a unit vector again.
pub(crate) fn shortened(mut vector: Vec<f32>, n: usize) -> Vec<f32> {
    vector.truncate(n);
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    vector
}

/// The reply.
pub(crate) fn write(asked: &AskedVectors, vectors: &[Vec<f32>], n_tokens: usize, n_cut: usize) -> Value {
    let written = |vector: &Vec<f32>| match asked.is_base64 {
        true => STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).into(),
        false => Value::from(vector.clone()),
    };
    let data = vectors.iter().enumerate().map(
        |(index, vector)| json!({ "object": "embedding", "index": index, "embedding": written(vector) }),
    );
    let mut reply = json!({
        "object": "list",
        "data": data.collect::<Vec<_>>(),
        "model": asked.model,
        "usage": { "prompt_tokens": n_tokens, "total_tokens": n_tokens, "truncated_tokens": n_cut },
    });
    let mut warnings = asked.warnings.clone();
    if n_cut > 0 {
        warnings.push(format!("{n_cut} tokens at the ends of inputs had no room and were left out"));
    }
    if !warnings.is_empty() {
        reply["warnings"] = warnings.into();
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_texts_or_tokens_none_of_them_empty() {
        let of =
            |input: Value| read(json!({ "model": "m", "input": input }), false).map(|asked| asked.inputs);
        assert_eq!(of(json!("a")).unwrap(), [Input::Text("a".to_string())]);
        assert_eq!(of(json!([[1, 2], [3]])).unwrap(), [Input::Ids(vec![1, 2]), Input::Ids(vec![3])]);
        for wrong in [json!(""), json!([]), json!(["a", ""]), json!(3), json!([1.5]), json!(null)] {
            assert_eq!(of(wrong).unwrap_err().param.as_deref(), Some("input"));
        }
    }

    #[test]
    fn base64_is_of_little_endian_floats_and_a_cut_vector_has_length_one() {
        let asked = read(json!({ "model": "m", "input": "a", "encoding_format": "base64" }), false).unwrap();
        let reply = write(&asked, &[vec![1.0, -2.0]], 3, 0);
        assert_eq!(reply["data"][0]["embedding"], "AACAPwAAAMA=");
        assert_eq!(reply["usage"]["total_tokens"], 3);
        let cut = shortened(vec![3.0, 4.0, 12.0], 2);
        assert!((cut[0] - 0.6).abs() < 1e-6 && (cut[1] - 0.8).abs() < 1e-6 && cut.len() == 2);
    }
}
