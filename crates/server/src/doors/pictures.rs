//! Pictures from the network: only from hosts that the server's owner has named, and never from the inside (SSRF).
//!
//! A name is resolved once, every address that it has is checked, and the connection goes to those very addresses. Each
//! redirect is a new request that passes the same checks. What notation an address is written in, octal, decimal or as
//! IPv6, does not matter: what is checked is the address that it means.

use crate::config::Config;
use crate::refusal::Refusal;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::http::{Uri, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use url::{Host, Url};

const TIME: Duration = Duration::from_secs(20);
const BYTES: u64 = 20 << 20;
const REDIRECTS: usize = 3;

/// The picture at `url`, which stands at `path` in the request. Blocks for 20 s at most.
pub(crate) fn fetch(config: &Config, url: &str, path: &str) -> Result<Arc<[u8]>, Refusal> {
    Fetch { hosts: &config.image_hosts, may_connect: is_public }
        .fetch(url)
        .map_err(|reason| Refusal::field(path, format!("{path}: {reason}")).code("invalid_image_url"))
}

struct Fetch<'a> {
    /// The only hosts that may be asked.
    hosts: &'a [String],
    /// The only addresses that may be connected to.
    may_connect: fn(IpAddr) -> bool,
}

impl Fetch<'_> {
    fn fetch(&self, text: &str) -> Result<Arc<[u8]>, String> {
        if self.hosts.is_empty() {
            return Err(
                "only pictures in `data:` URLs are taken; --allow-image-hosts allows others".to_string()
            );
        }
        let deadline = Instant::now() + TIME;
        let mut url = Url::parse(text).map_err(|error| format!("no URL: {error}"))?;
        for _ in 0..=REDIRECTS {
            self.check(&url)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let mut response = self.ask(&url, left).map_err(|error| error.to_string())?;
            let status = response.status();
            if status.is_redirection() {
                let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
                let to = to.ok_or("a redirect without a place")?;
                url = url.join(to).map_err(|error| format!("a redirect to no URL: {error}"))?;
                continue;
            }
            if !status.is_success() {
                return Err(format!("the host answers {}", status.as_u16()));
            }
            let mut bytes = Vec::new();
            let mut reader = response.body_mut().as_reader().take(BYTES + 1);
            reader.read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
            if bytes.len() as u64 > BYTES {
                return Err(format!("the picture has more than {BYTES} bytes"));
            }
            return Ok(bytes.into());
        }
        Err(format!("more than {REDIRECTS} redirects"))
    }

    /// Whether the URL is one that may be asked, before any name is resolved.
    fn check(&self, url: &Url) -> Result<(), String> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("the scheme `{}` is none of http and https", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL with a user name".to_string());
        }
        let host = url.host().ok_or("a URL without a host")?;
        let name = host.to_string();
        if !self.hosts.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
            return Err(format!("pictures may not be fetched from `{name}`"));
        }
        let ip = match host {
            Host::Domain(_) => return Ok(()),
            Host::Ipv4(ip) => IpAddr::V4(ip),
            Host::Ipv6(ip) => IpAddr::V6(ip),
        };
        if (self.may_connect)(ip) { Ok(()) } else { Err(inside()) }
    }

    /// One request, whose connection goes to a checked address.
    fn ask(
        &self,
        url: &Url,
        time: Duration,
    ) -> Result<ureq::http::Response<ureq::Body>, Box<dyn std::error::Error>> {
        let config = ureq::Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            // A proxy would resolve the name anew.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(time))
            .user_agent(concat!("rhetor/", env!("CARGO_PKG_VERSION")))
            .build();
        let resolver = Checked { resolver: DefaultResolver::default(), may_connect: self.may_connect };
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), resolver);
        Ok(agent.get(url.as_str()).header("accept", "image/*").call()?)
    }
}

fn inside() -> String {
    "the host has an address inside this machine or its network".to_string()
}

/// Gives only addresses that may be connected to.
#[derive(Debug)]
struct Checked {
    resolver: DefaultResolver,
    may_connect: fn(IpAddr) -> bool,
}

impl Resolver for Checked {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.resolver.resolve(uri, config, timeout)?;
        // One inside address among others is an attempt too.
        match found.iter().all(|address| (self.may_connect)(address.ip())) {
            true => Ok(found),
            false => {
                Err(ureq::Error::Io(std::io::Error::new(std::io::ErrorKind::PermissionDenied, inside())))
            }
        }
    }
}

