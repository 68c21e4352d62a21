//! Fetches one address into one file: resumed, checked, retried.

use crate::error::at;
use crate::pull::{Network, Progress, PullOptions};
use crate::sha256::{self, hex};
use crate::{Error, Reference};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// The longest answer of an index that is read, in bytes.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// The longest that a server may tell us to wait before the next attempt.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// One file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Where it is.
    pub url: String,
    /// What messages call it.
    pub name: String,
    /// Bytes, if the index says it.
    pub size: Option<u64>,
    /// sha256 in hex, if the index says it.
    pub sha256: Option<String>,
}

/// A fetched file, checked.
pub struct Fetched {
    /// Where it lies.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// sha256 in hex.
    pub sha256: String,
}

/// What is kept beside an unfinished file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Unfinished {
    url: String,
    /// A strong ETag, or the date of the last change.
    validator: Option<String>,
}

/// Why an attempt ended early.
enum Attempt {
    /// The next attempt may succeed.
    Again { reason: String, status: Option<u16>, wait: Option<Duration> },
    /// It will not.
    Final(Error),
}

impl From<Error> for Attempt {
    fn from(error: Error) -> Attempt {
        Attempt::Final(error)
    }
}

/// Asks servers, within the limits of its options.
pub struct Client<'a> {
    agent: Agent,
    options: &'a PullOptions,
}

