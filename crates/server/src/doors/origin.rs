//! Pages of other origins: what they may do, and what browsers are told about it (CORS).

use crate::app::App;
use crate::refusal::Refusal;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Headers that pages may send: those of the official clients.
const HEADERS: &str = "authorization, content-type, user-agent, accept, x-requested-with, x-request-id, openai-beta, \
    openai-organization, openai-project, x-stainless-arch, x-stainless-async, x-stainless-custom-poll-interval, \
    x-stainless-helper-method, x-stainless-lang, x-stainless-os, x-stainless-package-version, \
    x-stainless-poll-helper, x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, \
    x-stainless-timeout";
/// Headers of replies that pages may read.
const EXPOSED: &str = "x-request-id, openai-processing-ms, retry-after";
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

/// Lets requests without an origin, of the server's own pages and of configured origins pass. Of others, only what
/// changes nothing, and without the headers that would let the page read the reply.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else { return next.run(request).await };
    let is_own = is_same(&origin, request.headers());
    let is_allowed = is_own || is_configured(&origin, &app.config.origins);
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if !is_allowed && (is_preflight || changes(request.method())) {
        let message = format!("pages of {} may not use this server; --origin allows them", shown(&origin));
        return Refusal::new(StatusCode::FORBIDDEN, message).code("forbidden_origin").into_response();
    } else if is_preflight {
        preflight(request.headers())
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if is_allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    response
}

fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether the origin is that of the server's own pages: the same name and port as in `Host`, whose name was checked.
fn is_same(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let (Ok(origin), Some(Ok(host))) = (origin.to_str(), headers.get(header::HOST).map(HeaderValue::to_str))
    else {
        return false;
    };
    match origin.split_once("://") {
        Some(("http" | "https", name)) => name.eq_ignore_ascii_case(host),
        _ => false,
    }
}

fn is_configured(origin: &HeaderValue, origins: &[String]) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    origins.iter().any(|known| known == "*" || known.trim_end_matches('/').eq_ignore_ascii_case(origin))
}

fn shown(origin: &HeaderValue) -> &str {
    origin.to_str().unwrap_or("an unreadable origin")
}

fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if asked.contains_key("access-control-request-private-network") {
        headers.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_the_servers_own_if_name_and_port_are_those_of_host() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost:11434"));
        let is_same = |origin: &'static str| super::is_same(&HeaderValue::from_static(origin), &headers);
        assert!(is_same("http://localhost:11434") && is_same("https://LOCALHOST:11434"));
        for foreign in ["http://localhost", "http://localhost:1143", "null", "file://localhost:11434", ""] {
            assert!(!is_same(foreign), "{foreign}");
        }
    }

    #[test]
    fn an_origin_is_configured_as_a_whole() {
        let known = ["https://example.org/".to_string()];
        let is_configured =
            |origin: &'static str| super::is_configured(&HeaderValue::from_static(origin), &known);
        assert!(is_configured("https://example.org"));
        assert!(!is_configured("https://example.org.evil") && !is_configured("http://example.org"));
        assert!(super::is_configured(&HeaderValue::from_static("null"), &["*".to_string()]));
    }
}
