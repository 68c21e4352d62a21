//! Requests whose length can be read in two ways.

use crate::server::{TestServer, config};

/// The statuses of all replies on one connection.
fn statuses(server: &TestServer, bytes: &str) -> Vec<u16> {
    let reply = server.send(bytes.as_bytes());
    let text = format!("{}\r\n\r\n{}", reply.head, reply.body).to_ascii_lowercase();
    let starts = text.match_indices("http/1.1 ");
    starts.filter_map(|(at, found)| text[at + found.len()..].get(..3)?.parse().ok()).collect()
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let server = TestServer::start(config());
    let hidden = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    for headers in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
        "content-length: +5\r\n",
        "content-length: 0x5\r\n",
        "content-length: -1\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: identity\r\n",
        "content-length : 5\r\n",
        "x: y\r\n folded: z\r\n",
    ] {
        let request = format!("POST /tokenize HTTP/1.1\r\nhost: localhost\r\n{headers}\r\nhello{hidden}");
        let statuses = statuses(&server, &request);
        assert_eq!(statuses, [400], "{headers:?}");
    }
}

#[test]
fn chunks_stand_above_a_length_and_nothing_is_taken_for_a_request_that_is_none() {
    let server = TestServer::start(config());
    // By the length the body would be the hidden request; by the chunks it is empty, and what follows is the next one.
    let next = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let request = format!(
        "POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n\
         0\r\n\r\n{next}",
        next.len() + 5
    );
    let both = statuses(&server, &request);
    assert!(both == [400] || both == [400, 200], "{both:?}");
    // A chunk's size that overflows, and one that is none.
    for size in ["fffffffffffffffff", "-1", "0x5", "5;\n"] {
        let request = format!(
            "POST /tokenize HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{size}\r\nhello\r\n"
        );
        assert_eq!(statuses(&server, &request), [400], "{size:?}");
    }
}
