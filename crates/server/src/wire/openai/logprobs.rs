//! Log-probabilities, in chat's form and in that of completions.
//!
//! They are those of the model's own distribution, before temperature and the other samplers.

use rhetor_lm::TokenLogprob;
use serde_json::{Map, Value, json};

/// JSON has no infinity.
fn finite(logprob: f32) -> f64 {
    f64::from(logprob).max(-9999.0)
}

/// `{"content": [...], "refusal": null}`
pub(crate) fn of_chat(tokens: &[TokenLogprob]) -> Value {
    json!({ "content": items(tokens), "refusal": null })
}

/// One item for each token: `{"token", "logprob", "bytes", "top_logprobs"}`.
pub(crate) fn items(tokens: &[TokenLogprob]) -> Vec<Value> {
    let item = |token: &TokenLogprob| {
        let top = token.top.iter().map(|(text, _, logprob)| {
            json!({ "token": text, "logprob": finite(*logprob), "bytes": text.as_bytes() })
        });
        json!({
            "token": token.text,
            "logprob": finite(token.logprob),
            "bytes": token.bytes,
            "top_logprobs": top.collect::<Vec<_>>(),
        })
    };
    tokens.iter().map(item).collect()
}

/// Tokens as completions report them, while their text grows.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tokens {
    /// Bytes that are no whole character yet.
    rest: Vec<u8>,
    /// Characters so far.
    n_chars: usize,
}

impl Tokens {
    /// `{"tokens", "token_logprobs", "top_logprobs", "text_offset"}`, as many of each. The first of `tokens` may have no
    /// log-probability: then it is NaN.
    pub fn write(&mut self, tokens: &[TokenLogprob]) -> Value {
        let (mut texts, mut logprobs, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
        for token in tokens {
            texts.push(Value::from(spelled(token)));
            offsets.push(self.n_chars);
            self.push(&token.bytes);
            if token.logprob.is_nan() {
                logprobs.push(Value::Null);
                tops.push(Value::Null);
                continue;
            }
            logprobs.push(finite(token.logprob).into());
            let mut top: Map<String, Value> = Map::new();
            for (text, _, logprob) in &token.top {
                top.entry(text.clone()).or_insert(finite(*logprob).into());
            }
            if !token.top.is_empty() {
                top.entry(spelled(token)).or_insert(finite(token.logprob).into());
            }
            tops.push(top.into());
        }
        json!({ "tokens": texts, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets })
    }

    fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        loop {
            match std::str::from_utf8(&self.rest) {
                Ok(text) => {
                    self.n_chars += text.chars().count();
                    self.rest.clear();
                    return;
                }
                Err(error) => {
                    let (valid, broken) = (error.valid_up_to(), error.error_len());
                    let text = String::from_utf8_lossy(&self.rest[..valid]);
                    self.n_chars += text.chars().count() + usize::from(broken.is_some());
                    self.rest.drain(..valid + broken.unwrap_or(0));
                    if broken.is_none() {
                        return;
                    }
                }
            }
        }
    }
}

/// The token's text, or `bytes:\xe2\x80` if it is no text by itself.
fn spelled(token: &TokenLogprob) -> String {
    match std::str::from_utf8(&token.bytes) {
        Ok(_) => token.text.clone(),
        Err(_) => {
            token.bytes.iter().fold("bytes:".to_string(), |text, byte| text + &format!("\\x{byte:02x}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(bytes: &[u8], logprob: f32) -> TokenLogprob {
        let text = String::from_utf8_lossy(bytes).into_owned();
        TokenLogprob { text, bytes: bytes.to_vec(), id: 0, logprob, top: vec![("x".to_string(), 1, -0.5)] }
    }

    #[test]
    fn offsets_count_characters_and_halves_of_them_are_spelled_in_bytes() {
        let euro = "€".as_bytes();
        let tokens =
            [token(b"ab", f32::NAN), token(&euro[..2], -1.0), token(&euro[2..], -2.0), token(b"c", -3.0)];
        let written = Tokens::default().write(&tokens);
        assert_eq!(written["text_offset"], json!([0, 2, 2, 3]));
        assert_eq!(written["tokens"], json!(["ab", "bytes:\\xe2\\x82", "bytes:\\xac", "c"]));
        assert_eq!(written["token_logprobs"], json!([null, -1.0, -2.0, -3.0]));
        assert_eq!(written["top_logprobs"][0], json!(null));
        assert_eq!(written["top_logprobs"][3], json!({ "x": -0.5, "c": -3.0 }));
    }

    #[test]
    fn an_impossible_token_has_a_number_that_json_can_write() {
        let written = of_chat(&[token(b"a", f32::NEG_INFINITY)]);
        assert_eq!(written["content"][0]["logprob"], json!(-9999.0));
        assert_eq!(written["content"][0]["bytes"], json!([97]));
    }
}
