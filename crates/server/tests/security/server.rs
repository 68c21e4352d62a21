//! A server of its own for each test, and a client that sends whatever bytes it likes.

use rhetor_server::{App, Config, Farewell, Server};
use rhetor_store::{PullOptions, Store};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// A server with an empty store, and the model inside the program.
pub struct TestServer {
    pub address: SocketAddr,
    pub home: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Farewell>>,
}

/// A config that listens on a free port.
pub fn config() -> Config {
    Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Config::default() }
}

impl TestServer {
    pub fn start(config: Config) -> TestServer {
        let home = tempfile::tempdir().unwrap();
        let app = App::new(config, Store::open(home.path()), PullOptions::default());
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let farewell = runtime.block_on(async {
                let server = Server::listen(app).await.unwrap();
                tell.send(server.address()).unwrap();
                server.run(async { drop(stopped.await) }).await.unwrap()
            });
            runtime.shutdown_timeout(Duration::from_millis(100));
            farewell
        });
        let address = told.recv().unwrap();
        TestServer { address, home, stop: Some(stop), thread: Some(thread) }
    }

    /// Tells it to stop.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until it has stopped.
    pub fn farewell(mut self) -> Farewell {
        self.stop();
        self.thread.take().unwrap().join().unwrap()
    }

    /// A connection whose reads end after 30 s.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Sends bytes as they are and reads until the server closes.
    pub fn send(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        // The server may answer, and close, before it has everything.
        let _ = stream.write_all(bytes);
        Reply::read(&mut stream)
    }

    /// A request with headers `name: value`, answered on a connection of its own.
    pub fn ask(&self, line: &str, headers: &[&str], body: &[u8]) -> Reply {
        let mut head = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|header| header.to_ascii_lowercase().starts_with("host:")) {
            head += &format!("host: {}\r\n", self.address);
        }
        if !body.is_empty() {
            head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        for header in headers {
            head += &format!("{header}\r\n");
        }
        self.send(&[head.as_bytes(), b"\r\n", body].concat())
    }

    pub fn post(&self, path: &str, body: &str) -> Reply {
        self.ask(&format!("POST {path}"), &[], body.as_bytes())
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    /// Reads until the other side closes.
    pub fn read(stream: &mut impl Read) -> Reply {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => bytes.extend_from_slice(&piece[..n]),
                // What was sent and never read makes the system reset the connection: the end as well.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error}, after {:?}", String::from_utf8_lossy(&bytes)),
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Reply { status, head: head.to_ascii_lowercase(), body: body.to_string() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// The body, which is one JSON value.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Bytes of this process in memory: server and client.
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

/// Tests that measure memory take turns.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
