//! How much at once.

use crate::server::{Reply, TestServer, alone, config, resident_bytes};
use rhetor_server::Config;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const GIB: usize = 1 << 30;

#[test]
fn a_body_of_a_gibibyte_is_refused_when_it_is_announced() {
    let server = TestServer::start(config());
    let head = format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {GIB}\r\n\r\n");
    let reply = server.send(head.as_bytes());
    assert_eq!((reply.status, reply.json()["error"]["code"].as_str()), (413, Some("body_too_large")));
    assert_eq!(reply.header("connection"), Some("close"));
}

#[test]
fn a_body_of_a_gibibyte_that_is_not_announced_is_cut_off_and_costs_no_memory() {
    let _alone = alone();
    let server = TestServer::start(Config { body_bytes: 8 << 20, ..config() });
    assert_eq!(server.ask("GET /health", &[], b"").status, 200);
    let before = resident_bytes();
    let mut stream = server.connect();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    let mut n_sent = 0;
    while n_sent < GIB {
        let sent = write!(stream, "{:x}\r\n", zeros.len()).and_then(|()| stream.write_all(&zeros));
        if sent.and_then(|()| stream.write_all(b"\r\n")).is_err() {
            break;
        }
        n_sent += zeros.len();
    }
    assert!(n_sent < GIB, "the server went on reading to the end");
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes more");
    assert_eq!(server.ask("GET /health", &[], b"").status, 200);
}

#[test]
fn bodies_that_come_together_are_bounded_together() {
    let _alone = alone();
    // Room for 64 MiB in all: with 40 callers who hold 4 MiB each and never finish, some are sent away.
    let idle_time = Duration::from_secs(20);
    let server = TestServer::start(Config { body_bytes: 8 << 20, idle_time, ..config() });
    let before = resident_bytes();
    let piece = vec![b' '; 4 << 20];
    let mut streams: Vec<TcpStream> = Vec::new();
    let mut n_refused = 0;
    for _ in 0..40 {
        let mut stream = server.connect();
        let head = "POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8000000\r\n\r\n";
        // Sent away in the middle of it, a caller cannot write on.
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&piece));
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut answer = [0; 16];
        let is_refused = sent.is_err() || stream.read(&mut answer).is_ok();
        n_refused += usize::from(is_refused);
        streams.push(stream);
    }
    assert!(n_refused >= 16, "{n_refused} of 40 were refused");
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 200 << 20, "{grown} bytes more");
}

#[test]
fn a_head_that_never_ends_is_not_waited_for() {
    let server = TestServer::start(Config { idle_time: Duration::from_millis(300), ..config() });
    let mut stream = server.connect();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: local").unwrap();
    let reply = Reply::read(&mut stream);
    assert!(matches!(reply.status, 0 | 408), "{reply:?}");
    // Nor is one that never begins, nor the next one of a connection that was used.
    assert_eq!(Reply::read(&mut server.connect()).status, 0);
    let mut stream = server.connect();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert_eq!(Reply::read(&mut stream).status, 200);
}

#[test]
fn a_body_that_stops_is_not_waited_for() {
    let server = TestServer::start(Config { idle_time: Duration::from_millis(300), ..config() });
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{\"model\"";
    let reply = server.send(head.as_bytes());
    assert_eq!(reply.status, 408, "{reply:?}");
}

#[test]
fn deep_and_malformed_bodies_are_wrong_requests() {
    let server = TestServer::start(config());
    let deep = "[".repeat(100_000);
    let nested = format!("{{\"model\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    let bodies: [&[u8]; 7] = [
        deep.as_bytes(),
        nested.as_bytes(),
        b"{\"model\":\"\xff\xfe\"}",
        b"\xff",
        b"{",
        b"nil",
        b"{\"a\":1}{\"b\":2}",
    ];
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize", "/api/chat"] {
        for body in bodies {
            let reply = server.ask(&format!("POST {path}"), &[], body);
            // Routes that are not there do not read it.
            assert!(matches!(reply.status, 400 | 404), "{path}: {reply:?}");
        }
        assert!(matches!(server.ask(&format!("POST {path}"), &[], b"").status, 400 | 404));
    }
}

