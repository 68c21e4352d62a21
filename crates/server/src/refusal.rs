//! A request that is not answered as asked: status, reason, and the words of each dialect for it.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Why a request is not answered as asked.
///
/// Routes return it as it is; [`dialect`](Refusal::body) writes it as the caller's API has it. Nothing that the caller got wrong
/// is a 500: clients would send it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the reply.
    pub status: StatusCode,
    /// What happened, in words: what, where, expected, got.
    pub message: String,
    /// OpenAI's `type`.
    pub kind: &'static str,
    /// OpenAI's `code`.
    pub code: Option<&'static str>,
    /// The field that is wrong, as a path: `messages[2].content`.
    pub param: Option<String>,
    /// Seconds after which another try makes sense.
    pub retry_after: Option<u64>,
}

/// Which API a path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `/v1/...` and all that is our own: `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
    /// `/api/...`: `{"error": "text"}`.
    Ollama,
}

impl Dialect {
    /// The dialect of a path.
    pub fn of(path: &str) -> Dialect {
        if path.starts_with("/api/") { Dialect::Ollama } else { Dialect::OpenAi }
    }
}

impl Refusal {
    /// A refusal with a status and OpenAI's type for it.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Refusal {
        let kind = match status.as_u16() {
            429 | 503 => "rate_limit_exceeded",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        Refusal { status, message: message.into(), kind, code: None, param: None, retry_after: None }
    }

    /// 400: the request is wrong.
    pub fn wrong(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400: the field at `path` is wrong.
    pub fn field(path: impl Into<String>, message: impl Into<String>) -> Refusal {
        Refusal { param: Some(path.into()), ..Refusal::wrong(message) }
    }

    /// 404: there is no such model.
    pub fn no_model(name: &str) -> Refusal {
        Refusal {
            code: Some("model_not_found"),
            param: Some("model".to_string()),
            ..Refusal::new(StatusCode::NOT_FOUND, format!("model '{name}' not found"))
        }
    }

    /// 500: the model failed in the midst of this request.
    pub fn panicked() -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the model failed at this request")
    }

    /// Adds OpenAI's code.
    pub fn code(self, code: &'static str) -> Refusal {
        Refusal { code: Some(code), ..self }
    }

    /// The body of the reply, also the last object of a stream that broke.
    pub fn body(&self, dialect: Dialect) -> Value {
        match dialect {
            Dialect::Ollama => json!({ "error": self.message }),
            Dialect::OpenAi => json!({ "error": {
                "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
            } }),
        }
    }

    /// The reply.
    pub fn reply(&self, dialect: Dialect) -> Response {
        let mut response = (self.status, Body::from(self.body(dialect).to_string())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The reply waits for its dialect, which the outermost layer knows.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<rhetor_lm::Error> for Refusal {
    fn from(error: rhetor_lm::Error) -> Refusal {
        use rhetor_lm::Error as E;
        let message = error.to_string();
        match error {
            E::ContextOverflow { .. } => Refusal::wrong(message).code("context_length_exceeded"),
            E::InvalidOption { option, .. } => {
                Refusal::field(option.replace('-', "_"), message).code("invalid_value")
            }
            E::Busy { .. } => {
                Refusal { retry_after: Some(1), ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, message) }
            }
            E::Template { .. } | E::Constraint { .. } | E::EmptyPrompt | E::Unsupported { .. } => {
                Refusal::wrong(message)
            }
        }
    }
}