/// Whether an address is one of the open network, by the registries of RFC 6890 and what is written in IPv6 for IPv4.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_special = matches!(
        (a, b, c),
        (0 | 10 | 127, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224..=255, _, _)
    );
    !is_special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match [a, b, c, d, e, f] {
        // IPv4-mapped and IPv4-compatible; the unspecified address and loopback are among the latter.
        [0, 0, 0, 0, 0, 0 | 0xffff] => is_public_v4(v4(g, h)),
        // Translated: 64:ff9b::/96 (RFC 6052), 6to4 (RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0] => is_public_v4(v4(g, h)),
        [0x2002, ..] => is_public_v4(v4(b, c)),
        // Teredo, documentation.
        [0x2001, 0 | 0xdb8, ..] => false,
        // What else is global stands in 2000::/3.
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn addresses_of_the_inside_are_not_public_however_they_are_written() {
        for inside in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "2001:db8::1",
            "2001:0:1::1",
            "100::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for open in
            ["1.1.1.1", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
        {
            assert!(is_public(open.parse().unwrap()), "{open}");
        }
    }

    fn refused(hosts: &[&str], url: &str) -> String {
        let hosts: Vec<String> = hosts.iter().map(|host| host.to_string()).collect();
        Fetch { hosts: &hosts, may_connect: is_public }.fetch(url).unwrap_err()
    }

    #[test]
    fn the_inside_cannot_be_reached_even_through_a_host_that_is_allowed() {
        let hosts = ["127.0.0.1", "localhost", "[::1]", "[::ffff:7f00:1]", "0.0.0.0", "169.254.169.254"];
        for url in [
            "http://127.0.0.1/",
            "http://localhost:1/",
            "http://0177.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://127.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[0:0:0:0:0:ffff:7f00:1]/",
            "http://0/",
            "http://169.254.169.254/latest/meta-data/",
            "http://LOCALHOST/",
            "http://１２７.0.0.1/",
        ] {
            assert!(refused(&hosts, url).contains("inside this machine"), "{url}: {}", refused(&hosts, url));
        }
    }

    #[test]
    fn only_hosts_that_are_allowed_and_plain_urls_are_asked() {
        for (url, reason) in [
            ("http://evil.example/a.png", "may not be fetched from `evil.example`"),
            ("http://good.example.evil.example/", "may not be fetched"),
            ("http://good.example@evil.example/", "user name"),
            ("http://user:pass@good.example/", "user name"),
            ("file:///etc/passwd", "scheme `file`"),
            ("ftp://good.example/", "scheme `ftp`"),
            ("gopher://good.example/", "scheme `gopher`"),
            ("/etc/passwd", "no URL"),
        ] {
            assert!(
                refused(&["good.example"], url).contains(reason),
                "{url}: {}",
                refused(&["good.example"], url)
            );
        }
        assert!(refused(&[], "http://good.example/").contains("--allow-image-hosts"));
    }

    /// A host on loopback that answers each request with the next of `replies`.
    fn host(replies: Vec<String>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for reply in replies {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                stream.write_all(reply.as_bytes()).unwrap();
            }
        });
        port
    }

    /// As if 127.0.0.1 were a host of the open network, and the only one.
    fn fetch(url: &str) -> Result<Arc<[u8]>, String> {
        let hosts = ["127.0.0.1".to_string(), "127.0.0.2".to_string(), "localhost".to_string()];
        let may_connect = |ip: IpAddr| ip == IpAddr::V4(Ipv4Addr::LOCALHOST);
        Fetch { hosts: &hosts, may_connect }.fetch(url)
    }

    fn redirect(to: &str) -> String {
        format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    }

    #[test]
    fn redirects_are_followed_to_allowed_hosts_and_checked_each_time() {
        let picture = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nPNG".to_string();
        let port = host(vec![redirect("/there"), picture]);
        assert_eq!(*fetch(&format!("http://127.0.0.1:{port}/here")).unwrap(), *b"PNG");
        for (to, reason) in [
            ("http://127.0.0.2/", "inside this machine"),
            ("http://[::1]/", "may not be fetched"),
            ("http://10.0.0.1/", "may not be fetched"),
            ("file:///etc/passwd", "scheme `file`"),
        ] {
            let port = host(vec![redirect(to)]);
            let refused = fetch(&format!("http://127.0.0.1:{port}/")).unwrap_err();
            assert!(refused.contains(reason), "{to}: {refused}");
        }
        let port = host((0..=REDIRECTS).map(|i| redirect(&format!("/{i}"))).collect());
        assert!(fetch(&format!("http://127.0.0.1:{port}/")).unwrap_err().contains("redirects"));
    }

    #[test]
    fn a_picture_that_is_too_large_or_not_there_is_refused() {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BYTES + 1);
        let port = host(vec![head + &"x".repeat(BYTES as usize + 1)]);
        assert!(fetch(&format!("http://127.0.0.1:{port}/")).unwrap_err().contains("more than"));
        let port = host(vec!["HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_string()]);
        assert!(fetch(&format!("http://127.0.0.1:{port}/")).unwrap_err().contains("404"));
    }
}