impl<'a> Client<'a> {
    /// A client that asks as `options` say; opens nothing yet.
    pub fn new(options: &'a PullOptions) -> Client<'a> {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(options.proxy.clone())
            .tls_config(tls)
            .user_agent(concat!("rhetor/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(options.timeout_connect))
            .timeout_recv_response(Some(options.timeout_read))
            .timeout_per_read(Some(options.timeout_read))
            .build();
        Client { agent: config.into(), options }
    }

    /// Fetches a JSON document of an index.
    pub fn json(
        &self,
        url: &str,
        accept: &str,
        on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<serde_json::Value, Error> {
        let bytes = self.bytes(url, accept, INDEX_BYTES_MAX, on_progress)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::Protocol { url: url.to_string(), reason: e.to_string() })
    }

    /// Fetches a document of at most `limit` bytes.
    pub fn bytes(
        &self,
        url: &str,
        accept: &str,
        limit: u64,
        on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<u8>, Error> {
        let mut tries = Tries::new(url, self.options);
        loop {
            let answer = self.get(url, &[("accept", accept.to_string())]).and_then(|mut response| {
                let bytes = response.body_mut().with_config().limit(limit).read_to_vec();
                bytes.map_err(|e| classify(url, e))
            });
            match answer {
                Ok(bytes) => return Ok(bytes),
                Err(attempt) => tries.after(attempt, url, on_progress)?,
            }
        }
    }

    /// Fetches `what` into `folder`, continuing what an earlier pull has left there.
    pub fn fetch(
        &self,
        what: &Download,
        folder: &Path,
        on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Fetched, Error> {
        let mut tries = Tries::new(&what.url, self.options);
        let mut part = Part::open(what, folder)?;
        let mut may_start_over = part.len > 0;
        loop {
            let len_before = part.len;
            match self.attempt(what, &mut part, on_progress) {
                Ok(()) => {
                    let sha256 = hex(&part.hash.clone().finalize());
                    match &what.sha256 {
                        Some(expected) if *expected != sha256 => {
                            part.start_over(what, None)?;
                            // What was left by an earlier pull may belong to another version of the file.
                            if !std::mem::take(&mut may_start_over) {
                                part.remove();
                                let (what, expected) = (what.url.clone(), expected.clone());
                                return Err(Error::Hash { what, expected, got: sha256 });
                            }
                        }
                        _ => {
                            part.file.sync_all().map_err(at(&part.path))?;
                            return Ok(Fetched { path: part.path, size: part.len, sha256 });
                        }
                    }
                }
                Err(Attempt::Final(error @ Error::DiskFull { .. })) => {
                    part.remove();
                    return Err(error);
                }
                Err(attempt) => {
                    if part.len > len_before {
                        tries.count = 0;
                    }
                    tries.after(attempt, &what.name, on_progress)?;
                }
            }
        }
    }

    /// Asks once for what is missing of `part` and appends it.
    fn attempt(
        &self,
        what: &Download,
        part: &mut Part,
        on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<(), Attempt> {
        if part.len > 0 && what.size == Some(part.len) {
            return Ok(());
        }
        let mut headers = Vec::new();
        if part.len > 0 {
            headers.push(("range", format!("bytes={}-", part.len)));
            if let Some(validator) = &part.unfinished.validator {
                headers.push(("if-range", validator.clone()));
            }
        }
        let mut response = self.get(&what.url, &headers)?;
        let protocol = |reason: String| Error::Protocol { url: what.url.clone(), reason };
        let content_range = header(&response, "content-range").and_then(parse_content_range);
        let total = match (response.status().as_u16(), content_range) {
            (206, Some((Some(start), total))) if start == part.len => total,
            (416, Some((None, Some(total)))) if total == part.len => return Ok(()),
            (206 | 416, _) => {
                // The server cannot continue where we stopped: the next attempt begins anew.
                part.start_over(what, None)?;
                return Err(again("it does not continue where the last attempt stopped"));
            }
            _ => {
                part.start_over(what, validator_of(&response))?;
                header(&response, "content-length").and_then(|text| text.parse().ok())
            }
        };
        if let (Some(expected), Some(total)) = (what.size, total)
            && expected != total
        {
            return Err(protocol(format!("the file has {total} bytes; the index says {expected}")).into());
        }
        if let Some(total) = total {
            self.options.check_space(total.saturating_sub(part.len), &part.path)?;
        }
        let limit = total.or(what.size).unwrap_or(u64::MAX);
        let mut reader = response.body_mut().with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) if part.len < limit && limit != u64::MAX => {
                    return Err(again("the connection ended before the file did"));
                }
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(again(&error.to_string())),
            };
            if part.len + n as u64 > limit {
                return Err(protocol(format!("the file has more than the {limit} bytes announced")).into());
            }
            part.append(&buffer[..n])?;
            let sha256 = what.sha256.as_deref();
            let total = total.or(what.size);
            let done = Progress::Downloading { file: &what.name, done: part.len, total, sha256 };
            if on_progress(done).is_break() {
                return Err(Error::Cancelled.into());
            }
        }
    }

    /// Asks once. An answer is 200, 206 or 416.
    fn get(&self, url: &str, headers: &[(&str, String)]) -> Result<Response<Body>, Attempt> {
        if self.options.network == Network::Offline {
            return Err(Error::Offline { wanted: url.to_string() }.into());
        }
        let is_https = url.starts_with("https://");
        if !is_https && !is_loopback(url) && !self.options.insecure {
            return Err(Error::Insecure { url: url.to_string() }.into());
        }
        let mut request = self.agent.get(url).config().https_only(is_https).build();
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(token) = &self.options.hub_token
            && url.starts_with(&self.options.hub_url)
        {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request.call().map_err(|e| classify(url, e))?;
        let status = response.status().as_u16();
        match status {
            200 | 206 | 416 => Ok(response),
            408 | 429 | 500.. => {
                let wait = header(&response, "retry-after").and_then(|text| text.parse().ok());
                let wait = wait.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
                Err(Attempt::Again { reason: format!("status {status}"), status: Some(status), wait })
            }
            _ => Err(Error::Status { url: url.to_string(), status }.into()),
        }
    }
}

/// Counts attempts that brought nothing, and waits longer after each.
struct Tries<'a> {
    url: &'a str,
    count: u32,
    options: &'a PullOptions,
}

impl<'a> Tries<'a> {
    fn new(url: &'a str, options: &'a PullOptions) -> Tries<'a> {
        Tries { url, count: 0, options }
    }

    /// Waits before the next attempt, or says why there is none.
    fn after(
        &mut self,
        attempt: Attempt,
        file: &str,
        on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let (reason, status, wait) = match attempt {
            Attempt::Final(error) => return Err(error),
            Attempt::Again { reason, status, wait } => (reason, status, wait),
        };
        self.count += 1;
        let url = self.url.to_string();
        if self.count >= self.options.attempts {
            return Err(match status {
                Some(status) => Error::Status { url, status },
                None => Error::Connection { url, attempts: self.count, reason },
            });
        }
        let wait = wait.unwrap_or(self.options.backoff * 2u32.pow(self.count.min(8) - 1));
        if on_progress(Progress::Retrying { file, reason: &reason, wait }).is_break() {
            return Err(Error::Cancelled);
        }
        std::thread::sleep(wait);
        Ok(())
    }
}

/// A file that is being fetched, and the hash of what is there.
struct Part {
    path: PathBuf,
    unfinished_path: PathBuf,
    unfinished: Unfinished,
    file: File,
    hash: Sha256,
    len: u64,
}

impl Part {
    /// Opens what an earlier pull has left of `what`, if it can be continued, or begins.
    fn open(what: &Download, folder: &Path) -> Result<Part, Error> {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let key = sha256::of_bytes(format!("{} {:?}", what.url, what.sha256).as_bytes());
        let path = folder.join(format!("{}.part", &key[..24]));
        let unfinished_path = path.with_extension("json");
        let unfinished: Unfinished = std::fs::read(&unfinished_path)
            .ok()
            .and_then(|b| serde_json::from_slice(&b).ok())
            .unwrap_or_default();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at(&path))?;
        let mut hash = Sha256::new();
        // Without a validator or a hash nobody would notice that the rest belongs to another file.
        let can_continue =
            unfinished.url == what.url && (unfinished.validator.is_some() || what.sha256.is_some());
        let mut len = 0;
        if can_continue {
            len = sha256::absorb(&mut file, &mut hash, |_| {}).map_err(at(&path))?;
        }
        let mut part = Part { path, unfinished_path, unfinished, file, hash, len };
        if !can_continue || what.size.is_some_and(|size| size < len) {
            part.start_over(what, None)?;
        }
        Ok(part)
    }

    fn start_over(&mut self, what: &Download, validator: Option<String>) -> Result<(), Error> {
        self.file.set_len(0).map_err(at(&self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(at(&self.path))?;
        (self.hash, self.len) = (Sha256::new(), 0);
        self.unfinished = Unfinished { url: what.url.clone(), validator };
        let text = serde_json::to_string(&self.unfinished).expect("it has only strings");
        std::fs::write(&self.unfinished_path, text).map_err(at(&self.unfinished_path))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(at(&self.path))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn remove(&self) {
        remove_part(&self.path);
    }
}

/// Removes a fetched file and what was kept beside it.
pub fn remove_part(path: &Path) {
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_file(path.with_extension("json"));
}

impl PullOptions {
    /// Refuses to begin writing `needed` bytes beside `path` if they do not fit.
    pub(crate) fn check_space(&self, needed: u64, path: &Path) -> Result<(), Error> {
        let folder = path.parent().unwrap_or(path);
        let free = (self.free_space)(folder).map_err(at(folder))?;
        if needed > free {
            return Err(Error::Space { needed, free, home: folder.to_path_buf() });
        }
        Ok(())
    }
}

/// The download of a plain address.
pub fn from_url(url: &str) -> Result<Download, Error> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let after_host = path.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, p)| p);
    let name = after_host.rsplit('/').next().unwrap_or_default().to_string();
    if name.is_empty() {
        return Err(Error::Reference {
            text: Reference::Url(url.to_string()).to_string(),
            reason: "the address does not end in a file name",
        });
    }
    crate::file_name::check(&name)?;
    Ok(Download { url: url.to_string(), name, size: None, sha256: None })
}

/// Whether `url` leads to this machine, where plain http harms nobody.
pub fn is_loopback(url: &str) -> bool {
    let Some(authority) = url.strip_prefix("http://").and_then(|rest| rest.split(['/', '?', '#']).next())
    else {
        return false;
    };
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn again(reason: &str) -> Attempt {
    Attempt::Again { reason: reason.to_string(), status: None, wait: None }
}

fn classify(url: &str, error: ureq::Error) -> Attempt {
    let reason = error.to_string();
    match error {
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => again(&reason),
        ureq::Error::RequireHttpsOnly(_) => Error::Insecure { url: reason }.into(),
        ureq::Error::HostNotFound => Error::Connection {
            url: url.to_string(),
            attempts: 1,
            reason: "there is no such host".to_string(),
        }
        .into(),
        _ => Error::Protocol { url: url.to_string(), reason }.into(),
    }
}

fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

/// What can be sent as `If-Range`: a strong ETag, or else the date of the last change.
fn validator_of(response: &Response<Body>) -> Option<String> {
    let etag = header(response, "etag").filter(|etag| !etag.starts_with("W/"));
    etag.or(header(response, "last-modified")).map(str::to_string)
}

/// `bytes 5-9/10` is `(Some(5), Some(10))`; `bytes */10` is `(None, Some(10))`.
fn parse_content_range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    let start = if range == "*" { None } else { Some(range.split_once('-')?.0.parse().ok()?) };
    Some((start, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((Some(5), Some(10))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((Some(5), None)));
        assert_eq!(parse_content_range("bytes */10"), Some((None, Some(10))));
        for bad in ["", "bytes", "bytes x-y/z", "items 0-1/2", "bytes 1/2"] {
            assert_eq!(parse_content_range(bad), None);
        }
    }

    #[test]
    fn only_this_machine_may_be_asked_without_encryption() {
        for good in ["http://127.0.0.1:80/x", "http://localhost/", "http://[::1]:8/x"] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "http://example.org",
            "http://127.0.0.1.example.org/",
            "http://localhost@example.org/",
            "https://x",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    #[test]
    fn the_name_of_a_file_comes_from_the_path_of_its_address() {
        assert_eq!(from_url("https://h/a/m.gguf?x=/y").unwrap().name, "m.gguf");
        assert!(matches!(from_url("https://host.gguf"), Err(Error::Reference { .. })));
        assert!(matches!(from_url("https://h/a/"), Err(Error::Reference { .. })));
        assert!(matches!(from_url("https://h/a/nul"), Err(Error::FileName { .. })));
    }
}
