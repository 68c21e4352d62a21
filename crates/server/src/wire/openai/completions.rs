//! `POST /v1/completions`: the request, and the reply that comes in one piece.

use super::logprobs::Tokens;
use super::options::{Asked, options, streaming};
use super::reply::{self, Envelope};
use crate::refusal::Refusal;
use crate::wire::fields::Fields;
use crate::wire::keep_alive::keep_alive;
use crate::wire::request::{count, wrong};
use rhetor_lm::{Completion, Overflow, Prompt, Request, TokenLogprob, Usage};
use serde_json::{Value, json};

/// The most prompts of a request.
const MAX_PROMPTS: usize = 2048;

/// A request for completions.
#[derive(Debug)]
pub(crate) struct AskedTexts {
    /// What all prompts share; `n` is the number of completions that are made of each.
    pub asked: Asked,
    /// What is to be continued.
    pub prompts: Vec<Prompt>,
    /// How many completions of each prompt are told: the likeliest of those that are made.
    pub n_told: usize,
    /// Whether the prompt is told again before its completion.
    pub echo: bool,
}

/// A prompt as it is told again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Echo {
    /// Its text.
    pub text: String,
    /// Its first token, if that is part of the text; nothing is known of how likely it is.
    pub first: Option<TokenLogprob>,
}

/// Reads a request.
pub(crate) fn read(body: Value, lenient: bool) -> Result<AskedTexts, Refusal> {
    let mut fields = Fields::of(body, "", lenient)?;
    let model = fields.need("model")?;
    let mut request = Request::new(Prompt::Ids(Vec::new()));
    options(&mut fields, &mut request)?;
    request.max_tokens = Some(count(&mut fields, "max_tokens")?.unwrap_or(16));
    let (is_stream, with_usage) = streaming(&mut fields)?;
    let echo = fields.take("echo")?.unwrap_or(false);
    request.logprobs = count(&mut fields, "logprobs")?;
    if let Some(n) = request.logprobs.filter(|n| *n > 20) {
        return Err(wrong("logprobs", format!("{n} is outside 0 to 20")));
    }
    let parse_special = fields.take("parse_special")?.unwrap_or(true);
    let mut prompts = prompts(fields.value("prompt"), parse_special)?;
    if let Some(suffix) = fields.take::<String>("suffix")? {
        if echo {
            return Err(wrong("suffix", "what fills a hole cannot be told with `echo`"));
        }
        prompts = prompts.into_iter().map(|prompt| infill(prompt, &suffix)).collect::<Result<_, _>>()?;
    }
    if echo {
        request.prompt_logprobs = request.logprobs;
        if request.overflow != Overflow::Error {
            return Err(wrong("echo", "a prompt that may be shortened cannot be told again"));
        }
        if is_stream && request.logprobs.is_some() {
            fields.unsupported("echo", "the log-probabilities of a prompt do not come in a stream")?;
            request.prompt_logprobs = None;
        }
    }
    let n_told = request.n;
    if let Some(best_of) = count(&mut fields, "best_of")? {
        if !(n_told..=128).contains(&best_of) {
            return Err(wrong("best_of", format!("{best_of} is outside {n_told} (which is `n`) to 128")));
        }
        if is_stream && best_of > n_told {
            return Err(wrong("best_of", "the best is known at the end only, so there is no stream of it"));
        }
        request.n = best_of;
    }
    let keep_alive = keep_alive(&mut fields)?;
    let warnings = fields.finish()?;
    let shown = Vec::new();
    let asked =
        Asked { model, request, keep_alive, shown, is_effort: false, is_stream, with_usage, warnings };
    Ok(AskedTexts { asked, prompts, n_told, echo })
}

