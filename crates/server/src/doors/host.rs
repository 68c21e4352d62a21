//! DNS rebinding: a page of `evil.example` whose name suddenly stands for 127.0.0.1 would be of the same origin as this
//! server. Its `Host` gives it away.

use crate::app::App;
use crate::refusal::Refusal;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// Refuses requests under foreign names while the server listens on loopback. On other addresses the key decides, and
/// the names too if any are set.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let named = match called(request.uri(), request.headers()) {
        Ok(named) => named,
        Err(refusal) => return refusal.into_response(),
    };
    let is_guarded = app.config.listen.ip().is_loopback() || !app.config.hosts.is_empty();
    match named {
        Some(name) if is_guarded && !is_ours(&name, &app.config.hosts) => {
            let message = format!("this server is not called `{name}`; --host adds a name");
            Refusal::new(StatusCode::FORBIDDEN, message).code("forbidden_host").into_response()
        }
        _ => next.run(request).await,
    }
}

/// The name by which a request calls the server; none in HTTP/1.0.
fn called(uri: &Uri, headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, other) = (hosts.next(), hosts.next());
    if other.is_some() {
        return Err(Refusal::wrong("two `Host` headers"));
    }
    let host = match host {
        Some(host) => Some(host.to_str().map_err(|_| Refusal::wrong("a `Host` that is no text"))?),
        None => None,
    };
    match (uri.authority().map(|authority| authority.as_str()), host) {
        // The target stands above the header, and they should be the same.
        (Some(target), Some(host)) if !target.eq_ignore_ascii_case(host) => {
            Err(Refusal::wrong("`Host` and the target of the request differ"))
        }
        (Some(name), _) | (None, Some(name)) => {
            Ok(Some(name.to_ascii_lowercase()).filter(|name| !name.is_empty()))
        }
        (None, None) => Ok(None),
    }
}

/// Whether `called`, in lower case, with or without a port, is loopback's name or one of `names`.
fn is_ours(called: &str, names: &[String]) -> bool {
    let host = without_port(called);
    let is_loopback = |text: &str| text.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    host == "localhost"
        || host.ends_with(".localhost")
        || is_loopback(host.trim_start_matches('[').trim_end_matches(']'))
        || names.iter().any(|name| name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(called))
}

/// `host` of `host:port`, `[::1]` of `[::1]:port`.
fn without_port(text: &str) -> &str {
    match text.rfind(':') {
        Some(at) if !text[at..].contains(']') && text[at + 1..].bytes().all(|byte| byte.is_ascii_digit()) => {
            &text[..at]
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_the_names_that_are_set_are_ours() {
        let names = ["models.example.org".to_string()];
        for called in [
            "localhost",
            "localhost:11434",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.9.9.9",
            "[::1]:11434",
            "[::1]",
            "app.localhost:1",
            "models.example.org",
            "models.example.org:443",
        ] {
            assert!(is_ours(called, &names), "{called}");
        }
        for called in [
            "evil.example",
            "evil.example:11434",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0x7f.1",
            "[::ffff:10.0.0.1]",
            "evil.example:localhost",
            "models.example.org.evil",
            "127.0.0.1:80:evil",
        ] {
            assert!(!is_ours(called, &names), "{called}");
        }
    }

    #[test]
    fn two_names_are_one_too_many() {
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, "localhost".parse().unwrap());
        assert_eq!(called(&"/".parse().unwrap(), &headers).unwrap().as_deref(), Some("localhost"));
        assert!(called(&"http://evil.example/".parse().unwrap(), &headers).is_err());
        headers.append(header::HOST, "evil.example".parse().unwrap());
        assert!(called(&"/".parse().unwrap(), &headers).is_err());
    }
}
