//! A web server small enough to misbehave on purpose.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server does when a path is asked for.
#[derive(Clone)]
pub enum Answer {
    /// The bytes; ranges are honoured if the `If-Range` header, when sent, equals the ETag.
    File { bytes: Vec<u8>, etag: &'static str },
    /// As `File`, but the connection is cut after that many bytes of the body.
    Cut { bytes: Vec<u8>, etag: &'static str, after: usize },
    /// The bytes in chunks, without a length, an ETag or ranges.
    Chunked(Vec<u8>),
    /// A status without a body.
    Status(u16),
    /// Another place.
    Redirect(String),
}

impl Answer {
    pub fn file(bytes: impl Into<Vec<u8>>) -> Answer {
        Answer::File { bytes: bytes.into(), etag: "\"v1\"" }
    }
}

/// A running server; ends with the process.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Each path gives its answers in order, the last one for ever.
    pub fn start<P: Into<String>>(routes: impl IntoIterator<Item = (P, Vec<Answer>)>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes: HashMap<String, Vec<Answer>> = routes.into_iter().map(|(p, a)| (p.into(), a)).collect();
        let routes = Arc::new(Mutex::new(routes));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (routes, log) = (routes.clone(), log.clone());
                std::thread::spawn(move || {
                    let _ = serve(stream.unwrap(), &routes, &log);
                });
            }
        });
        Server { url, asked }
    }

    /// Every request so far: path, and range if one was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    routes: &Mutex<HashMap<String, Vec<Answer>>>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_string();
    let mut headers = HashMap::new();
    for line in lines.by_ref() {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_string());
    }
    let range = headers.get("range").cloned();
    log.lock().unwrap().push(format!("{path}{}", range.as_ref().map_or(String::new(), |r| format!(" {r}"))));
    let answer = {
        let mut routes = routes.lock().unwrap();
        match routes.get_mut(&path) {
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
            None => Answer::Status(404),
        }
    };
    let (bytes, etag, after) = match answer {
        Answer::File { bytes, etag } => (bytes, etag, usize::MAX),
        Answer::Cut { bytes, etag, after } => (bytes, etag, after),
        Answer::Chunked(bytes) => {
            write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n")?;
            for chunk in bytes.chunks(1000) {
                write!(stream, "{:x}\r\n", chunk.len())?;
                stream.write_all(chunk)?;
                write!(stream, "\r\n")?;
            }
            return write!(stream, "0\r\n\r\n");
        }
        Answer::Status(status) => {
            return write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
        Answer::Redirect(to) => {
            return write!(
                stream,
                "HTTP/1.1 302 X\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
        }
    };
    let may_continue = headers.get("if-range").is_none_or(|validator| validator == etag);
    let start = range.filter(|_| may_continue && !etag.is_empty());
    let start: usize =
        start.map_or(0, |r| r.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
    let tag = if etag.is_empty() { String::new() } else { format!("etag: {etag}\r\n") };
    let (status, extra) = match start {
        0 => ("200 OK", String::new()),
        _ if start >= bytes.len() => {
            let total = bytes.len();
            return write!(
                stream,
                "HTTP/1.1 416 X\r\ncontent-range: bytes */{total}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
        }
        _ => ("206 X", format!("content-range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len())),
    };
    let body = &bytes[start..];
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{tag}{extra}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body[..body.len().min(after)])
}