/// A text, texts, tokens, or lists of tokens.
fn prompts(value: Option<Value>, parse_special: bool) -> Result<Vec<Prompt>, Refusal> {
    let text = |text: String| Prompt::Text { text, parse_special };
    let expected =
        || wrong("prompt", "expected a text, a list of texts, a list of tokens, or a list of those");
    let prompts: Vec<Prompt> = match value {
        // The beginning of a document.
        None => vec![text(String::new())],
        Some(Value::String(one)) => vec![text(one)],
        Some(Value::Array(items)) if items.first().is_some_and(Value::is_number) => {
            vec![Prompt::Ids(serde_json::from_value(items.into()).map_err(|_| expected())?)]
        }
        Some(Value::Array(items)) => items
            .into_iter()
            .map(|item| match item {
                Value::String(one) => Ok(text(one)),
                other => serde_json::from_value(other).map(Prompt::Ids).map_err(|_| expected()),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(expected()),
    };
    match prompts.len() {
        0 => Err(wrong("prompt", "the list is empty")),
        n if n > MAX_PROMPTS => Err(wrong("prompt", format!("{n} prompts are more than {MAX_PROMPTS}"))),
        _ => Ok(prompts),
    }
}

fn infill(prompt: Prompt, suffix: &str) -> Result<Prompt, Refusal> {
    match prompt {
        Prompt::Text { text, .. } => Ok(Prompt::Infill { prefix: text, suffix: suffix.to_string() }),
        _ => Err(wrong("suffix", "what stands before the hole must be a text, not tokens")),
    }
}

/// The reply in one piece. `completions`: `n` of the request for each prompt; `echoes`: one for each prompt that is told
/// again.
pub(crate) fn write(
    envelope: &Envelope,
    texts: &AskedTexts,
    echoes: &[Echo],
    completions: &[Completion],
) -> Value {
    let AskedTexts { asked, n_told, .. } = texts;
    let (mut choices, mut usage) = (Vec::new(), Usage::default());
    for (i, of_prompt) in completions.chunks(asked.request.n).enumerate() {
        reply::add(&mut usage, reply::total(of_prompt));
        for completion in best(of_prompt, *n_told) {
            choices.push(choice(choices.len(), completion, echoes.get(i)));
        }
    }
    let mut written = envelope.with(choices);
    written.insert("usage".to_string(), reply::usage(&usage));
    reply::ours(&mut written, &asked.request, completions, &asked.warnings);
    written.into()
}

/// The `n` completions whose tokens are the likeliest on average, the best first; all in their order if it is `n`.
fn best(completions: &[Completion], n: usize) -> Vec<&Completion> {
    let mut best: Vec<&Completion> = completions.iter().collect();
    if n < best.len() {
        let mean = |completion: &Completion| {
            completion.logprob_sum / completion.usage.completion_tokens.max(1) as f64
        };
        best.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
        best.truncate(n);
    }
    best
}

fn choice(index: usize, completion: &Completion, echo: Option<&Echo>) -> Value {
    let mut text = echo.map_or(String::new(), |echo| echo.text.clone());
    text.push_str(&completion.text);
    let logprobs = completion.logprobs.as_ref().map(|spoken| {
        let of_prompt = completion.prompt_logprobs.iter().flatten();
        let first = echo.iter().filter_map(|echo| echo.first.as_ref());
        let tokens: Vec<TokenLogprob> = first.chain(of_prompt).chain(spoken).cloned().collect();
        Tokens::default().write(&tokens)
    });
    json!({
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": reply::finish_reason(completion),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(more: Value) -> Value {
        let mut body = json!({ "model": "m", "prompt": "a" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    #[test]
    fn prompts_are_texts_or_tokens_one_or_many() {
        let of = |prompt: Value| read(json!({ "model": "m", "prompt": prompt }), false);
        let text = |text: &str| Prompt::Text { text: text.to_string(), parse_special: true };
        assert_eq!(of(json!("a")).unwrap().prompts, [text("a")]);
        assert_eq!(of(json!(["a", "b"])).unwrap().prompts, [text("a"), text("b")]);
        assert_eq!(of(json!([1, 2])).unwrap().prompts, [Prompt::Ids(vec![1, 2])]);
        assert_eq!(of(json!([[1], [2]])).unwrap().prompts, [Prompt::Ids(vec![1]), Prompt::Ids(vec![2])]);
        for wrong in [json!([]), json!(7), json!([1, "a"]), json!([-1]), json!({})] {
            assert_eq!(of(wrong).unwrap_err().param.as_deref(), Some("prompt"));
        }
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        let refused = |more| read(body(more), false).unwrap_err().param.unwrap();
        assert_eq!(refused(json!({ "suffix": "b", "echo": true })), "suffix");
        assert_eq!(refused(json!({ "suffix": "b", "prompt": [1] })), "suffix");
        assert_eq!(refused(json!({ "best_of": 1, "n": 2 })), "best_of");
        assert_eq!(refused(json!({ "best_of": 3, "stream": true })), "best_of");
        assert_eq!(refused(json!({ "logprobs": 21 })), "logprobs");
        assert_eq!(refused(json!({ "echo": true, "overflow": "truncate" })), "echo");
        assert_eq!(read(body(json!({})), false).unwrap().asked.request.max_tokens, Some(16));
        let hole = read(body(json!({ "suffix": "b" })), false).unwrap().prompts;
        assert_eq!(hole, [Prompt::Infill { prefix: "a".to_string(), suffix: "b".to_string() }]);
    }

    #[test]
    fn the_best_are_the_likeliest_per_token() {
        let completion = |logprob_sum, completion_tokens| Completion {
            text: format!("{logprob_sum}"),
            logprob_sum,
            usage: Usage { prompt_tokens: 2, completion_tokens, ..Usage::default() },
            ..Completion::default()
        };
        let texts = read(body(json!({ "best_of": 3, "n": 2 })), false).unwrap();
        let envelope = Envelope::new("cmpl-", "text_completion", "m");
        let completions = [completion(-4.0, 1), completion(-6.0, 4), completion(-6.0, 3)];
        let reply = write(&envelope, &texts, &[], &completions);
        let told: Vec<&Value> =
            reply["choices"].as_array().unwrap().iter().map(|choice| &choice["text"]).collect();
        assert_eq!(told, ["-6", "-6"]);
        assert_eq!(reply["usage"]["total_tokens"], 10);
    }

    #[test]
    fn an_echo_has_log_probabilities_of_prompt_and_answer() {
        let token = |text: &str, logprob| TokenLogprob {
            text: text.to_string(),
            bytes: text.as_bytes().to_vec(),
            id: 0,
            logprob,
            top: Vec::new(),
        };
        let texts = read(body(json!({ "echo": true, "logprobs": 0, "max_tokens": 1 })), false).unwrap();
        assert_eq!(texts.asked.request.prompt_logprobs, Some(0));
        let echo = Echo { text: "a b".to_string(), first: Some(token("a", f32::NAN)) };
        let completion = Completion {
            text: " c".to_string(),
            prompt_logprobs: Some(vec![token(" b", -1.0)]),
            logprobs: Some(vec![token(" c", -2.0)]),
            ..Completion::default()
        };
        let envelope = Envelope::new("cmpl-", "text_completion", "m");
        let choice = &write(&envelope, &texts, &[echo], &[completion])["choices"][0];
        assert_eq!(choice["text"], "a b c");
        assert_eq!(choice["logprobs"]["token_logprobs"], json!([null, -1.0, -2.0]));
        assert_eq!(choice["logprobs"]["text_offset"], json!([0, 1, 3]));
    }
}
