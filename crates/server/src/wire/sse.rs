//! Server-sent events, as OpenAI's clients read them.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::Value;

/// Appends an event without a name.
pub(crate) fn data(out: &mut Vec<u8>, value: &Value) {
    out.extend_from_slice(format!("data: {value}\n\n").as_bytes());
}

/// Appends an event with a name.
pub(crate) fn event(out: &mut Vec<u8>, name: &str, value: &Value) {
    out.extend_from_slice(format!("event: {name}\ndata: {value}\n\n").as_bytes());
}

/// Appends the end, where the API has one.
pub(crate) fn done(out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: [DONE]\n\n");
}

/// A reply of events.
pub(crate) fn reply(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that collect a reply before they pass it on are asked not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_line_of_data_and_an_empty_one() {
        let mut out = Vec::new();
        data(&mut out, &json!({ "text": "a\nb" }));
        event(&mut out, "response.created", &json!(1));
        done(&mut out);
        let expected = "data: {\"text\":\"a\\nb\"}\n\nevent: response.created\ndata: 1\n\ndata: [DONE]\n\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
