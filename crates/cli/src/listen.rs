//! Where a server listens, as users of this program and of Ollama write it.

use std::net::{SocketAddr, ToSocketAddrs};

/// The port that Ollama's clients call.
const PORT: u16 = 11434;

/// `host`, `host:port`, `:port`, `scheme://host:port`; without a host it is 127.0.0.1.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = |reason: &str| format!("`{text}` is no address to listen on: {reason}");
    let place = text.split_once("://").map_or(text, |(_, place)| place).trim_end_matches('/');
    let (host, port) = match place.rfind(':') {
        // `::1` is a host; `[::1]:80` has a port.
        Some(at) if !place[..at].contains(':') || place[..at].ends_with(']') => {
            (&place[..at], place[at + 1..].parse().map_err(|_| wrong("after `:` comes a port"))?)
        }
        _ => (place, PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    let mut found = (host, port).to_socket_addrs().map_err(|error| wrong(&error.to_string()))?;
    found.next().ok_or_else(|| wrong("the name has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_ollama_writes_them() {
        for (text, expected) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("0.0.0.0", "0.0.0.0:11434"),
            (":8080", "127.0.0.1:8080"),
            ("http://127.0.0.1:9/", "127.0.0.1:9"),
            ("[::1]:80", "[::1]:80"),
            ("::1", "[::1]:11434"),
            ("[::]", "[::]:11434"),
        ] {
            assert_eq!(address(text).map(|found| found.to_string()), Ok(expected.to_string()));
        }
        assert!(address("127.0.0.1:x").is_err() && address("127.0.0.1:70000").is_err());
    }
}
