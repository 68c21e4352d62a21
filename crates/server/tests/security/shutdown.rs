//! The end.

use crate::server::{Reply, TestServer, config};
use rhetor_server::{Config, Farewell};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A stream that has begun, and takes its time.
fn stream(server: &TestServer, n: usize) -> TcpStream {
    let body = json!({ "model": "builtin", "prompt": "Once", "max_tokens": 120, "n": n, "stream": true })
        .to_string();
    let mut stream = server.connect();
    let length = body.len();
    let head =
        format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    // The first byte of the reply is the proof that it is running.
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 1);
    stream
}

#[test]
fn running_requests_come_to_their_end_and_nothing_new_is_accepted() {
    let mut server = TestServer::start(config());
    let mut running = stream(&server, 4);
    server.stop();
    let rest = Reply::read(&mut running);
    assert!(rest.body.contains("data: [DONE]"), "{rest:?}");
    assert!(!rest.body.contains("cancelled"), "{rest:?}");
    let address = server.address;
    let Farewell { n_cut, .. } = server.farewell();
    assert_eq!(n_cut, 0);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn requests_that_outlast_the_grace_are_broken_off_and_say_so() {
    let mut server = TestServer::start(Config { grace: Duration::ZERO, ..config() });
    let mut running = stream(&server, 128);
    server.stop();
    let rest = Reply::read(&mut running);
    let end = &rest.body[rest.body.len().saturating_sub(600)..];
    assert!(end.contains("data: "), "{end}");
    assert!(end.contains("[DONE]") || end.contains("\"error\""), "the stream says how it ended: {end}");
    let farewell = server.farewell();
    assert_eq!(farewell.n_cut, 1, "{farewell:?}");
}

#[test]
fn a_connection_that_is_silent_does_not_hold_the_end_up() {
    let server = TestServer::start(Config { grace: Duration::from_secs(3600), ..config() });
    let mut idle = server.connect();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert_eq!(idle.read(&mut [0; 12]).unwrap(), 12);
    let _never_used = server.connect();
    assert_eq!(server.farewell(), Farewell::default());
}
