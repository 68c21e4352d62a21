//! Who may enter, and from where.

use crate::server::{TestServer, config};
use rhetor_server::{App, Config, Error, Server};
use rhetor_store::{PullOptions, Store};
use std::net::SocketAddr;

#[test]
fn a_name_that_was_bent_to_loopback_is_refused() {
    let server = TestServer::start(config());
    for host in
        ["evil.example", "evil.example:11434", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example"]
    {
        let reply = server.ask("GET /v1/models", &[&format!("host: {host}")], b"");
        assert_eq!(
            (reply.status, reply.json()["error"]["code"].as_str()),
            (403, Some("forbidden_host")),
            "{host}"
        );
    }
    for host in ["localhost", "127.0.0.1:1", "[::1]", "app.localhost:3000"] {
        assert_eq!(server.ask("GET /v1/models", &[&format!("host: {host}")], b"").status, 200, "{host}");
    }
    assert_eq!(server.ask("GET http://evil.example/v1/models", &["host: localhost"], b"").status, 400);
    assert_eq!(server.ask("GET /v1/models", &["host: localhost", "host: evil.example"], b"").status, 400);
    let hosts = vec!["models.example.org".to_string()];
    let server = TestServer::start(Config { hosts, ..config() });
    assert_eq!(server.ask("GET /v1/models", &["host: models.example.org"], b"").status, 200);
}

#[test]
fn pages_of_other_origins_change_nothing_and_read_nothing() {
    let server = TestServer::start(config());
    let body = br#"{"model":"builtin","messages":[]}"#;
    for origin in ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1"] {
        let header = format!("origin: {origin}");
        let reply = server.ask("POST /v1/chat/completions", &[&header], body);
        assert_eq!(
            (reply.status, reply.json()["error"]["code"].as_str()),
            (403, Some("forbidden_origin")),
            "{origin}"
        );
        assert_eq!(server.ask("DELETE /v1/models/builtin", &[&header], b"").status, 403);
        let reply = server.ask("GET /v1/models", &[&header], b"");
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, None), "{origin}");
        let asked = [header.as_str(), "access-control-request-method: POST"];
        let reply = server.ask("OPTIONS /v1/chat/completions", &asked, b"");
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (403, None), "{origin}");
    }
}

#[test]
fn pages_of_the_same_and_of_configured_origins_may_call() {
    let origins = vec!["https://chat.example.org".to_string()];
    let server = TestServer::start(Config { origins, ..config() });
    for origin in ["https://chat.example.org".to_string(), format!("http://{}", server.address)] {
        let header = format!("origin: {origin}");
        let asked = [header.as_str(), "access-control-request-method: POST"];
        let reply = server.ask("OPTIONS /v1/chat/completions", &asked, b"");
        assert_eq!(reply.status, 204);
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin.as_str()));
        let headers = reply.header("access-control-allow-headers").unwrap();
        for name in ["authorization", "content-type", "x-stainless-retry-count", "openai-beta"] {
            assert!(headers.contains(name), "{name}");
        }
        let reply = server.ask("GET /v1/models", &[&header], b"");
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin.as_str()));
        assert_eq!(reply.header("vary"), Some("origin"));
    }
}

#[test]
fn without_the_right_key_nothing_is_told() {
    let server = TestServer::start(Config { api_keys: vec!["right".into()], ..config() });
    for header in [
        "x-none: 1",
        "authorization: Bearer wrong",
        "authorization: Bearer ",
        "authorization: right",
        "authorization: Basic right",
        "authorization: Bearer righ",
        "authorization: Bearer rightt",
    ] {
        for line in ["GET /v1/models", "GET /metrics", "GET /openapi.json", "POST /v1/chat/completions"] {
            let reply = server.ask(line, &[header], b"");
            assert_eq!(reply.status, 401, "{line} {header}");
            assert_eq!(reply.header("www-authenticate"), Some("bearer"));
            let error = &reply.json()["error"];
            assert_eq!(
                (error["type"].as_str(), error["code"].as_str()),
                (Some("invalid_request_error"), Some("invalid_api_key"))
            );
            assert!(!reply.body.contains("right"), "the key is not told");
        }
        assert!(server.ask("GET /api/tags", &[header], b"").json()["error"].is_string(), "as Ollama has it");
    }
    assert_eq!(server.ask("GET /v1/models", &["authorization: Bearer right"], b"").status, 200);
    assert_eq!(server.ask("GET /v1/models", &["authorization: bearer right"], b"").status, 200);
    assert_eq!(server.ask("GET /health", &[], b"").status, 200);
}

#[tokio::test]
async fn other_machines_are_served_with_a_key_only() {
    let listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let app = |config| {
        let home = tempfile::tempdir().unwrap();
        App::new(config, Store::open(home.path()), PullOptions::default())
    };
    let open = Config { listen, ..Config::default() };
    assert!(matches!(Server::listen(app(open.clone())).await, Err(Error::Open { .. })));
    assert!(Server::listen(app(Config { api_keys: vec!["k".into()], ..open.clone() })).await.is_ok());
    assert!(Server::listen(app(Config { insecure: true, ..open.clone() })).await.is_ok());
    let broken = Config { api_keys: vec!["".into()], ..open };
    assert!(matches!(Server::listen(app(broken)).await, Err(Error::Key { .. })), "an empty key is no key");
}

#[test]
fn every_reply_keeps_browsers_careful_and_has_an_id() {
    let server = TestServer::start(config());
    for line in ["GET /health", "GET /nothing", "POST /v1/chat/completions", "DELETE /health"] {
        let reply = server.ask(line, &["x-request-id: mine-1"], b"");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{line}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
        assert!(reply.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
        assert_eq!(reply.header("x-request-id"), Some("mine-1"));
        assert!(reply.header("openai-processing-ms").unwrap().parse::<u64>().is_ok());
    }
    let reply = server.ask("GET /health", &["x-request-id: a b<script>"], b"");
    assert!(reply.header("x-request-id").unwrap().starts_with("req_"));
}