#[test]
fn schemas_that_explode_are_refused_or_answered_and_never_kill() {
    let _alone = alone();
    let server = TestServer::start(Config { request_time: Duration::from_secs(5), ..config() });
    let before = resident_bytes();
    let mut nested = json!({ "type": "string" });
    for _ in 0..60 {
        nested = json!({ "anyOf": [nested.clone()], "type": "object", "properties": { "a": nested } });
        if nested.to_string().len() > 200_000 {
            break;
        }
    }
    let wide: serde_json::Map<_, _> =
        (0..3000).map(|i| (format!("k{i}"), json!({ "type": "string" }))).collect();
    let schemas = [
        nested,
        json!({ "type": "object", "properties": wide }),
        json!({ "$ref": "#" }),
        json!({ "$ref": "http://127.0.0.1:1/schema.json" }),
        json!({ "$ref": "file:///etc/passwd" }),
        json!({ "type": "array", "minItems": 1_000_000_000, "items": { "type": "string" } }),
        json!({ "type": "string", "pattern": "(a+)+$" }),
        json!({ "type": "string", "pattern": "(a{1000}){1000}{1000}" }),
        json!({ "type": "string", "minLength": 4_000_000_000u64 }),
    ];
    for schema in schemas {
        let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
        let body = json!({
            "model": "builtin", "prompt": "x", "max_tokens": 4, "guided_json": schema,
        });
        let chat = json!({
            "model": "builtin", "messages": [{ "role": "user", "content": "x" }], "max_tokens": 4,
            "response_format": format,
        });
        for (path, body) in [("/v1/completions", body), ("/v1/chat/completions", chat)] {
            let reply = server.post(path, &body.to_string());
            let shown = body.to_string();
            assert!(
                matches!(reply.status, 200 | 400),
                "{path} {}: {reply:?}",
                &shown[..shown.len().min(300)]
            );
        }
    }
    assert_eq!(server.ask("GET /health", &[], b"").status, 200);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 512 << 20, "{grown} bytes more");
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let server = TestServer::start(config());
    let many: String = (0..1000).map(|i| format!("x-{i}: y\r\n")).collect();
    let reply = server.send(format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{many}\r\n").as_bytes());
    assert_eq!(reply.status, 431, "{reply:?}");
    let long = "y".repeat(1 << 20);
    let reply =
        server.send(format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n").as_bytes());
    assert!(matches!(reply.status, 0 | 431), "{reply:?}");
    let reply = server.send(format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes());
    assert!(matches!(reply.status, 0 | 414 | 431), "{reply:?}");
    assert_eq!(server.ask("GET /health", &[], b"").status, 200);
}

/// Files that this process may have open.
fn files_max() -> usize {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(1 << 20)
}

#[test]
fn ten_thousand_connections_that_stay_are_bounded() {
    let _alone = alone();
    // Both ends are in this process: fewer where it may not have so many files open.
    let wanted = 10_000;
    let n = wanted.min(files_max().saturating_sub(300) * 9 / 10);
    if n < wanted {
        println!("{n} connections instead of {wanted}: this process may have {} files open", files_max());
    }
    let connections = n / 10;
    let server = TestServer::start(Config { connections, ..config() });
    assert_eq!(server.ask("GET /health", &[], b"").status, 200);
    let before = resident_bytes();
    let mut kept = Vec::with_capacity(n);
    for _ in 0..n {
        let Ok(mut stream) = TcpStream::connect(server.address) else { continue };
        let _ = stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
        kept.push(stream);
    }
    let mut n_answered = 0;
    for stream in &mut kept {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        n_answered += usize::from(stream.read(&mut [0; 12]).is_ok_and(|n| n == 12));
    }
    assert!(n_answered >= connections, "{n_answered} of {n} were answered, {connections} may be open");
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more for {n} connections");
    // They go, and others get their places.
    drop(kept);
    let mut status = 0;
    for _ in 0..200 {
        status = server.ask("GET /health", &[], b"").status;
        if status == 200 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(status, 200);
}

#[test]
fn who_comes_when_the_queue_is_full_is_told_when_to_come_back() {
    let server = TestServer::start(Config { parallel: 1, queue: 1, ..config() });
    let body = json!({ "model": "builtin", "prompt": "Once", "max_tokens": 200, "n": 16, "logit_bias": {} });
    assert_eq!(
        server.post("/v1/completions", &json!({ "model": "builtin", "prompt": "x" }).to_string()).status,
        200
    );
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..12).map(|_| scope.spawn(|| server.post("/v1/completions", &body.to_string()))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let (told, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert!(!told.is_empty() && !refused.is_empty(), "{} and {}", told.len(), refused.len());
    for reply in refused {
        assert_eq!(reply.status, 429, "{reply:?}");
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(reply.json()["error"]["type"], "rate_limit_exceeded");
    }
}
